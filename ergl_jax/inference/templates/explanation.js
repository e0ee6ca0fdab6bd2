const events = data.events.map((each) => each.event);

function sentence(i, j) {
  const strength = data.edge_means
    ? `mean edge ${fixed(data.edge_means[i][j], 2)}`
    : `correlation ${signed(data.edge_correlations[i][j], 2)} at ${data.edge_lags[i][j]} s`;
  return `${events[j]} → ${events[i]}: contribution ` +
    `${signed(data.edge_contributions[i][j], 2)} nats, ${strength}`;
}

const paint = relationMatrix(events, sentence);

function show(name) {
  const unit = name === "edge_contributions" ? " nats" : "";
  paint(data[name], { diverging: name !== "edge_means", digits: 2, unit });
}

show("edge_contributions");
byId("switch").hidden = false;
byId("switch").addEventListener("change", (event) => show(event.target.value));

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
  audio.play().catch(() => {}); // some browsers only play from their own button first
});
