// One candidate in full, or two beside each other with their differences marked.

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
  if (!state.quiet) history.replaceState(null, "", `#${encodeURIComponent(run.name)}:${run.candidates.number[row]}`);
  element("candidate-title").focus({ preventScroll: true });
  if (place === state.run) mark(state, row);
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
    state.beside === null ? `Candidate ${called}` : `Candidates ${called} and ${titleOf(state, ...state.beside)}`;
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
  const field = h("input", { id: "beside", autocomplete: "off", size: 12, "aria-describedby": "beside-wrong",
    value: state.beside ? titleOf(state, ...state.beside) : "" });
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
  return h("form", { class: "row", onsubmit: submit },
    h("label", { for: "beside" }, "Beside candidate"), field, h("button", { type: "submit" }, "Compare"),
    state.beside !== null ? h("button", { type: "button", onclick: () => { state.beside = null; showCandidate(state); } }, "Only one") :
      parents.map((parent) => h("button", { type: "button", onclick: () => {
        state.beside = [place, run.rowOf.get(parent)];
        showCandidate(state);
      } }, `with parent ${parent}`)), said);
}

// "17" of this run, or "RUN:17" -> [run, row]; else the text that says what was wrong.
function candidateNamed(state, text, place) {
  const match = /^\s*(?:(.+):)?(\d+)\s*$/.exec(text);
  const runs = state.data.runs;
  if (!match) return `'${text}': expected a candidate's id, as in 17${runs.length > 1 ? `, or ${runs[0].name}:17` : ""}`;
  const at = match[1] === undefined ? place : runs.findIndex((run) => run.name === match[1]);
  if (at < 0) return `no run ${match[1]} on this page: expected one of ${runs.map((run) => run.name).join(", ")}`;
  const row = runs[at].rowOf.get(Number(match[2]));
  return row === undefined ? `run ${runs[at].name} has no candidate ${match[2]}` : [at, row];
}

function sections(state, place, row) {
  const run = state.data.runs[place];
  const columns = run.candidates;
  const number = columns.number[row];
  const status = run.text("status", row);
  const reason = run.text("reason", row);
  const part = (title, ...content) => h("section", null, h("h3", null, title), ...content);
  const shown = [
    h("p", null, h("span", { class: `status ${status}` }, status), run.own.has(row) ? " ◆ on the run's frontier" : "",
      reason ? ` — ${reason}` : ""),
    h("p", { class: "letters" }, columns.architecture[row]),
    columns.audits[number] ? columns.audits[number].map((line) => h("p", null, line)) : null,
    part("Layers", stack(run, row)),
  ];
  if (columns.parts[row] !== null)
    shown.push(part("Parts", table("Parts of the model",
      ["part", "parameters", "FLOPs of an image", "keys"].map((title) => ({ title, words: title === "part" || title === "keys" })),
      columns.tables.parts[columns.parts[row]])));
  if (status !== "unfinished") {
    shown.push(part("Timings", ...timings(run, row)), part("Scores", scores(run, row)));
    if (columns.curve[row] || columns.trained[row].length)
      shown.push(part("Training", columns.curve[row] ? h("div", { id: "curve", class: "chart small", role: "img" }) : null,
        columns.trained[row].map((line) => h("p", null, line))));
  }
  shown.push(part("Origin", ...origin(state, place, row)));
  if (columns.tables.text[columns.loads[row]].length) shown.push(part("Loads in", loadsIn(run, row)));
  shown.push(part("Commands", ...commands(run, row)));
  if (columns.traceback[number]) shown.push(part("Traceback", h("pre", { tabindex: "0" }, columns.traceback[number])));
  return shown.flat();
}

// The layers from the first to the last; a bar tells each one's share of the parameters.
function stack(run, row) {
  const columns = run.candidates;
  const layers = layersOf(run, row);
  const total = layers.reduce((sum, layer) => sum + layer.params, columns.around[row]);
  const list = h("ol", { class: "stack", start: "0" },
    layers.map((layer, place) => layerItem(run, layer, place, total)));
  const model = columns.tables.text[columns.model[row]];
  return h("div", null,
    h("p", { class: "soft" }, `width ${columns.width[row]}, depth ${columns.depth[row]}; embedding, head and final norm: `,
      `${withSuffix(columns.around[row], "")} of ${withSuffix(total, "")} parameters. FLOPs and state are of a decode step at batch 1, `,
      `context ${columns.tables.context}, in float32.`),
    list,
    h("p", { class: "soft" }, Object.entries(model).map(([key, value]) => `${key} ${value}`).join("; ")));
}

