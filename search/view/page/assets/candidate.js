// One candidate in full: layers, timings, scores, origin, where it loads, and commands.

function sections(state, place, row) {
  const run = state.data.runs[place];
  const columns = run.candidates;
  const number = columns.number[row];
  const status = run.text("status", row);
  const reason = run.text("reason", row);
  const part = (title, ...content) => h("section", null, h("h3", null, title), ...content);
  const shown = [
    h(
      "p",
      null,
      h("span", { class: `status ${status}` }, status),
      run.own.has(row) ? " ◆ on the run's frontier" : "",
      reason ? ` — ${reason}` : "",
    ),
    h("p", { class: "letters" }, columns.architecture[row]),
    columns.audits[number] ? columns.audits[number].map((line) => h("p", null, line)) : null,
    part("Layers", stack(run, row)),
  ];
  if (columns.parts[row] !== null)
    shown.push(
      part(
        "Parts",
        table(
          "Parts of the model",
          ["part", "parameters", "FLOPs of an image", "keys"].map((title) => ({
            title,
            words: title === "part" || title === "keys",
          })),
          columns.tables.parts[columns.parts[row]],
        ),
      ),
    );
  if (status !== "unfinished") {
    shown.push(part("Timings", ...timings(run, row)), part("Scores", scores(run, row)));
    if (columns.curve[row] || columns.trained[row].length)
      shown.push(
        part(
          "Training",
          columns.curve[row] ? h("div", { id: "curve", class: "chart small", role: "img" }) : null,
          columns.trained[row].map((line) => h("p", null, line)),
        ),
      );
  }
  shown.push(part("Origin", ...origin(state, place, row)));
  if (columns.tables.text[columns.loads[row]].length) shown.push(part("Loads in", loadsIn(run, row)));
  shown.push(part("Commands", ...commands(run, row)));
  if (columns.traceback[number])
    shown.push(part("Traceback", h("pre", { tabindex: "0" }, columns.traceback[number])));
  return shown.flat();
}

// The layers from the first to the last; a bar tells each one's share of the parameters.
function stack(run, row) {
  const columns = run.candidates;
  const layers = layersOf(run, row);
  const total = layers.reduce((sum, layer) => sum + layer.params, columns.around[row]);
  const list = h(
    "ol",
    { class: "stack", start: "0" },
    layers.map((layer, place) => layerItem(run, layer, place, total)),
  );
  const model = columns.tables.text[columns.model[row]];
  return h(
    "div",
    null,
    h(
      "p",
      { class: "soft" },
      `width ${columns.width[row]}, depth ${columns.depth[row]}; embedding, head and final norm: `,
      `${withSuffix(columns.around[row], "")} of ${withSuffix(total, "")} parameters. `,
      "FLOPs and state are of a decode step at batch 1, ",
      `context ${columns.tables.context}, in float32.`,
    ),
    list,
    h(
      "p",
      { class: "soft" },
      Object.entries(model)
        .map(([key, value]) => `${key} ${value}`)
        .join("; "),
    ),
  );
}

function layerItem(run, layer, place, total, marked) {
  const share = total ? layer.params / total : 0;
  const bar = h("span", { class: "share", "aria-hidden": "true" });
  bar.style.width = `${Math.max(1, 100 * share)}%`;
  bar.style.background = colourOf(layer.operator, run);
  const tile = h("span", { class: "tile", "aria-hidden": "true" }, layer.symbol);
  tile.style.background = colourOf(layer.operator, run);
  tile.style.color = textOn(colourOf(layer.operator, run));
  return h(
    "li",
    { class: marked || null, value: place },
    tile,
    h(
      "span",
      { class: "layer" },
      h("strong", null, layer.operator),
      h("span", { class: "soft" }, ` ${layer.norm}`),
      h("span", { class: "shape" }, shapeText(layer)),
      h(
        "span",
        { class: "costs" },
        `${withSuffix(layer.params, "")} parameters (${percent(share)}) · ` +
          `${withSuffix(layer.flops, "FLOPs")} · state ${withSuffix(layer.state, "B")}`,
      ),
      bar,
    ),
  );
}

const TIMED = [
  "prefill_ms",
  "decode_ms",
  "decode_tokens_per_s",
  "peak_memory_bytes",
  "state_bytes",
  "ttft_ms",
  "throughput_tokens_per_s",
  "largest_batch",
  "energy_j_per_token",
  "power_w",
  "anchor_ratio",
  "bandwidth_fraction",
];

