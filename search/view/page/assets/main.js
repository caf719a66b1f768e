// The state of the page, its controls, and news from a server.

const state = {
  data: null,
  run: 0,
  x: "",
  y: "",
  colour: "",
  errors: true,
  others: true,
  logX: false,
  logY: false,
  where: "",
  onlyFrontier: false,
  status: "",
  allColumns: false,
  sort: ["id", false],
  page: 0,
  courseBy: "evaluations",
  open: null,
  beside: null,
  members: [],
};

function options(select, pairs, chosen) {
  const before = JSON.stringify([...select.options].map((option) => [option.value, option.textContent]));
  if (JSON.stringify(pairs) !== before)
    fill(
      select,
      pairs.map(([value, text]) => h("option", { value }, text)),
    );
  select.value = chosen;
}

function chooseDefaults() {
  const run = state.data.runs[state.run];
  const objectives = run.objectives.map((each) => each.metric);
  const others = run.metrics.map((metric) => metric.name).filter((name) => !objectives.includes(name));
  state.y = objectives[0];
  state.x = objectives[1] ?? (others.includes("params") ? "params" : (others[0] ?? objectives[0]));
  state.colour = objectives[2] ?? "evaluation";
  state.sort = [objectives[0], run.metric.get(objectives[0]).maximize];
}

function controls() {
  const run = state.data.runs[state.run];
  const metrics = run.metrics.map((metric) => [metric.name, metric.label]);
  options(element("x"), metrics, state.x);
  options(element("y"), metrics, state.y);
  options(element("colour"), [["", "none"], ["evaluation", "evaluation number"], ...metrics], state.colour);
  options(
    element("run"),
    state.data.runs.map((each, place) => [String(place), each.name]),
    String(state.run),
  );
  const statuses = [...new Set(run.rows.map((row) => run.text("status", row)))].sort();
  if (!statuses.includes(state.status)) state.status = "";
  options(element("status"), [["", "all"], ...statuses.map((status) => [status, status])], state.status);
  for (const name of ["many-runs", "others-field"]) element(name).hidden = state.data.runs.length < 2;
  element("metric-note").textContent = [state.y, state.x]
    .map((name) => run.metric.get(name))
    .filter((metric) => metric && metric.description)
    .map((metric) => `${metric.name}: ${metric.description}`)
    .join(". ");
}

// Redraws what depends on the conditions; says what is wrong with them, and keeps the last ones then.
function refresh() {
  const field = element("where");
  try {
    conditions(state.data.runs[state.run], field.value);
    state.where = field.value;
    element("where-wrong").textContent = "";
    field.removeAttribute("aria-invalid");
  } catch (error) {
    element("where-wrong").textContent = error.message;
    field.setAttribute("aria-invalid", "true");
    return;
  }
  state.at = undefined;
  showTable(state);
  drawFrontier(state).catch(failed);
}

function failed(error) {
  element("problem").hidden = false;
  element("problem").textContent = `the charts cannot be drawn: ${error.message}`;
}

// Marks what stands, for those who time the page.
function ready(what) {
  document.body.dataset.ready = what;
  performance.mark(what);
}

async function showAll() {
  document.title = `${state.data.runs.map((run) => run.name).join(", ")} – Frontrunner`;
  controls();
  showStanding(state);
  showGates(state);
  showFailures(state);
  showProvenance(state);
  try {
    conditions(state.data.runs[state.run], state.where);
  } catch {
    state.where = "";
    element("where").value = "";
  }
  showTable(state);
  ready("text");
  await new Promise((done) => setTimeout(done, 0)); // the page is painted before the charts are made
  try {
    await drawFrontier(state);
    performance.mark("frontier");
    for (const chart of [drawCourse, drawComposition]) {
      await new Promise((done) => setTimeout(done, 0)); // what is there answers meanwhile
      await chart(state);
    }
    ready("charts");
  } catch (error) {
    failed(error);
  }
}

