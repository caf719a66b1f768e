// Which of many points are drawn: one of those that lie on each other. A zoom shows the others.

const MOST = 1000; // points behind a frontier: of more, the drawing takes longer than all else
const FINEST = 300; // cells of the grid along each axis: one is as large as half a marker

// Rows so that no two lie in one cell, the latest of each: at most MOST of what the chart shows as a whole,
// and as many again of the part that is zoomed to.
function thinned(rows, at, view) {
  if (rows.length <= MOST) return rows;
  const points = rows.map((row) => [row, ...at(row)]).filter((point) => point.every(Number.isFinite));
  const kept = new Set(oneOfEach(points));
  if (view) {
    const within = (value, [low, high]) => value >= low && value <= high;
    const near = points.filter((point) => within(point[1], view[0]) && within(point[2], view[1]));
    for (const row of oneOfEach(near)) kept.add(row);
  }
  return [...kept];
}

function oneOfEach(points) {
  if (points.length <= MOST) return points.map(([row]) => row);
  const [left, right, low, high] = [1, 2].flatMap((k) => {
    const values = points.map((point) => point[k]);
    return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  });
  for (let cells = FINEST; ; cells = Math.floor(cells * 0.8)) {
    const place = (value, least, most) => Math.floor(((value - least) / (most - least || 1)) * cells);
    const taken = new Map();
    for (const [row, x, y] of points) {
      taken.set(place(x, left, right) * (cells + 2) + place(y, low, high), row);
    }
    if (taken.size <= MOST || cells <= 1) return [...taken.values()];
  }
}
