// The panel that a candidate opens in: what is open, and the field that takes a second one.

const colourOf = (operator, run) => {
  const names = [...new Set(run.candidates.tables.layers.map((layer) => layer.operator))].sort();
  return OPERATOR_COLOURS[names.indexOf(operator) % OPERATOR_COLOURS.length];
};

function openCandidate(state, place, row, keep) {
  if (state.open === null) state.before = document.activeElement;
  state.open = [place, row];
  if (!keep) state.beside = null;
  showCandidate(state);
  const run = state.data.runs[place];
  if (!state.quiet)
    history.replaceState(null, "", `#${encodeURIComponent(run.name)}:${run.candidates.number[row]}`);
  element("candidate-title").focus({ preventScroll: true });
  if (place === state.run) mark(state, row);
}

// A button with a candidate's number, which opens it.
function candidateButton(state, row) {
  const number = state.data.runs[state.run].candidates.number[row];
  return h(
    "button",
    {
      type: "button",
      class: "link",
      "aria-label": `Open candidate ${number}`,
      onclick: () => openCandidate(state, state.run, row),
    },
    number,
  );
}

function closeCandidate(state) {
  state.open = null;
  state.beside = null;
  element("candidate").hidden = true;
  document.body.classList.remove("with-panel");
  history.replaceState(null, "", location.pathname + location.search);
  if (state.before && state.before.isConnected) state.before.focus({ preventScroll: true });
}

function showCandidate(state) {
  if (state.open === null) return;
  const [place, row] = state.open;
  const run = state.data.runs[place];
  element("candidate").hidden = false;
  element("candidate").classList.toggle("two", state.beside !== null);
  document.body.classList.add("with-panel");
  const called = titleOf(state, place, row);
  element("candidate-title").textContent =
    state.beside === null
      ? `Candidate ${called}`
      : `Candidates ${called} and ${titleOf(state, ...state.beside)}`;
  const body = element("candidate-body");
  if (state.beside === null) {
    fill(body, besideForm(state), ...sections(state, place, row));
    drawCurves(state, [[place, row]]);
  } else {
    fill(body, besideForm(state), ...differences(state, [place, row], state.beside));
    drawCurves(state, [[place, row], state.beside]);
  }
}

const titleOf = (state, place, row) => {
  const run = state.data.runs[place];
  return (state.data.runs.length > 1 ? `${run.name}:` : "") + run.candidates.number[row];
};

// The field that takes a second candidate: its id, or RUN:ID where the page has several runs.
function besideForm(state) {
  const [place, row] = state.open;
  const said = h("span", { role: "alert", class: "wrong", id: "beside-wrong" });
  const field = h("input", {
    id: "beside",
    autocomplete: "off",
    size: 12,
    "aria-describedby": "beside-wrong",
    value: state.beside ? titleOf(state, ...state.beside) : "",
  });
  const submit = (event) => {
    event.preventDefault();
    const found = candidateNamed(state, field.value, place);
    if (typeof found === "string") said.textContent = found;
    else {
      state.beside = found;
      showCandidate(state);
      element("candidate-title").focus();
      announce("two candidates beside each other");
    }
  };
  const run = state.data.runs[place];
  const parents = run.candidates.parents[row];
  return h(
    "form",
    { class: "row", onsubmit: submit },
    h("label", { for: "beside" }, "Beside candidate"),
    field,
    h("button", { type: "submit" }, "Compare"),
    state.beside !== null
      ? h(
          "button",
          {
            type: "button",
            onclick: () => {
              state.beside = null;
              showCandidate(state);
            },
          },
          "Only one",
        )
      : parents.map((parent) =>
          h(
            "button",
            {
              type: "button",
              onclick: () => {
                state.beside = [place, run.rowOf.get(parent)];
                showCandidate(state);
              },
            },
            `with parent ${parent}`,
          ),
        ),
    said,
  );
}

// "17" of this run, or "RUN:17" -> [run, row]; else the text that says what was wrong.
function candidateNamed(state, text, place) {
  const match = /^\s*(?:(.+):)?(\d+)\s*$/.exec(text);
  const runs = state.data.runs;
  if (!match) {
    const elsewhere = runs.length > 1 ? `, or ${runs[0].name}:17` : "";
    return `'${text}': expected a candidate's id, as in 17${elsewhere}`;
  }
  const at = match[1] === undefined ? place : runs.findIndex((run) => run.name === match[1]);
  if (at < 0)
    return `no run ${match[1]} on this page: expected one of ${runs.map((run) => run.name).join(", ")}`;
  const row = runs[at].rowOf.get(Number(match[2]));
  return row === undefined ? `run ${runs[at].name} has no candidate ${match[2]}` : [at, row];
}
