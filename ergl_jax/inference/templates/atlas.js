const chooser = byId("scene"), shown = byId("switch"), difference = byId("difference");
const panels = [...document.querySelectorAll("[data-panel]")];
let scene, other;

function sentence(i, j) {
  const mean = scene.means[i][j], start = `${data.events[j]} → ${data.events[i]}: `;
  if (!difference.checked) return `${start}mean edge ${fixed(mean, 3)}`;
  const theirs = other.means[i][j];
  return `${start}mean edge ${fixed(mean, 3)}, ${other.name} ${fixed(theirs, 3)}, ` +
    `difference ${signed(mean - theirs, 3)}`;
}

const paint = relationMatrix(data.events, sentence);

function show() {
  const place = Number(chooser.value);
  scene = data.scenes[place];
  other = data.scenes[scene.neighbour]; // undefined where no clip is of the neighbour
  panels.forEach((panel, k) => { panel.hidden = k !== place; });
  difference.disabled = !other;
  if (!other) byId("means").checked = true;
  byId("of").textContent = scene.name;
  byId("other").textContent = other ? other.name : "another scene";
  if (difference.checked) {
    const values = scene.means.map((row, i) => row.map((x, j) => x - other.means[i][j]));
    paint(values, { diverging: true, digits: 3, unit: "" });
  } else {
    const [low, high] = extent(scene.means);
    paint(scene.means, { low, high, digits: 3, unit: "" });
  }
}

show(); // a reloaded page may remember another choice than the first
byId("choice").hidden = false;
shown.hidden = false;
shown.addEventListener("change", show);
chooser.addEventListener("change", show);