function layerItem(run, layer, place, total, marked) {
  const share = total ? layer.params / total : 0;
  const bar = h("span", { class: "share", "aria-hidden": "true" });
  bar.style.width = `${Math.max(1, 100 * share)}%`;
  bar.style.background = colourOf(layer.operator, run);
  const tile = h("span", { class: "tile", "aria-hidden": "true" }, layer.symbol);
  tile.style.background = colourOf(layer.operator, run);
  return h("li", { class: marked || null, value: place },
    tile,
    h("span", { class: "layer" },
      h("strong", null, layer.operator), h("span", { class: "soft" }, ` ${layer.norm}`),
      h("span", { class: "shape" }, shapeText(layer)),
      h("span", { class: "costs" }, `${withSuffix(layer.params, "")} parameters (${percent(share)}) · ${withSuffix(layer.flops, "FLOPs")} · state ${withSuffix(layer.state, "B")}`),
      bar));
}

const TIMED = ["prefill_ms", "decode_ms", "decode_tokens_per_s", "peak_memory_bytes", "state_bytes", "ttft_ms",
  "throughput_tokens_per_s", "largest_batch", "energy_j_per_token", "power_w", "anchor_ratio", "bandwidth_fraction"];

// A row for each batch size, context and kind of device; a column for each metric that depends on them.
function timings(run, row) {
  const per = run.metrics.filter((metric) => TIMED.includes(metric.base) && run.value(metric.name, row) !== null);
  if (!per.length) return [h("p", null, "not measured")];
  const bases = TIMED.filter((base) => per.some((metric) => metric.base === base));
  const place = (metric) => JSON.stringify([metric.kind, metric.context, metric.batch]);
  const places = [...new Set(per.map(place))];
  const rows = places.map((key) => {
    const [kind, context, batch] = JSON.parse(key);
    const where = [kind, batch === null ? "largest batch" : `batch ${batch}`,
      `context ${context === null ? run.candidates.tables.context : context}`].filter(Boolean).join(", ");
    const one = (base) => per.find((metric) => metric.base === base && place(metric) === key);
    return [where, ...bases.map((base) => (one(base) ? told(run, one(base).name, row) : ""))];
  });
  const columns = [{ title: "where", words: true }, ...bases.map((base) => {
    const metric = per.find((each) => each.base === base);
    return { title: metric.unit && !base.endsWith(`_${metric.unit}`) && metric.suffix === null ? `${base} [${metric.unit}]` : base };
  })];
  const taints = [...new Set(per.map((metric) => run.taint(metric.name, row)).filter(Boolean))];
  return [table("Timings", columns, rows), ...taints.map((reason) => h("p", null, `! tainted, not to be trusted: ${reason}`))];
}

function scores(run, row) {
  const columns = run.candidates;
  const twice = columns.twice[columns.number[row]] || [];
  const own = run.metrics.filter((metric) => !TIMED.includes(metric.base) && run.value(metric.name, row) !== null);
  const objectives = run.objectives.map((each) => run.metric.get(each.metric))
    .filter((metric) => TIMED.includes(metric.base) && run.value(metric.name, row) !== null);
  const rows = [...objectives, ...own].map((metric) => [metric.name, told(run, metric.name, row), metric.unit,
    ...twice.map((each) => (metric.name in each.metrics ? figure(metric, each.metrics[metric.name]) : each.status))]);
  if (!rows.length) return h("p", null, "none");
  return table("Scores", [{ title: "metric", words: true }, { title: twice.length ? "mean" : "value" }, { title: "unit", words: true },
    ...twice.map((each) => ({ title: `seed ${each.seed}` }))], rows);
}

