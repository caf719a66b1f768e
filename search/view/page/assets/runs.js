// The list of runs of a server.

const chosen = new Set();

function address(names) {
  return `page?${names.map((name) => `run=${encodeURIComponent(name)}`).join("&")}`;
}

function ago(text) {
  const seconds = (Date.now() - Date.parse(text)) / 1000;
  for (const [size, word] of [
    [86400, "day"],
    [3600, "hour"],
    [60, "minute"],
  ])
    if (seconds >= size) return `${plural(Math.floor(seconds / size), word)} ago`;
  return "just now";
}

function showRuns(rows) {
  const words = { words: true };
  const columns = [
    { title: "choose" },
    { title: "run", ...words },
    { title: "state", ...words },
    { title: "evaluated" },
    { title: "frontier" },
    { title: "best", ...words },
    { title: "changed", ...words },
    { title: "size" },
  ];
  const body = rows.map((row) => {
    const box = h("input", {
      type: "checkbox",
      "aria-label": `Choose ${row.name}`,
      disabled: !row.readable,
      onchange: (event) => {
        if (event.target.checked) chosen.add(row.name);
        else chosen.delete(row.name);
        element("show").disabled = chosen.size < 2;
      },
    });
    box.checked = chosen.has(row.name);
    return [
      box,
      row.readable ? h("a", { href: address([row.name]) }, row.name) : row.name,
      row.state,
      row.readable ? `${row.evaluated} of ${row.candidates}` : "",
      row.readable ? row.frontier : "",
      Object.entries(row.best)
        .map(([name, value]) => `${name} ${digits(value)}`)
        .join(", "),
      ago(row.changed),
      withSuffix(row.size, "B"),
    ];
  });
  fill(
    element("runs"),
    rows.length
      ? table("Runs", columns, body, { plain: true })
      : h("p", null, "There is no run yet. A run that begins appears here."),
  );
}

async function followRuns() {
  let last = "";
  for (;;) {
    try {
      const answer = await fetch("runs", { cache: "no-store" });
      const text = await answer.text();
      if (!answer.ok) throw new Error(text);
      if (text !== last) showRuns(JSON.parse(text));
      last = text;
      element("problem").hidden = true;
    } catch (error) {
      element("problem").hidden = false;
      element("problem").textContent = `no news from the server: ${error.message}`;
    }
    await new Promise((done) => setTimeout(done, 5000));
  }
}

element("together").addEventListener("submit", (event) => {
  event.preventDefault();
  if (chosen.size > 1) location.href = address([...chosen]);
});
followRuns();
