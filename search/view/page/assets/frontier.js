// The frontier's chart, its keys, and the note beside the pointer.

const compared = new WeakMap(); // of a run, what `frontierPoints` last found

// The run's candidates by the chosen axes, and what the keys walk along.
function frontierPoints(state, run) {
  const wanted = conditions(run, state.where);
  const named = [state.y, state.x];
  if (run.metric.has(state.colour)) named.push(state.colour);
  const metrics = [...new Set(named)];
  if (!metrics.every((name) => run.metric.has(name))) return null;
  const asked = JSON.stringify([metrics, state.where]);
  if (compared.get(run)?.asked !== asked) {
    const rows = scored(run, metrics).filter((row) => qualifies(run, row, wanted));
    compared.set(run, { asked, metrics, rows, best: new Set(frontier(run, rows, metrics)) });
  }
  return compared.get(run);
}

function colours(state, run, rows) {
  if (state.colour === "") return null;
  if (state.colour === "evaluation") return rows.map((row) => run.candidates.order[row]);
  return run.metric.has(state.colour) ? rows.map((row) => run.value(state.colour, row)) : null;
}

function errorsOf(run, name, rows) {
  return {
    type: "data",
    visible: true,
    thickness: 1,
    width: 3,
    color: css("--soft"),
    array: rows.map((row) => (run.spread(name, row) || 0) * Math.abs(run.value(name, row))),
  };
}

function frontierTraces(state, run, place, points, shades) {
  const { behind, best } = points;
  const main = place === state.run;
  const symbol = SYMBOLS[place % SYMBOLS.length];
  const tainted = (row) => Boolean(run.taint(state.x, row) || run.taint(state.y, row));
  const trace = (name, chosen, look, extra) => ({
    type: "scatter",
    mode: "markers",
    name: plain(name),
    x: chosen.map((row) => run.value(state.x, row)),
    y: chosen.map((row) => run.value(state.y, row)),
    customdata: chosen.map((row) => [place, row]),
    hoverinfo: "none",
    marker: { ...look, ...(shades && chosen.length ? shades(colours(state, run, chosen)) : {}) },
    ...extra,
  });
  const early = (row) => run.candidates.number[row] < run.first;
  const prefix = state.data.runs.length > 1 ? `${run.name}: ` : "";
  const paint = main ? css("--point") : OPERATOR_COLOURS[(place + 1) % OPERATOR_COLOURS.length];
  const other = { size: SIZES.other, color: paint, opacity: main ? 0.75 : 0.5 };
  const traces = [];
  const groups = main
    ? [
        [`first ${run.first} proposals`, behind.filter((row) => early(row) && !tainted(row)), "square"],
        ["later ones", behind.filter((row) => !early(row) && !tainted(row)), symbol],
        ["tainted, not to be trusted", behind.filter(tainted), `${symbol}-open`],
      ]
    : [["candidates", behind, symbol]];
  for (const [name, chosen, shape] of groups)
    if (chosen.length) traces.push(trace(prefix + name, chosen, { ...other, symbol: shape }));
  const members = [...best].sort((a, b) => run.value(state.x, a) - run.value(state.x, b));
  if (points.metrics.length === 2)
    traces.push(staircase(state, run, members, main ? css("--accent") : paint));
  const few = main && members.length <= 40;
  const bars = state.errors
    ? { error_x: errorsOf(run, state.x, members), error_y: errorsOf(run, state.y, members) }
    : {};
  if (members.length)
    traces.push(
      trace(
        `${prefix}frontier`,
        members,
        {
          size: SIZES.frontier,
          color: main ? css("--accent") : paint,
          symbol: members.map((row) => (main ? "diamond" : symbol) + (tainted(row) ? "-open" : "")),
          line: { width: 1.5, color: css("--text") },
        },
        {
          mode: few ? "markers+text" : "markers",
          text: members.map((row) => run.candidates.number[row]),
          textposition: members.map((_, k) => (k % 2 ? "top center" : "bottom center")),
          ...bars,
        },
      ),
    );
  return traces;
}