function origin(state, place, row) {
  const run = state.data.runs[place];
  const columns = run.candidates;
  const parents = columns.parents[row].filter((parent) => run.rowOf.has(parent));
  const seconds = Object.entries(columns.seconds[row]).map(([purpose, value]) => `${purpose} ${value} s`).join(", ");
  const shown = [h("p", null, `${run.text("origin", row)}${parents.length ? " of " : ""}`,
    parents.map((parent) => h("button", { type: "button", class: "link", onclick: () => openCandidate(state, place, run.rowOf.get(parent)) },
      `candidate ${parent}`)),
    columns.order[row] === null ? "; not evaluated yet" : `; evaluation number ${columns.order[row]}`,
    columns.seed[row] === null ? "" : `, seed ${columns.seed[row]}`, seconds ? `; ${seconds}` : "")];
  for (const parent of parents) {
    const changes = changed(run, run.rowOf.get(parent), run, row);
    shown.push(h("h4", null, `Changed from ${parent}`),
      h("ul", { class: "changes" }, (changes.length ? changes : ["nothing"]).map((line) => h("li", null, line))));
  }
  if (run.text("backends", row)) shown.push(h("p", { class: "soft" }, `backends: ${run.text("backends", row)}`));
  return shown;
}

// What differs between the architectures of two candidates, a line each.
function changed(run, before, other, after) {
  const lines = [];
  const a = run.candidates;
  const b = other.candidates;
  if (a.width[before] !== b.width[after]) lines.push(`width ${a.width[before]} → ${b.width[after]}`);
  const models = [a.tables.text[a.model[before]], b.tables.text[b.model[after]]];
  for (const key of Object.keys({ ...models[0], ...models[1] }))
    if (models[0][key] !== models[1][key]) lines.push(`${key} ${models[0][key] ?? "none"} → ${models[1][key] ?? "none"}`);
  const same = (one, two) => layerText(one) === layerText(two);
  const numbers = [0, 0];
  for (const [one, two] of aligned(layersOf(run, before), layersOf(other, after), same)) {
    if (one && two && !same(one, two)) lines.push(`≠ layer ${numbers[1]}: ${layerText(one)} → ${layerText(two)}`);
    else if (!one) lines.push(`+ layer ${numbers[1]}: ${layerText(two)}`);
    else if (!two) lines.push(`− layer ${numbers[0]}: ${layerText(one)}`);
    numbers[0] += one ? 1 : 0;
    numbers[1] += two ? 1 : 0;
  }
  const parts = [a, b].map((each, k) => { const at = each.parts[k ? after : before]; return at === null ? [] : each.tables.parts[at]; });
  for (const [name, , , keys] of parts[1]) {
    const old = parts[0].find((each) => each[0] === name);
    if (!old || old[3] !== keys) lines.push(`${name}: ${old ? old[3] : "none"} → ${keys}`);
  }
  return lines;
}

function loadsIn(run, row) {
  const columns = run.candidates;
  return table("Engines", [{ title: "engine", words: true }, { title: "", words: true }, { title: "as, or why not", words: true }],
    columns.tables.text[columns.loads[row]].map(([engine, name, reason]) => [engine, reason ? "✗ no" : "✓ yes", reason || name]));
}

function commands(run, row) {
  const columns = run.candidates;
  const lacking = run.text("weights", row);
  const base = columns.export[row];
  const loads = columns.tables.text[columns.loads[row]].filter(([, , reason]) => !reason).map(([engine]) => engine);
  const shown = [command(base.replace("frontrunner export", "frontrunner show"))];
  if (lacking) shown.push(h("p", null, `it ${lacking}`), command(`${base} --without-weights --to winner`));
  else {
    shown.push(command(`${base} --to winner`));
    if (columns.parts[row] !== null) return shown; // other formats hold only some of the models that see
    if (loads.includes("transformers")) shown.push(command(`${base} --format huggingface --to winner`));
    else shown.push(command(`${base} --format huggingface-code --to winner`));
    if (loads.includes("llama.cpp")) shown.push(command(`${base} --format gguf --to winner.gguf`));
  }
  return shown;
}