// A row for each batch size, context and kind of device; a column for each metric that depends on them.
function timings(run, row) {
  const per = run.metrics.filter(
    (metric) => TIMED.includes(metric.base) && run.value(metric.name, row) !== null,
  );
  if (!per.length) return [h("p", null, "not measured")];
  const bases = TIMED.filter((base) => per.some((metric) => metric.base === base));
  const place = (metric) => JSON.stringify([metric.kind, metric.context, metric.batch]);
  const places = [...new Set(per.map(place))];
  const rows = places.map((key) => {
    const [kind, context, batch] = JSON.parse(key);
    const where = [
      kind,
      batch === null ? "largest batch" : `batch ${batch}`,
      `context ${context === null ? run.candidates.tables.context : context}`,
    ]
      .filter(Boolean)
      .join(", ");
    const one = (base) => per.find((metric) => metric.base === base && place(metric) === key);
    return [where, ...bases.map((base) => (one(base) ? told(run, one(base).name, row) : ""))];
  });
  const columns = [
    { title: "where", words: true },
    ...bases.map((base) => {
      const metric = per.find((each) => each.base === base);
      return {
        title:
          metric.unit && !base.endsWith(`_${metric.unit}`) && metric.suffix === null
            ? `${base} [${metric.unit}]`
            : base,
      };
    }),
  ];
  const taints = [...new Set(per.map((metric) => run.taint(metric.name, row)).filter(Boolean))];
  return [
    table("Timings", columns, rows),
    ...taints.map((reason) => h("p", null, `! tainted, not to be trusted: ${reason}`)),
  ];
}

function scores(run, row) {
  const columns = run.candidates;
  const twice = columns.twice[columns.number[row]] || [];
  const own = run.metrics.filter(
    (metric) => !TIMED.includes(metric.base) && run.value(metric.name, row) !== null,
  );
  const objectives = run.objectives
    .map((each) => run.metric.get(each.metric))
    .filter((metric) => TIMED.includes(metric.base) && run.value(metric.name, row) !== null);
  const rows = [...objectives, ...own].map((metric) => [
    metric.name,
    told(run, metric.name, row),
    metric.unit,
    ...twice.map((each) =>
      metric.name in each.metrics ? figure(metric, each.metrics[metric.name]) : each.status,
    ),
  ]);
  if (!rows.length) return h("p", null, "none");
  return table(
    "Scores",
    [
      { title: "metric", words: true },
      { title: twice.length ? "mean" : "value" },
      { title: "unit", words: true },
      ...twice.map((each) => ({ title: `seed ${each.seed}` })),
    ],
    rows,
  );
}

function origin(state, place, row) {
  const run = state.data.runs[place];
  const columns = run.candidates;
  const parents = columns.parents[row].filter((parent) => run.rowOf.has(parent));
  const seconds = Object.entries(columns.seconds[row])
    .map(([purpose, value]) => `${purpose} ${value} s`)
    .join(", ");
  const shown = [
    h(
      "p",
      null,
      `${run.text("origin", row)}${parents.length ? " of " : ""}`,
      parents.map((parent) =>
        h(
          "button",
          {
            type: "button",
            class: "link",
            onclick: () => openCandidate(state, place, run.rowOf.get(parent)),
          },
          `candidate ${parent}`,
        ),
      ),
      columns.order[row] === null ? "; not evaluated yet" : `; evaluation number ${columns.order[row]}`,
      columns.seed[row] === null ? "" : `, seed ${columns.seed[row]}`,
      seconds ? `; ${seconds}` : "",
    ),
  ];
  for (const parent of parents) {
    const changes = changed(run, run.rowOf.get(parent), run, row);
    shown.push(
      h("h4", null, `Changed from ${parent}`),
      h(
        "ul",
        { class: "changes" },
        (changes.length ? changes : ["nothing"]).map((line) => h("li", null, line)),
      ),
    );
  }
  if (run.text("backends", row))
    shown.push(h("p", { class: "soft" }, `backends: ${run.text("backends", row)}`));
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
    if (models[0][key] !== models[1][key])
      lines.push(`${key} ${models[0][key] ?? "none"} → ${models[1][key] ?? "none"}`);
  const same = (one, two) => layerText(one) === layerText(two);
  const numbers = [0, 0];
  for (const [one, two] of aligned(layersOf(run, before), layersOf(other, after), same)) {
    if (one && two && !same(one, two))
      lines.push(`≠ layer ${numbers[1]}: ${layerText(one)} → ${layerText(two)}`);
    else if (!one) lines.push(`+ layer ${numbers[1]}: ${layerText(two)}`);
    else if (!two) lines.push(`− layer ${numbers[0]}: ${layerText(one)}`);
    numbers[0] += one ? 1 : 0;
    numbers[1] += two ? 1 : 0;
  }
  const parts = [a, b].map((each, k) => {
    const at = each.parts[k ? after : before];
    return at === null ? [] : each.tables.parts[at];
  });
  for (const [name, , , keys] of parts[1]) {
    const old = parts[0].find((each) => each[0] === name);
    if (!old || old[3] !== keys) lines.push(`${name}: ${old ? old[3] : "none"} → ${keys}`);
  }
  return lines;
}

function loadsIn(run, row) {
  const columns = run.candidates;
  return table(
    "Engines",
    [
      { title: "engine", words: true },
      { title: "whether", words: true, unseen: true },
      { title: "loads as, or why not", words: true },
    ],
    columns.tables.text[columns.loads[row]].map(([engine, name, reason]) => [
      engine,
      reason ? "✗ no" : "✓ yes",
      reason || name,
    ]),
  );
}

function commands(run, row) {
  const columns = run.candidates;
  const lacking = run.text("weights", row);
  const base = columns.export[row];
  const loads = columns.tables.text[columns.loads[row]]
    .filter(([, , reason]) => !reason)
    .map(([engine]) => engine);
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
