// Charts: plotly with the page's colours, the frontier with its keys, and the note beside the pointer.

const SIZES = { frontier: 11, other: 7 };
const SYMBOLS = ["circle", "triangle-up", "x", "star", "hexagon", "triangle-down"]; // of runs
const OPERATOR_COLOURS = [
  "#4477aa",
  "#ee6677",
  "#228833",
  "#ccbb44",
  "#66ccee",
  "#aa3377",
  "#ee7733",
  "#009988",
  "#997700",
  "#555555",
  "#ee3377",
  "#33bbee",
  "#882255",
  "#117733",
  "#aa4499",
  "#88ccee",
];
// From dark to light, each end apart from the page behind it.
const SHADES = {
  light: [
    [0, "#00224e"],
    [0.5, "#6b7a90"],
    [1, "#d39200"],
  ],
  dark: [
    [0, "#3f7fd0"],
    [0.5, "#a5b0c0"],
    [1, "#ffe14d"],
  ],
};
let unpacking = null; // the text of plotly in a file, from when the page begins
let drawing = null; // plotly, from when it is wanted

// Plotly is large: it is read only once the page stands.
function plotly() {
  drawing ??= (async () => {
    const script = document.createElement("script");
    if (unpacking) {
      script.textContent = await unpacking;
      document.head.append(script);
    } else {
      script.src = document.body.dataset.plotly;
      await new Promise((done, failed) => {
        script.onload = done;
        script.onerror = () => failed(new Error("plotly.js cannot be read from the server"));
        document.head.append(script);
      });
    }
    return window.Plotly;
  })();
  return drawing;
}

function axis(title, log) {
  return {
    title: { text: plain(title), standoff: 8 },
    type: log ? "log" : "linear",
    gridcolor: css("--line"),
    linecolor: css("--line"),
    zerolinecolor: css("--line"),
  };
}

// Plotly reads some tags and entities in texts; names of runs and metrics are meant as they stand.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

async function draw(target, traces, layout, label) {
  const library = await plotly();
  const whole = {
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { color: css("--text"), family: "system-ui, sans-serif", size: 13 },
    margin: { l: 68, r: 24, t: 36, b: 52 }, // fixed: with its own, plotly would draw everything twice
    hovermode: "closest",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    ...layout,
  };
  await library.react(target, traces, whole, {
    responsive: true,
    displaylogo: false,
    displayModeBar: target.getAttribute("role") === "img" ? false : "hover", // a picture has nothing to press
    scrollZoom: target.id === "frontier-chart",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  });
  // Screen readers have the chart's label and the tables; plotly's own elements say nothing to them, and take
  // no step of the Tab key.
  const pictures = target.querySelectorAll(".plot-container");
  for (const each of [...pictures, element("js-plotly-tester")]) each?.setAttribute("aria-hidden", "true");
  for (const each of target.querySelectorAll("a, button, [tabindex]")) each.tabIndex = -1;
  if (label) target.setAttribute("aria-label", label);
  return target;
}