// Two candidates: metrics with their ratio, then the layers aligned.
function differences(state, one, two) {
  const runs = [state.data.runs[one[0]], state.data.runs[two[0]]];
  const rows = [one[1], two[1]];
  const called = [one, two].map((each) => titleOf(state, ...each));
  const names = [...new Set(runs.flatMap((run) => run.metrics.map((metric) => metric.name)))];
  const figures = names.map((name) => {
    const values = runs.map((run, k) => run.value(name, rows[k]));
    if (values.every((value) => value === null)) return null;
    const ratio = values[0] && values[1] !== null ? values[1] / values[0] : null;
    const differs = values[0] !== values[1];
    const cells = runs.map((run, k) => (run.metric.has(name) ? told(run, name, rows[k]) : ""));
    return { mark: differs ? "differs" : null, cells: [`${differs ? "≠ " : ""}${name}`, ...cells, ratio === null ? "" : `× ${ratio.toPrecision(4)}`] };
  }).filter(Boolean);
  const keys = [["status", (run, row) => run.text("status", row)], ["origin", (run, row) => run.text("origin", row)],
    ["width", (run, row) => run.candidates.width[row]], ["depth", (run, row) => run.candidates.depth[row]],
    ["loads in", (run, row) => run.text("loads_in", row)]];
  const models = runs.map((run, k) => run.candidates.tables.text[run.candidates.model[rows[k]]]);
  for (const key of Object.keys({ ...models[0], ...models[1] })) keys.push([key, (run, row) => run.candidates.tables.text[run.candidates.model[row]][key] ?? ""]);
  const facts = keys.map(([name, of]) => {
    const cells = runs.map((run, k) => String(of(run, rows[k])));
    const differs = cells[0] !== cells[1];
    return { mark: differs ? "differs" : null, cells: [`${differs ? "≠ " : ""}${name}`, ...cells] };
  });
  const same = (a, b) => layerText(a) === layerText(b);
  const numbers = [-1, -1];
  const pairs = aligned(layersOf(runs[0], rows[0]), layersOf(runs[1], rows[1]), same).map((pair) => {
    const sign = !pair[0] ? "+" : !pair[1] ? "−" : same(...pair) ? "" : "≠";
    const cells = pair.map((layer, k) => {
      if (layer) numbers[k] += 1;
      return layer ? `${numbers[k]} ${layerText(layer)}` : "";
    });
    return { mark: sign ? "differs" : null, cells: [sign || "=", ...cells] };
  });
  const words = { words: true };
  return [
    h("section", null, h("h3", null, "Figures"), table("Figures of both", [{ title: "metric", ...words }, ...called.map((title) => ({ title })),
      { title: "second over first" }], figures)),
    h("section", null, h("h3", null, "Training"), h("div", { id: "curve", class: "chart small", role: "img" })),
    h("section", null, h("h3", null, "Architecture"), table("Keys of both", [{ title: "key", ...words }, ...called.map((title) => ({ title, ...words }))], facts)),
    h("section", null, h("h3", null, "Layers"), table("Layers of both, aligned", [{ title: "", ...words }, ...called.map((title) => ({ title, ...words }))], pairs)),
  ];
}

async function drawCurves(state, which) {
  const target = element("curve");
  if (!target) return;
  const curves = which.map(([place, row]) => [titleOf(state, place, row), state.data.runs[place], row])
    .filter(([, run, row]) => run.candidates.curve[row]);
  if (!curves.length) return fill(target, h("p", null, "neither has a loss curve"));
  const traces = curves.map(([name, run, row], place) => {
    const [tokens, losses] = run.candidates.curve[row];
    return {
      type: "scatter", mode: "lines+markers", name: plain(name), x: run.candidates.tables.text[tokens], y: losses,
      line: { color: place ? css("--second") : css("--accent"), dash: place ? "dash" : "solid" },
      marker: { symbol: place ? "square" : "circle", size: 5 },
    };
  });
  const ends = curves.map(([name, run, row]) => `${name} from ${run.candidates.curve[row][1][0]} to ${run.candidates.curve[row][1].at(-1)}`);
  return draw(target, traces, { height: 220, showlegend: curves.length > 1, xaxis: axis("tokens", false), yaxis: axis("training loss [nats/token]", false), hovermode: "x" },
    `Training loss in nats per token: ${ends.join("; ")}`);
}
