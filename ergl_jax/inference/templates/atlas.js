const chooser = byId("scene"), choice = byId("switch"), difference = byId("difference");
const panels = [...document.querySelectorAll("[data-panel]")];
const plain = (name) => name.replaceAll("_", " ");
let scene, other;
// ERGL has mean edges; the dynamic event graph has correlations.
const strengths = (page) => page.edge_means ?? page.edge_correlations;
const strength = data.pages[0].edge_means ? "mean edge" : "largest correlation";

function sentence(i, j) {
  const mean = strengths(scene)[i][j];
  const start = `${data.events[j]} → ${data.events[i]}: ${strength} ${fixed(mean, 3)}`;
  if (!difference.checked) return start;
  const theirs = strengths(other)[i][j];
  return `${start}, ${plain(other.scene)} ${fixed(theirs, 3)}, ` +
    `difference ${signed(mean - theirs, 3)}`;
}

const paint = relationMatrix(data.events, sentence);

function show() {
  const index = Number(chooser.value);
  scene = data.pages[index];
  other = data.pages.find((page) => page.scene === scene.neighbour); // undefined: it has no clips
  panels.forEach((panel, k) => { panel.hidden = k !== index; });
  difference.disabled = !other;
  if (!other) byId("means").checked = true;
  byId("of").textContent = plain(scene.scene);
  byId("other").textContent = other ? plain(other.scene) : "another scene";
  const values = difference.checked
    ? strengths(scene).map((row, i) => row.map((x, j) => x - strengths(other)[i][j]))
    : strengths(scene);
  const diverging = difference.checked || !scene.edge_means;
  paint(values, { diverging, digits: 3, unit: "" });
}

show(); // after a reload the browser may have kept the reader's choice
byId("choice").hidden = choice.hidden = false;
choice.addEventListener("change", show);
chooser.addEventListener("change", show);
