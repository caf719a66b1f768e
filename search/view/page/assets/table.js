// The table of candidates: conditions, sorting, pages of rows, and CSV.

const ROWS = 25; // of a page
const FIXED = [
  "id",
  "width",
  "depth",
  "architecture",
  "loads in",
  "status",
  "origin",
  "parents",
  "seconds",
  "reason",
];

function columnNames(state, run) {
  const wanted = conditions(run, state.where).map((each) => each.metric);
  const objectives = run.objectives.map((each) => each.metric);
  const metrics = state.allColumns
    ? run.metrics.map((metric) => metric.name)
    : [...objectives, ...wanted, "params"];
  return [
    "★",
    "id",
    ...new Set(metrics.filter((name) => run.metric.has(name))),
    ...FIXED.slice(1, state.allColumns ? undefined : 7),
  ];
}

const WORDS = new Set(["architecture", "loads in", "status", "origin", "parents", "reason"]);

// What a column holds of a candidate: for sorting, and as text.
function cell(run, name, row) {
  const columns = run.candidates;
  switch (name) {
    case "id":
      return columns.number[row];
    case "★":
      return run.own.has(row) ? 1 : 0;
    case "width":
      return columns.width[row];
    case "depth":
      return columns.depth[row];
    case "architecture":
      return columns.architecture[row];
    case "loads in":
      return run.text("loads_in", row).replace(/ \([^)]*\)|: .*/g, "");
    case "status":
    case "origin":
    case "reason":
      return run.text(name, row);
    case "parents":
      return columns.parents[row].join(", ");
    case "seconds":
      return total(columns.seconds[row]);
    default:
      return run.value(name, row);
  }
}

// Seconds of workers; in the queue none works.
const total = (seconds) => {
  const own = Object.entries(seconds).filter(([purpose]) => purpose !== "queue");
  return own.length ? own.reduce((sum, [, value]) => sum + value, 0) : null;
};

function shownText(run, name, row) {
  if (name === "★") return run.own.has(row) ? "◆" : "";
  if (name === "seconds") return cell(run, name, row) === null ? "" : digits(cell(run, name, row));
  if (name === "origin") return cell(run, name, row).replace(/\+/g, "+\u200b"); // may be broken there
  return run.metric.has(name) ? told(run, name, row) : cell(run, name, row);
}

// The rows that the conditions and the boxes leave, sorted; those without a value come last.
function tableRows(state, run) {
  const wanted = conditions(run, state.where);
  const rows = run.rows.filter(
    (row) =>
      qualifies(run, row, wanted) &&
      (!state.onlyFrontier || run.own.has(row)) &&
      (!state.status || run.text("status", row) === state.status),
  );
  const [name, down] = state.sort;
  const value = (row) => cell(run, name, row);
  const missing = (one) => one === null || one === undefined || one === "";
  return rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (missing(x) || missing(y)) return missing(x) - missing(y) || a - b;
    const order =
      typeof x === "number" && typeof y === "number"
        ? x - y
        : String(x) < String(y)
          ? -1
          : String(x) > String(y)
            ? 1
            : 0;
    return (down ? -order : order) || a - b;
  });
}

function showTable(state) {
  const run = state.data.runs[state.run];
  const names = columnNames(state, run);
  if (!names.includes(state.sort[0]))
    state.sort = [names.includes(run.objectives[0].metric) ? run.objectives[0].metric : "id", false];
  const rows = tableRows(state, run);
  const pages = Math.max(1, Math.ceil(rows.length / ROWS));
  state.page = Math.min(state.page, pages - 1);
  const shown = rows.slice(state.page * ROWS, (state.page + 1) * ROWS);
  const sortBy = (name) => {
    state.sort = [
      name,
      state.sort[0] === name ? !state.sort[1] : run.metric.has(name) && run.metric.get(name).maximize,
    ];
    state.page = 0;
    showTable(state);
    element("candidates")
      .querySelector(`button[data-column="${CSS.escape(name)}"]`)
      .focus();
  };
  const head = names.map((name) => {
    const sorted = state.sort[0] === name ? (state.sort[1] ? "descending" : "ascending") : null;
    const title = name === "★" ? "◆" : name;
    const unit =
      run.metric.has(name) && run.metric.get(name).unit && run.metric.get(name).suffix === null
        ? ` [${run.metric.get(name).unit}]`
        : "";
    return h(
      "th",
      { scope: "col", "aria-sort": sorted, class: WORDS.has(name) ? "words" : null },
      h(
        "button",
        {
          type: "button",
          class: "sort",
          "data-column": name,
          onclick: () => sortBy(name),
          "aria-label": name === "★" ? "on the frontier" : null,
          title: run.metric.get(name)?.description || null,
        },
        title + unit,
        h("span", { "aria-hidden": "true" }, sorted === "ascending" ? " ▲" : sorted ? " ▼" : ""),
      ),
    );
  });
  const body = shown.map((row) =>
    h(
      "tr",
      { class: run.own.has(row) ? "member" : null },
      names.map((name) => {
        const content =
          name === "id"
            ? candidateButton(state, row)
            : shownText(run, name, row);
        const taint = run.metric.has(name) ? run.taint(name, row) : "";
        return h(
          "td",
          {
            class: WORDS.has(name) ? `words ${name === "architecture" ? "letters" : ""}` : null,
            title: taint || null,
          },
          content,
        );
      }),
    ),
  );
  fill(
    element("candidates"),
    h(
      "div",
      { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of candidates" },
      h(
        "table",
        null,
        h("caption", { class: "unseen" }, `Candidates of ${run.name}`),
        h("thead", null, h("tr", null, head)),
        h("tbody", null, body),
      ),
    ),
  );
  element("table-count").textContent =
    `${plural(rows.length, "candidate")} of ${run.rows.length.toLocaleString("en")}` +
    (pages > 1 ? `, page ${state.page + 1} of ${pages}` : "");
  element("previous").disabled = state.page === 0;
  element("next").disabled = state.page >= pages - 1;
  element("pages").hidden = pages === 1;
}

// All columns as `frontier --format csv` names them.
// Text that a spreadsheet would take for a formula gets a '.
function csv(state) {
  const run = state.data.runs[state.run];
  const columns = run.candidates;
  const metrics = run.metrics.map((metric) => metric.name);
  const spreads = Object.keys(columns.spread);
  const names = [
    "id",
    "architecture",
    "width",
    "depth",
    "loads_in",
    ...metrics,
    ...spreads.map((name) => `${name}_spread`),
    "status",
    "reason",
    "tainted",
    "origin",
    "parents",
    "seconds",
    "frontier",
  ];
  const rows = tableRows(state, run).map((row) => [
    columns.number[row],
    columns.architecture[row],
    columns.width[row],
    columns.depth[row],
    run.text("loads_in", row),
    ...metrics.map((name) => run.value(name, row)),
    ...spreads.map((name) => run.spread(name, row)),
    run.text("status", row),
    run.text("reason", row),
    [...new Set(Object.values(columns.tainted[columns.number[row]] || {}))].join("; "),
    run.text("origin", row),
    columns.parents[row].join(" "),
    cell(run, "seconds", row),
    run.own.has(row) ? "True" : "False",
  ]);
  const quoted = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };
  return [names, ...rows].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}

function saveCsv(state) {
  const address = URL.createObjectURL(new Blob([csv(state)], { type: "text/csv" }));
  const name = state.data.runs[state.run].name.replace(/[^A-Za-z0-9._-]+/g, "-");
  h("a", { href: address, download: `${name}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  announce("the table was saved as CSV");
}
