// Elements, figures and small helpers. Text from a run only ever becomes a text node, never markup.

const element = (id) => document.getElementById(id);

// An element: h("td", {class: "number"}, "text", other). Handlers are given as functions, as in {onclick: f}.
function h(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === "") continue;
    made.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return made;
}

function fill(target, ...children) {
  target.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

// A table with a caption that screen readers say. Columns: {title, words?, unseen?}, where unseen titles are
// for them alone; rows of texts or nodes.
function table(caption, columns, rows, options) {
  const head = columns.map((column) =>
    h(
      "th",
      { scope: "col", class: column.words ? "words" : null },
      column.unseen ? h("span", { class: "unseen" }, column.title) : column.title,
    ),
  );
  const body = rows.map((row) =>
    h(
      "tr",
      row.mark ? { class: row.mark } : null,
      (row.cells || row).map((cell, place) =>
        h(
          place === 0 && !(options && options.plain) ? "th" : "td",
          {
            scope: place === 0 && !(options && options.plain) ? "row" : null,
            class: columns[place].words ? "words" : null,
          },
          cell,
        ),
      ),
    ),
  );
  const made = h(
    "table",
    null,
    h("caption", { class: "unseen" }, caption),
    h("thead", null, h("tr", null, head)),
    h("tbody", null, body),
  );
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption }, made);
}

const PREFIXES = [
  [1, ""],
  [1e3, "k"],
  [1e6, "M"],
  [1e9, "G"],
  [1e12, "T"],
];

// Three significant digits and an SI prefix, as tables in the terminal have them.
function scaled(value) {
  for (const [size, prefix] of PREFIXES) {
    const number = Number((value / size).toPrecision(3));
    if (Math.abs(number) < 1000) return [String(number), prefix];
  }
  return [(value / 1e12).toFixed(0), "T"];
}

// Four significant digits, zeros at the end included: 3.870, 1.235e+06.
function digits(value) {
  if (value === 0) return "0.000";
  const exponent = Number(Math.abs(value).toExponential(3).split("e")[1]);
  if (exponent < -4 || exponent >= 4) {
    const [mantissa, power] = value.toExponential(3).split("e");
    return `${mantissa}e${power[0]}${power.slice(1).padStart(2, "0")}`;
  }
  return value.toPrecision(4);
}

function withSuffix(value, suffix) {
  const [number, prefix] = scaled(value);
  return suffix ? `${number} ${prefix}${suffix}` : number + prefix;
}

// A figure of a metric for people, as `figures.formatted` writes it.
function figure(metric, value) {
  if (value === null || value === undefined) return "";
  if (metric.suffix !== null && metric.suffix !== undefined) return withSuffix(value, metric.suffix);
  return metric.whole ? String(value) : digits(value);
}

function percent(share) {
  const value = 100 * share;
  return Math.abs(value) >= 9.95 ? `${value.toFixed(0)}%` : `${Number(value.toPrecision(2))}%`;
}

function duration(seconds) {
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

// Black or white, whichever stands out more from a colour such as "#4477aa".
function textOn(colour) {
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
  const linear = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return 1.05 / (light + 0.05) > (light + 0.05) / 0.05 ? "#ffffff" : "#000000";
}

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

// What screen readers say when something changed that is not in focus.
function announce(text) {
  element("announced").textContent = text;
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Base64 of gzip -> text.
async function unpacked(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let place = 0; place < letters.length; place += 1) bytes[place] = letters.charCodeAt(place);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return await new Response(stream).text();
}

// A command that can be copied, and is selected where the browser has no clipboard for files.
function command(text) {
  const code = h("code", { tabindex: "0" }, text);
  const button = h(
    "button",
    {
      type: "button",
      class: "copy",
      "aria-label": `Copy: ${text}`,
      onclick: async () => {
        getSelection().selectAllChildren(code);
        try {
          await navigator.clipboard.writeText(text);
          announce("copied");
        } catch {
          announce("selected; copy it with the keyboard");
        }
      },
    },
    "Copy",
  );
  return h("div", { class: "command" }, code, button);
}
