"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function make(tag, parent, text) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  return parent.appendChild(element);
}

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? "−" : "+") + text;
}

// The matrix: rows receive, columns send.
const table = byId("matrix"), n = data.events.length, cells = [];
let current = [0, 0];

function sentence(i, j) {
  const mean = data.means[i][j].toFixed(2).replace("-", "−");
  return `${data.events[j]} → ${data.events[i]}: contribution ` +
    `${signed(data.contributions[i][j], 2)} nats, mean edge ${mean}`;
}

function tell(i, j) {
  cells[current[0]][current[1]].classList.remove("told");
  cells[current[0]][current[1]].tabIndex = -1;
  current = [i, j];
  cells[i][j].classList.add("told");
  cells[i][j].tabIndex = 0;
  byId("told").textContent = sentence(i, j);
}

function build() {
  table.classList.toggle("many", n > 30);
  const head = make("tr", make("thead", table));
  make("td", head);
  for (const name of data.events) {
    const cell = make("th", head);
    cell.scope = "col";
    cell.title = name;
    make("span", cell, name);
  }
  const body = make("tbody", table);
  data.events.forEach((name, i) => {
    const row = make("tr", body), header = make("th", row, name);
    header.scope = "row";
    header.title = name;
    cells.push(data.events.map((_, j) => {
      const cell = make("td", row);
      cell.tabIndex = -1;
      cell.setAttribute("role", "gridcell");
      cell.setAttribute("aria-label", sentence(i, j));
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
}

function paint(name) {
  const values = data[name].flat(), scale = byId("scale");
  const largest = Math.max(...values.map(Math.abs)) || 1;
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const contributions = name === "contributions";
  const colour = (value) => contributions
    ? `rgba(var(--${value > 0 ? "adds" : "takes"}), ${Math.abs(value) / largest})`
    : `rgba(var(--mean), ${(value - low) / span})`;
  data[name].forEach((row, i) => row.forEach((value, j) => {
    cells[i][j].style.background = colour(value);
  }));
  scale.replaceChildren();
  const bar = make("div", scale);
  bar.className = "bar";
  bar.style.background = contributions
    ? "linear-gradient(to right, rgb(var(--takes)), transparent, rgb(var(--adds)))"
    : "linear-gradient(to right, transparent, rgb(var(--mean)))";
  const marks = contributions
    ? [[0, signed(-largest, 2) + " nats"], [0.5, "0"], [1, signed(largest, 2) + " nats"]]
    : [[0, low.toFixed(2).replace("-", "−")], [1, high.toFixed(2).replace("-", "−")]];
  const zero = -low / span;
  if (!contributions && zero > 0.15 && zero < 0.85) marks.push([zero, "0"]);
  for (const [place, text] of marks) {
    const left = 100 * place + "%";
    make("span", scale, text).style.left = left;
    if (text === "0") make("i", scale).style.left = left;
  }
}

build();
paint("contributions");
byId("switch").hidden = false;
byId("switch").addEventListener("change", (event) => paint(event.target.value));

// The cursor on the timeline.
const audio = byId("audio"), timeline = byId("timeline"), cursor = byId("cursor");
const width = data.right - data.left;

function follow() {
  const share = Math.min(1, audio.currentTime / data.seconds);
  cursor.hidden = false;
  cursor.style.left = 100 * (data.left + share * width) + "%";
  if (!audio.paused) requestAnimationFrame(follow);
}

for (const kind of ["play", "seeked", "timeupdate"]) audio.addEventListener(kind, follow);
timeline.addEventListener("click", (event) => {
  const box = timeline.getBoundingClientRect();
  const share = ((event.clientX - box.left) / box.width - data.left) / width;
  if (share < 0 || share > 1) return;
  audio.currentTime = share * data.seconds;
  audio.play().catch(() => {}); // a browser may want a touch of its own button first
});
