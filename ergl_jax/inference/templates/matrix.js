"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const fixed = (value, digits) => value.toFixed(digits).replace("-", "−");
const signed = (value, digits) => (value > 0 ? "+" : "") + fixed(value, digits);

function make(tag, parent, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return parent.appendChild(element);
}

// Builds #matrix: rows receive, columns send. `sentence(i, j)` describes a cell in #cell.
// Returns the function that paints it; call it first, and when values or sentences change.
function relationMatrix(events, sentence) {
  const table = byId("matrix"), last = events.length - 1;
  const cell = (i, j) => table.rows[i + 1].cells[j + 1];
  const place = (td) => [td.parentNode.rowIndex - 1, td.cellIndex - 1];

  function select(td) {
    current.tabIndex = -1;
    current.classList.remove("current");
    current = td;
    current.tabIndex = 0;
    current.classList.add("current");
    byId("cell").textContent = sentence(...place(td));
  }

  table.style.setProperty("--n", events.length);
  const head = make("tr", make("thead", table)), body = make("tbody", table);
  make("td", head);
  for (const name of events) {
    make("span", make("th", head, undefined, { scope: "col", title: name }), name);
  }
  for (const name of events) {
    const row = make("tr", body);
    make("th", row, name, { scope: "row", title: name });
    for (const _ of events) make("td", row, undefined, { role: "gridcell", tabindex: -1 });
  }
  let current = cell(0, 0);
  current.tabIndex = 0;
  for (const kind of ["pointerover", "focusin", "click"]) {
    body.addEventListener(kind, (event) => {
      const td = event.target.closest("td");
      if (td) select(td);
    });
  }
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  body.addEventListener("keydown", (event) => {
    if (!(event.key in moves)) return;
    event.preventDefault();
    const [i, j] = place(event.target).map((x, k) =>
      Math.min(last, Math.max(0, x + moves[event.key][k])));
    cell(i, j).focus();
  });

  // diverging: two colours that meet at zero; otherwise one, from the least to the greatest value.
  return (values, { diverging, digits, unit }) => {
    // reduce: there may be too many values to be arguments of Math.min.
    const flat = values.flat();
    const largest = flat.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
    const low = diverging ? -largest : flat.reduce((a, b) => Math.min(a, b));
    const high = diverging ? largest : flat.reduce((a, b) => Math.max(a, b));
    values.forEach((row, i) => row.forEach((value, j) => {
      cell(i, j).style.background = diverging
        ? `rgba(var(--${value > 0 ? "positive" : "negative"}), ${Math.abs(value) / high})`
        : `rgba(var(--mean), ${(value - low) / (high - low || 1)})`;
      cell(i, j).setAttribute("aria-label", sentence(i, j));
    }));
    if (current.classList.contains("current")) select(current);
    drawScale(diverging, low, high, digits, unit);
  };
}

function drawScale(diverging, low, high, digits, unit) {
  const scale = byId("scale"), text = diverging ? signed : fixed;
  scale.replaceChildren();
  const colours = diverging
    ? "rgb(var(--negative)), transparent, rgb(var(--positive))" : "transparent, rgb(var(--mean))";
  make("div", scale, undefined, { class: "bar" }).style.background =
    `linear-gradient(to right, ${colours})`;
  const marks = [[0, text(low, digits) + unit], [1, text(high, digits) + unit]];
  const zero = -low / (high - low || 1);
  if (zero > 0.15 && zero < 0.85) marks.push([zero, "0"]);
  for (const [place, name] of marks) {
    make("span", scale, name).style.left = 100 * place + "%";
    if (name === "0") make("i", scale).style.left = 100 * place + "%";
  }
}
