"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function make(tag, parent, text) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  return parent.appendChild(element);
}

function fixed(value, digits) {
  return value.toFixed(digits).replace("-", "−");
}

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? "−" : "+") + text;
}

// The least and the greatest value of a matrix: too many of them to be Math.min's arguments.
function extent(values) {
  return values.flat().reduce(
    ([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

// Fills #matrix: rows receive, columns send. `sentence(i, j)` is what #told says of a cell.
// Returns what paints it: to be called first, and whenever values or sentences change.
function relationMatrix(events, sentence) {
  const table = byId("matrix"), n = events.length, cells = [];
  let current = [0, 0], told = false;

  function tell(i, j) {
    cells[current[0]][current[1]].classList.remove("told");
    cells[current[0]][current[1]].tabIndex = -1;
    current = [i, j];
    told = true;
    cells[i][j].classList.add("told");
    cells[i][j].tabIndex = 0;
    byId("told").textContent = sentence(i, j);
  }

  table.classList.toggle("many", n > 30);
  const head = make("tr", make("thead", table));
  make("td", head);
  for (const name of events) {
    const cell = make("th", head);
    cell.scope = "col";
    cell.title = name;
    make("span", cell, name);
  }
  const body = make("tbody", table);
  events.forEach((name, i) => {
    const row = make("tr", body), header = make("th", row, name);
    header.scope = "row";
    header.title = name;
    cells.push(events.map((_, j) => {
      const cell = make("td", row);
      cell.tabIndex = -1;
      cell.setAttribute("role", "gridcell");
      for (const kind of ["pointerenter", "focus", "click"]) {
        cell.addEventListener(kind, () => tell(i, j));
      }
      return cell;
    }));
  });
  cells[0][0].tabIndex = 0;
  table.addEventListener("keydown", (event) => {
    const moves = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const at = [0, 1].map((k) => Math.min(n - 1, Math.max(0, current[k] + move[k])));
    cells[at[0]][at[1]].focus();
  });

  // diverging: two colours that meet at zero; otherwise one, from `low` to `high`.
  return (values, { diverging, low, high, digits, unit }) => {
    const largest = Math.max(...extent(values).map(Math.abs)) || 1;
    const span = high - low || 1;
    const colour = (value) => diverging
      ? `rgba(var(--${value > 0 ? "adds" : "takes"}), ${Math.abs(value) / largest})`
      : `rgba(var(--mean), ${(value - low) / span})`;
    values.forEach((row, i) => row.forEach((value, j) => {
      cells[i][j].style.background = colour(value);
      cells[i][j].setAttribute("aria-label", sentence(i, j));
    }));
    if (told) tell(...current);
    drawScale(diverging, diverging ? -largest : low, diverging ? largest : high, digits, unit);
  };
}

function drawScale(diverging, low, high, digits, unit) {
  const scale = byId("scale"), text = diverging ? signed : fixed;
  scale.replaceChildren();
  const bar = make("div", scale);
  bar.className = "bar";
  bar.style.background = diverging
    ? "linear-gradient(to right, rgb(var(--takes)), transparent, rgb(var(--adds)))"
    : "linear-gradient(to right, transparent, rgb(var(--mean)))";
  const marks = [[0, text(low, digits) + unit], [1, text(high, digits) + unit]];
  const zero = -low / (high - low || 1);
  if (zero > 0.15 && zero < 0.85) marks.push([zero, "0"]);
  for (const [place, name] of marks) {
    const left = 100 * place + "%";
    make("span", scale, name).style.left = left;
    if (name === "0") make("i", scale).style.left = left;
  }
}