function listen() {
  const change = (id, name, of, then) =>
    element(id).addEventListener("change", (event) => {
      state[name] = of(event.target);
      then();
    });
  const value = (target) => target.value;
  const checked = (target) => target.checked;
  const axes = () => {
    controls();
    refresh();
  };
  for (const name of ["x", "y", "colour"]) change(name, name, value, axes);
  for (const [id, name] of [
    ["errors", "errors"],
    ["others", "others"],
    ["log-x", "logX"],
    ["log-y", "logY"],
  ])
    change(id, name, checked, refresh);
  for (const [id, name] of [
    ["only-frontier", "onlyFrontier"],
    ["all-columns", "allColumns"],
  ])
    change(id, name, checked, () => {
      state.page = 0;
      showTable(state);
    });
  change("status", "status", value, () => {
    state.page = 0;
    showTable(state);
  });
  change("course-by", "courseBy", value, () => drawCourse(state).catch(failed));
  change(
    "run",
    "run",
    (target) => Number(target.value),
    () => {
      chooseDefaults();
      state.page = 0;
      showAll();
    },
  );
  element("where-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.page = 0;
    refresh();
  });
  element("where").addEventListener("change", () => {
    state.page = 0;
    refresh();
  });
  element("previous").addEventListener("click", () => {
    state.page -= 1;
    showTable(state);
  });
  element("next").addEventListener("click", () => {
    state.page += 1;
    showTable(state);
  });
  element("csv").addEventListener("click", () => saveCsv(state));
  element("close").addEventListener("click", () => closeCandidate(state));
  element("frontier-chart").addEventListener("keydown", (event) => walk(state, event));
  element("frontier-chart").addEventListener("blur", hideNote);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && state.open !== null) closeCandidate(state);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    showAll();
    showCandidate(state);
  });
  addEventListener("hashchange", openByAddress);
}

// `#RUN:17` in the address opens that candidate.
function openByAddress() {
  let text = location.hash.slice(1);
  try {
    text = decodeURIComponent(text);
  } catch {
    return;
  }
  const cut = text.lastIndexOf(":");
  const place = state.data.runs.findIndex((run) => run.name === text.slice(0, cut));
  const row = place < 0 ? undefined : state.data.runs[place].rowOf.get(Number(text.slice(cut + 1)));
  if (row !== undefined) openCandidate(state, place, row);
}

// New data with the same choices: what is open stays open, and the focus and the zoom stay too.
async function renew(data) {
  const open = [state.open, state.beside].map(
    (at) => at && [state.data.runs[at[0]].name, state.data.runs[at[0]].candidates.number[at[1]]],
  );
  state.data = prepared(data);
  [state.open, state.beside] = open.map((at) => {
    const place = at ? data.runs.findIndex((run) => run.name === at[0]) : -1;
    const row = place < 0 ? undefined : data.runs[place].rowOf.get(at[1]);
    return row === undefined ? null : [place, row];
  });
  const focused = document.activeElement;
  const column = focused && focused.dataset ? focused.dataset.column : undefined;
  const inPanel = element("candidate").contains(focused);
  await showAll();
  if (column !== undefined)
    element("candidates")
      .querySelector(`button[data-column="${CSS.escape(column)}"]`)
      ?.focus();
  if (state.open !== null && !inPanel) showCandidate(state);
}

// Asks the server for news; where nothing changed it answers 304, and nothing is drawn again.
async function follow(address) {
  let tag = null;
  for (;;) {
    let wait = 2000;
    try {
      const answer = await fetch(address, {
        headers: tag ? { "If-None-Match": tag } : {},
        cache: "no-store",
      });
      if (answer.status === 200) {
        tag = answer.headers.get("ETag");
        const data = await answer.json();
        element("problem").hidden = true;
        if (state.data === null) await begin(data);
        else await renew(data);
        wait = Number(answer.headers.get("X-Next-Ms")) || wait;
      } else if (answer.status !== 304) throw new Error(await answer.text());
      else element("problem").hidden = true;
    } catch (error) {
      element("problem").hidden = false;
      element("problem").textContent = `no news from the server: ${error.message}`;
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function begin(data) {
  state.data = prepared(data);
  chooseDefaults();
  listen();
  await showAll();
  openByAddress();
}

async function main() {
  const address = document.body.dataset.address;
  if (address) return follow(address);
  const text = unpacked(element("data").textContent);
  unpacking = unpacked(element("plotly").textContent); // beside the reading of the data
  return begin(JSON.parse(await text));
}

main();
