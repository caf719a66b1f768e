// Two candidates beside each other with their differences marked, and the loss curves of what is open.

// Two candidates: metrics with their ratio, then the layers aligned.
function differences(state, one, two) {
  const runs = [state.data.runs[one[0]], state.data.runs[two[0]]];
  const rows = [one[1], two[1]];
  const called = [one, two].map((each) => titleOf(state, ...each));
  const names = [...new Set(runs.flatMap((run) => run.metrics.map((metric) => metric.name)))];
  const figures = names
    .map((name) => {
      const values = runs.map((run, k) => run.value(name, rows[k]));
      if (values.every((value) => value === null)) return null;
      const ratio = values[0] && values[1] !== null ? values[1] / values[0] : null;
      const differs = values[0] !== values[1];
      const cells = runs.map((run, k) => (run.metric.has(name) ? told(run, name, rows[k]) : ""));
      return {
        mark: differs ? "differs" : null,
        cells: [
          `${differs ? "≠ " : ""}${name}`,
          ...cells,
          ratio === null ? "" : `× ${ratio.toPrecision(4)}`,
        ],
      };
    })
    .filter(Boolean);
  const keys = [
    ["status", (run, row) => run.text("status", row)],
    ["origin", (run, row) => run.text("origin", row)],
    ["width", (run, row) => run.candidates.width[row]],
    ["depth", (run, row) => run.candidates.depth[row]],
    ["loads in", (run, row) => run.text("loads_in", row)],
  ];
  const models = runs.map((run, k) => run.candidates.tables.text[run.candidates.model[rows[k]]]);
  for (const key of Object.keys({ ...models[0], ...models[1] }))
    keys.push([key, (run, row) => run.candidates.tables.text[run.candidates.model[row]][key] ?? ""]);
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
    h(
      "section",
      null,
      h("h3", null, "Figures"),
      table(
        "Figures of both",
        [
          { title: "metric", ...words },
          ...called.map((title) => ({ title })),
          { title: "second over first" },
        ],
        figures,
      ),
    ),
    h(
      "section",
      null,
      h("h3", null, "Training"),
      h("div", { id: "curve", class: "chart small", role: "img" }),
    ),
    h(
      "section",
      null,
      h("h3", null, "Architecture"),
      table(
        "Keys of both",
        [{ title: "key", ...words }, ...called.map((title) => ({ title, ...words }))],
        facts,
      ),
    ),
    h(
      "section",
      null,
      h("h3", null, "Layers"),
      table(
        "Layers of both, aligned",
        [
          { title: "how they differ", ...words, unseen: true },
          ...called.map((title) => ({ title, ...words })),
        ],
        pairs,
      ),
    ),
  ];
}

async function drawCurves(state, which) {
  const target = element("curve");
  if (!target) return;
  const curves = which
    .map(([place, row]) => [titleOf(state, place, row), state.data.runs[place], row])
    .filter(([, run, row]) => run.candidates.curve[row]);
  if (!curves.length) return fill(target, h("p", null, "neither has a loss curve"));
  const traces = curves.map(([name, run, row], place) => {
    const [tokens, losses] = run.candidates.curve[row];
    return {
      type: "scatter",
      mode: "lines+markers",
      name: plain(name),
      x: run.candidates.tables.text[tokens],
      y: losses,
      line: { color: place ? css("--second") : css("--accent"), dash: place ? "dash" : "solid" },
      marker: { symbol: place ? "square" : "circle", size: 5 },
    };
  });
  const ends = curves.map(
    ([name, run, row]) =>
      `${name} from ${run.candidates.curve[row][1][0]} to ${run.candidates.curve[row][1].at(-1)}`,
  );
  return draw(
    target,
    traces,
    {
      height: 220,
      showlegend: curves.length > 1,
      xaxis: axis("tokens", false),
      yaxis: axis("training loss [nats/token]", false),
      hovermode: "x",
    },
    `Training loss in nats per token: ${ends.join("; ")}`,
  );
}