// Between two members the best y is that of the one whose x is worse.
function staircase(state, run, members, color) {
  const sign = (name) => (run.metric.get(name).maximize ? -1 : 1);
  const cost = (name, row) => sign(name) * run.value(name, row);
  const line = members.filter(
    (row) =>
      !members.some(
        (other) =>
          cost(state.x, other) <= cost(state.x, row) &&
          cost(state.y, other) <= cost(state.y, row) &&
          (cost(state.x, other) < cost(state.x, row) || cost(state.y, other) < cost(state.y, row)),
      ),
  );
  return {
    type: "scatter",
    mode: "lines",
    hoverinfo: "skip",
    showlegend: false,
    line: {
      shape: sign(state.x) > 0 ? "hv" : "vh",
      color,
      width: 1.5,
    },
    x: line.map((row) => run.value(state.x, row)),
    y: line.map((row) => run.value(state.y, row)),
  };
}

const labelOf = (runs, name) => {
  for (const run of runs) if (run.metric.has(name)) return run.metric.get(name).label;
  return name;
};

// The part of both axes that the chart was zoomed to; null where it shows all.
function zoomedTo(layout) {
  const axes = [layout.xaxis, layout.yaxis];
  return axes.some((each) => each.autorange === false) ? axes.map((each) => each.range) : null;
}

