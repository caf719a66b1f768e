// The parts of the page beside frontier and table: how the run stands, its course, and where its time went.

function tile(title, value, more) {
  return h(
    "div",
    { class: "figure" },
    h("dt", null, title),
    h("dd", null, value, more ? h("small", null, more) : null),
  );
}

function showStanding(state) {
  const run = state.data.runs[state.run];
  const columns = run.candidates;
  const ended = columns.order.filter((order) => order !== null).length;
  const best = (name) =>
    run.rows
      .filter((row) => run.text("status", row) === "ok" && run.value(name, row) !== null)
      .reduce(
        (least, row) =>
          least === null ||
          (run.metric.get(name).maximize
            ? run.value(name, row) > run.value(name, least)
            : run.value(name, row) < run.value(name, least))
            ? row
            : least,
        null,
      );
  const course = state.data.courses.find((each) => each.run === run.name);
  const tiles = [
    tile("evaluated", `${ended.toLocaleString("en")} of ${run.asked.toLocaleString("en")}`),
    tile("on the frontier", run.own.size.toLocaleString("en")),
  ];
  for (const { metric } of run.objectives) {
    const row = best(metric);
    if (row !== null)
      tiles.push(
        tile(
          `best ${metric}`,
          figure(run.metric.get(metric), run.value(metric, row)) + " ",
          `${run.metric.get(metric).unit} (candidate ${columns.number[row]})`,
        ),
      );
  }
  if (course && course.hypervolume.length)
    tiles.push(tile("hypervolume", course.hypervolume.at(-1).toFixed(4)));
  fill(element("figures"), tiles);
  element("standing").textContent = `${run.name}: ${run.state}. Begun ${run.started}.`;
  element("empty").hidden = ended > 0;
  fill(
    element("edges"),
    run.edges.map((line) => h("p", null, line)),
  );
  const now = Date.parse(state.data.made) / 1000;
  element("under-way-part").hidden = !run.under_way.length;
  if (run.under_way.length)
    fill(
      element("under-way"),
      table(
        "Evaluations under way",
        [
          { title: "candidate" },
          { title: "worker", words: true },
          { title: "for [h:mm:ss]" },
          { title: "architecture", words: true },
        ],
        run.under_way.map((each) => [
          each.number,
          each.place || "a new one",
          duration(Math.max(0, now - each.since)),
          columns.architecture[run.rowOf.get(each.number)],
        ]),
      ),
    );
}

async function drawCourse(state) {
  const by = state.courseBy;
  const chosen = state.data.courses.filter((each) => each.hypervolume.length);
  const traces = chosen.map((each, place) => ({
    type: "scatter",
    mode: "lines+markers",
    name: plain(each.run),
    x: each[by],
    y: each.hypervolume,
    line: {
      color: OPERATOR_COLOURS[place % OPERATOR_COLOURS.length],
      dash: ["solid", "dash", "dot", "dashdot"][place % 4],
      shape: "hv",
    },
    marker: { symbol: SYMBOLS[place % SYMBOLS.length], size: 5 },
  }));
  const kinds = new Set(chosen.map((each) => each.objectives.join()));
  element("course-note").textContent =
    kinds.size > 1
      ? "Runs with different objectives have different scales: compare only runs with the same objectives."
      : chosen.length
        ? `Of ${chosen[0].objectives.join(", ")}, ` +
          "each scaled to 0 to 1 over all candidates on this page, with the reference at 1.1."
        : "No candidate has scores that count yet; tainted figures do not count.";
  element("course-chart").hidden = !chosen.length;
  if (!chosen.length) return;
  await draw(
    element("course-chart"),
    traces,
    {
      xaxis: axis(by === "seconds" ? "seconds of search" : "evaluations", false),
      yaxis: axis("hypervolume", false),
      height: 280,
      showlegend: traces.length > 1,
    },
    `Hypervolume: ${chosen
      .map((each) => {
        const [reached, after] = [each.hypervolume.at(-1).toFixed(4), each.evaluations.at(-1)];
        return `${each.run} reaches ${reached} after ${after} evaluations`;
      })
      .join("; ")}`,
  );
}

// Which operators, depths and widths the frontier held after so many evaluations.
function composition(run, kind) {
  const ended = run.candidates.order.filter((order) => order !== null).length;
  const counts = [
    ...new Set(
      Array.from({ length: Math.min(30, ended) }, (_, k) =>
        Math.max(1, Math.round(((k + 1) * ended) / Math.min(30, ended))),
      ),
    ),
  ];
  return counts.map((count) => {
    const rows = frontierAfter(run, kind, count);
    const operators = new Map();
    let layers = 0;
    for (const layer of rows.flatMap((row) => layersOf(run, row))) {
      operators.set(layer.operator, (operators.get(layer.operator) || 0) + 1);
      layers += 1;
    }
    return { count, rows, operators, layers };
  });
}

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length
    ? (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2
    : null;
};

