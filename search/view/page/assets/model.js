// Runs as the page reads them: candidates by row, conditions, and frontiers.

function prepared(data) {
  for (const run of data.runs) {
    const columns = run.candidates;
    run.rowOf = new Map(columns.number.map((number, row) => [number, row]));
    run.metric = new Map(run.metrics.map((metric) => [metric.name, metric]));
    const text = columns.tables.text;
    run.text = (name, row) => text[columns[name][row]];
    run.value = (name, row) => (columns.metrics[name] ? columns.metrics[name][row] : null);
    run.taint = (name, row) => (columns.tainted[columns.number[row]] || {})[name] || "";
    run.spread = (name, row) => (columns.spread[name] ? columns.spread[name][row] : null);
    run.rows = columns.number.map((_, row) => row);
    run.dominators = new Map(run.kinds.map((each) => [each.kind, new Map(each.dominators)]));
    run.own = new Set();
    for (const dominators of run.dominators.values())
      for (const [number, by] of dominators) if (by === null) run.own.add(run.rowOf.get(number));
  }
  return data;
}

// A figure with its mark and spread: "0.557! ± 2%".
function told(run, name, row) {
  const value = run.value(name, row);
  if (value === null) return "";
  const spread = run.spread(name, row);
  return (
    figure(run.metric.get(name), value) +
    (run.taint(name, row) ? "!" : "") +
    (spread === null || spread === undefined ? "" : ` ± ${percent(spread)}`)
  );
}

const CONDITION =
  /^\s*([a-z_][a-z0-9_]*(?:@[a-z0-9.]+)?(?:\/[A-Za-z0-9._-]+)?)\s*(<=|>=|<|>)\s*([-+0-9.eE_]+)\s*$/;

// Conditions as `frontier --where` takes them; several are joined by commas or "and".
function conditions(run, text) {
  const parts = text.split(/,|\band\b|\n/).filter((part) => part.trim());
  return parts.map((part) => {
    const match = CONDITION.exec(part);
    const number = match ? match[3].replace(/(\d)_(?=\d)/g, "$1") : "";
    const bound = /[\d]/.test(number) && !number.includes("_") ? Number(number) : NaN;
    if (!match || !Number.isFinite(bound))
      throw new Error(
        `constraint '${part.trim()}': expected a metric, <=, <, >= or >, and a number, as in 'params <= 3e6'`,
      );
    if (!run.metric.has(match[1]))
      throw new Error(`unknown metric '${match[1]}': expected one of ${[...run.metric.keys()].join(", ")}`);
    return { metric: match[1], relation: match[2], bound };
  });
}

const KEPT = { "<=": (a, b) => a <= b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, ">": (a, b) => a > b };

function qualifies(run, row, wanted) {
  return wanted.every((each) => {
    const value = run.value(each.metric, row);
    return value !== null && KEPT[each.relation](value, each.bound);
  });
}

// Rows that have scores and every one of the metrics, in the order of their evaluation.
function scored(run, metrics) {
  const order = run.candidates.order;
  return run.rows
    .filter(
      (row) => run.text("status", row) === "ok" && metrics.every((name) => run.value(name, row) !== null),
    )
    .sort((a, b) => order[a] - order[b]);
}

// The rows that no other dominates by these metrics. A difference within the errors dominates nothing, and
// neither does a tainted figure: the rule of `search/pareto.py`.
function frontier(run, rows, metrics) {
  const width = metrics.length;
  const cost = new Float64Array(rows.length * width);
  const error = new Float64Array(rows.length * width);
  metrics.forEach((name, k) => {
    const sign = run.metric.get(name).maximize ? -1 : 1;
    const shares = run.candidates.error[name];
    rows.forEach((row, place) => {
      const value = run.value(name, row);
      cost[place * width + k] = sign * value;
      error[place * width + k] = run.taint(name, row)
        ? Infinity
        : ((shares && shares[row]) || 0) * Math.abs(value);
    });
  });
  // One that dominates another has the smaller sum of scaled costs: only those before it need be looked at.
  const sums = new Float64Array(rows.length);
  const trusted = new Uint8Array(rows.length).fill(1);
  for (let k = 0; k < width; k += 1) {
    let least = Infinity;
    let most = -Infinity;
    for (let at = k; at < cost.length; at += width) {
      least = Math.min(least, cost[at]);
      most = Math.max(most, cost[at]);
    }
    for (let place = 0; place < rows.length; place += 1) {
      sums[place] += (cost[place * width + k] - least) / (most - least || 1);
      if (error[place * width + k] === Infinity) trusted[place] = 0;
    }
  }
  const able = rows
    .map((_, place) => place)
    .filter((place) => trusted[place])
    .sort((a, b) => sums[a] - sums[b]);
  const dominates = (i, j) => {
    let better = false;
    for (let k = 0; k < width; k += 1) {
      const [a, b] = [i * width + k, j * width + k];
      if (cost[a] > cost[b]) return false;
      if (cost[a] + Math.sqrt(error[a] * error[a] + error[b] * error[b]) < cost[b]) better = true;
    }
    return better;
  };
  const slack = 1e-9; // sums are rounded
  let last = -1; // what dominated one often dominates the next
  const dominated = (j) => {
    if (last >= 0 && dominates(last, j)) return true;
    for (const i of able) {
      if (sums[i] > sums[j] + slack) return false;
      if (dominates(i, j)) {
        last = i;
        return true;
      }
    }
    return false;
  };
  return rows.filter((_, place) => !dominated(place));
}

// The frontier of a run's own objectives after so many evaluations.
function frontierAfter(run, kind, count) {
  const order = run.candidates.order;
  const dominators = run.dominators.get(kind);
  const before = (number) => order[run.rowOf.get(number)] < count;
  return [...dominators]
    .filter(([number, by]) => before(number) && (by === null || !before(by)))
    .map(([number]) => run.rowOf.get(number));
}

const layersOf = (run, row) => run.candidates.layers[row].map((place) => run.candidates.tables.layers[place]);

const shapeText = (layer) =>
  Object.entries(layer.shape)
    .map(([key, value]) => `${key} ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");

const layerText = (layer) => `${layer.operator} (${shapeText(layer)}), ${layer.norm}`;

// Two sequences beside each other: pairs [a or null, b or null] with as many equal ones as can be.
function aligned(a, b, same) {
  const lengths = Array.from({ length: a.length + 1 }, () => new Array(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i -= 1)
    for (let j = b.length - 1; j >= 0; j -= 1)
      lengths[i][j] = same(a[i], b[j])
        ? lengths[i + 1][j + 1] + 1
        : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
  const pairs = [];
  let left = [];
  let right = [];
  // What was replaced stands beside what replaced it.
  const flush = () => {
    for (let k = 0; k < Math.max(left.length, right.length); k += 1)
      pairs.push([left[k] ?? null, right[k] ?? null]);
    left = [];
    right = [];
  };
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && same(a[i], b[j])) {
      flush();
      pairs.push([a[i++], b[j++]]);
    } else if (j >= b.length || (i < a.length && lengths[i + 1][j] >= lengths[i][j + 1])) left.push(a[i++]);
    else right.push(b[j++]);
  }
  flush();
  return pairs;
}