// annotations: of the chart, where they stay.
async function drawFrontier(state, annotations) {
  const target = element("frontier-chart");
  const runs = state.data.runs;
  const others = state.others
    ? runs.map((run, place) => ({ run, place })).filter(({ place }) => place !== state.run)
    : [];
  // The chosen run lies above the others.
  const shown = [...others, { run: runs[state.run], place: state.run }]
    .map((each) => ({ ...each, points: frontierPoints(state, each.run) }))
    .filter((each) => each.points);
  const main = shown.find((each) => each.place === state.run);
  state.members = main
    ? [...main.points.best].sort((a, b) => main.run.value(state.x, a) - main.run.value(state.x, b))
    : [];
  const values = shown
    .flatMap(({ run, points }) => colours(state, run, points.rows) || [])
    .filter((value) => value !== null);
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const title = state.colour === "evaluation" ? "evaluation number" : labelOf(runs, state.colour);
  let bar = true;
  const shades = values.length
    ? (own) => {
        const first = bar;
        bar = false;
        return {
          color: own,
          colorscale: SHADES[matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"],
          cmin: least,
          cmax: most,
          showscale: first,
          colorbar: { title: { text: plain(title), side: "right" }, thickness: 12, outlinewidth: 0 },
        };
      }
    : null;
  const asked = [state.x, state.y, state.logX, state.logY].join();
  const view = target.layout?.uirevision === asked ? zoomedTo(target.layout) : null;
  let [behindAll, drawn] = [0, 0];
  const traces = shown.flatMap(({ run, place, points }) => {
    const behind = points.rows.filter((row) => !points.best.has(row));
    const on = (name, log, row) => (log ? Math.log10(run.value(name, row)) : run.value(name, row));
    const at = (row) => [on(state.x, state.logX, row), on(state.y, state.logY, row)];
    const some = thinned(behind, at, view);
    behindAll += behind.length;
    drawn += some.length;
    return frontierTraces(state, run, place, { ...points, behind: some }, shades);
  });
  state.thinned = drawn < behindAll;
  const words = !main
    ? "this run has no such metrics"
    : `${plural(state.members.length, "candidate")} on the frontier of ` +
      `${plural(main.points.rows.length, "compared candidate")}, by ` +
      main.points.metrics.map((name) => labelOf(runs, name)).join("; ") +
      (state.thinned ? `. ${plural(drawn, "other")} of ${behindAll.toLocaleString("en")} drawn, ` +
        "one of those that lie on each other: zoom in to see more" : "");
  element("frontier-note").textContent = words;
  await draw(
    target,
    traces,
    {
      xaxis: axis(labelOf(runs, state.x), state.logX),
      yaxis: axis(labelOf(runs, state.y), state.logY),
      uirevision: asked,
      annotations,
      height: Math.max(360, Math.min(560, innerHeight * 0.6)),
    },
    `Chart: ${words}. Left and right arrow keys go along the frontier, Enter opens a candidate, ` +
      "Home shows all. The table below has the same figures.",
  );
  if (!target.wired) {
    target.wired = true;
    target.on("plotly_hover", (event) => note(state, event.points[0].customdata, event.event));
    target.on("plotly_unhover", hideNote);
    target.on("plotly_relayout", (changes) => {
      const zoomed = Object.keys(changes).some((key) => key.includes("axis"));
      if (zoomed && state.thinned) drawFrontier(state, target.layout.annotations).catch(failed);
    });
    target.on("plotly_click", (event) => {
      const [place, row] = event.points[0].customdata || [];
      if (row !== undefined) openCandidate(state, place, row);
    });
  }
}

function note(state, at, pointer) {
  if (!at) return;
  const [place, row] = at;
  const run = state.data.runs[place];
  const names = [
    ...new Set([
      state.y,
      state.x,
      ...(run.metric.has(state.colour) ? [state.colour] : []),
      ...run.objectives.map((each) => each.metric),
    ]),
  ];
  const box = element("note");
  fill(
    box,
    h(
      "strong",
      null,
      `${state.data.runs.length > 1 ? `${run.name}: ` : ""}candidate ${run.candidates.number[row]}`,
    ),
    names.map((name) => h("div", null, `${name}: ${told(run, name, row)} ${run.metric.get(name).unit}`)),
    h("div", null, `width ${run.candidates.width[row]}, depth ${run.candidates.depth[row]}`),
    h("div", { class: "letters" }, run.candidates.architecture[row]),
  );
  box.hidden = false;
  const x = Math.min(pointer.clientX + 14, innerWidth - box.offsetWidth - 8);
  const y = Math.min(pointer.clientY + 14, innerHeight - box.offsetHeight - 8);
  box.style.left = `${Math.max(8, x)}px`;
  box.style.top = `${Math.max(8, y)}px`;
}

function hideNote() {
  element("note").hidden = true;
}

// The keys of the frontier's chart.
function walk(state, event) {
  const run = state.data.runs[state.run];
  if (event.key === "Home") {
    plotly().then((library) =>
      library.relayout("frontier-chart", { "xaxis.autorange": true, "yaxis.autorange": true }),
    );
    announce("the whole chart is shown");
  } else if (event.key === "Enter" && state.at !== undefined && state.members.length) {
    openCandidate(state, state.run, state.members[state.at]);
  } else if ((event.key === "ArrowRight" || event.key === "ArrowLeft") && state.members.length) {
    const step = event.key === "ArrowRight" ? 1 : -1;
    state.at = Math.max(
      0,
      Math.min(state.members.length - 1, (state.at ?? (step > 0 ? -1 : state.members.length)) + step),
    );
    const row = state.members[state.at];
    const box = element("frontier-chart").getBoundingClientRect();
    note(state, [state.run, row], { clientX: box.left + 60, clientY: box.top + 40 });
    mark(state, row);
    announce(
      `candidate ${run.candidates.number[row]}: ` +
        [state.y, state.x].map((name) => `${name} ${told(run, name, row)}`).join(", "),
    );
  } else return;
  event.preventDefault();
}

// A ring around the candidate that the keys are at, or that is open.
async function mark(state, row) {
  const run = state.data.runs[state.run];
  const library = await plotly();
  const target = element("frontier-chart");
  if (!target.layout || run.value(state.x, row) === null || run.value(state.y, row) === null) return;
  const at = (name, log) => (log ? Math.log10(run.value(name, row)) : run.value(name, row));
  await library.relayout(target, {
    annotations: [
      {
        x: at(state.x, state.logX),
        y: at(state.y, state.logY),
        text: String(run.candidates.number[row]),
        showarrow: true,
        arrowcolor: css("--text"),
        bgcolor: css("--panel"),
        bordercolor: css("--text"),
        font: { color: css("--text") },
      },
    ],
  });
}