async function drawComposition(state) {
  const run = state.data.runs[state.run];
  const kind = run.kinds[0].kind;
  const steps = composition(run, kind);
  const names = [...new Set(steps.flatMap((step) => [...step.operators.keys()]))].sort();
  const x = steps.map((step) => step.count);
  const share = (step, name) => (step.layers ? (100 * (step.operators.get(name) || 0)) / step.layers : 0);
  await draw(
    element("operators-chart"),
    names.map((name) => ({
      type: "bar",
      name: plain(name),
      x,
      y: steps.map((step) => share(step, name)),
      marker: {
        color: colourOf(name, run),
        pattern: {
          shape: ["", "/", "x", ".", "-", "\\", "+", "|"][names.indexOf(name) % 8],
          fillmode: "overlay",
          size: 6,
        },
      },
    })),
    {
      barmode: "stack",
      bargap: 0.05,
      height: 300,
      xaxis: axis("evaluations", false),
      yaxis: axis("% of the frontier's layers", false),
    },
    `Operators on the frontier. At the end: ${names
      .map((name) => `${name} ${steps.length ? share(steps.at(-1), name).toFixed(0) : 0}%`)
      .join(", ")}`,
  );
  const line = (name, of, dash, symbol, on) => ({
    type: "scatter",
    mode: "lines+markers",
    name,
    x,
    y: steps.map((step) => median(step.rows.map(of))),
    yaxis: on,
    line: { dash, color: on === "y" ? css("--accent") : css("--second") },
    marker: { symbol, size: 5 },
  });
  await draw(
    element("sizes-chart"),
    [
      line("depth (median)", (row) => run.candidates.depth[row], "solid", "circle", "y"),
      line("width (median)", (row) => run.candidates.width[row], "dash", "square", "y2"),
    ],
    {
      height: 260,
      margin: { l: 68, r: 72, t: 36, b: 52 },
      xaxis: axis("evaluations", false),
      yaxis: { ...axis("depth", false), rangemode: "tozero" },
      yaxis2: {
        ...axis("width", false),
        overlaying: "y",
        side: "right",
        showgrid: false,
        rangemode: "tozero",
      },
    },
    "Median depth and width of the frontier",
  );
  const last = steps.at(-1);
  const counted = (of) => {
    const found = new Map();
    for (const row of last ? last.rows : []) found.set(of(row), (found.get(of(row)) || 0) + 1);
    return [...found]
      .sort((a, b) => a[0] - b[0])
      .map(([value, count]) => `${value} (${count})`)
      .join(", ");
  };
  const firstStep = steps[0];
  fill(
    element("holds"),
    table(
      "What the frontier holds",
      [
        { title: "what", words: true, unseen: true },
        { title: "on the frontier now (candidates)", words: true },
      ],
      [
        ["widths", counted((row) => run.candidates.width[row])],
        ["depths", counted((row) => run.candidates.depth[row])],
        ...names.map((name) => [
          name,
          `${share(last, name).toFixed(0)}% of layers; at first ${share(firstStep, name).toFixed(0)}%`,
        ]),
      ],
    ),
  );
}

function showGates(state) {
  const run = state.data.runs[state.run];
  element("gates-part").hidden = !run.gates.length;
  fill(
    element("gates"),
    table(
      "Gates",
      [
        { title: "gate", words: true },
        { title: "came" },
        { title: "rejected" },
        { title: "let through for an audit" },
        { title: "of these rejected wrongly" },
        { title: "share wrong" },
      ],
      run.gates.map((gate) => [
        gate.name,
        gate.seen,
        gate.turned_away,
        gate.audited,
        gate.wrong,
        gate.audited ? percent(gate.wrong / gate.audited) : "",
      ]),
    ),
  );
  const times = Object.entries(run.time)
    .filter(([, seconds]) => seconds > 0)
    .sort((a, b) => b[1] - a[1]);
  const whole = times.reduce((sum, [, seconds]) => sum + seconds, 0);
  fill(
    element("time"),
    times.length
      ? table(
          "Workers' time",
          [
            { title: "purpose", words: true },
            { title: "h:mm:ss" },
            { title: "share" },
            { title: "as a bar", words: true, unseen: true },
          ],
          times.map(([purpose, seconds]) => {
            const bar = h("span", { class: "share", "aria-hidden": "true" });
            bar.style.width = `${(100 * seconds) / whole}%`;
            return [purpose, duration(seconds), percent(seconds / whole), h("span", { class: "track" }, bar)];
          }),
        )
      : h("p", null, "No evaluation has ended yet."),
  );
}

// Every status but ok with its reasons, the most frequent first. Numbers in reasons do not tell them apart.
function showFailures(state) {
  const run = state.data.runs[state.run];
  const groups = new Map();
  for (const row of run.rows) {
    const status = run.text("status", row);
    if (status === "ok" || status === "unfinished") continue;
    const key = JSON.stringify([status, run.text("reason", row).replace(/[-+]?\d[\d.,]*(e[-+]?\d+)?/g, "#")]);
    groups.set(key, [...(groups.get(key) || []), row]);
  }
  const rows = [...groups.values()]
    .sort((a, b) => b.length - a.length)
    .slice(0, 100)
    .map((group) => [
      run.text("status", group[0]),
      group.length,
      run.text("reason", group[0]),
      h(
        "span",
        null,
        group.slice(0, 12).map((row) => candidateButton(state, row)),
        group.length > 12 ? ` and ${group.length - 12} more` : "",
      ),
    ]);
  fill(
    element("failures"),
    rows.length
      ? table(
          "Candidates without scores",
          [
            { title: "status", words: true },
            { title: "candidates" },
            { title: "reason, of the first", words: true },
            { title: "ids", words: true },
          ],
          rows,
        )
      : h("p", null, "Every evaluation that ended has scores."),
  );
}

function showProvenance(state) {
  const run = state.data.runs[state.run];
  const words = { words: true };
  fill(
    element("provenance"),
    table(
      "Provenance",
      [
        { title: "what", ...words, unseen: true },
        { title: "value", ...words, unseen: true },
      ],
      [
        ["folder", run.folder],
        ["begun", run.started],
        ["by", run.command],
        ["this page was made", state.data.made],
        ...run.devices.map((each) => [
          "device",
          `${each.name} (${each.device}), ${each.dtype}, ` +
            `${plural(each.threads, "thread")}; ${plural(each.profiles, "profile")}`,
        ]),
        ...Object.entries(run.versions),
      ],
    ),
    h("details", null, h("summary", null, "Configuration"), h("pre", { tabindex: "0" }, run.config)),
  );
}
