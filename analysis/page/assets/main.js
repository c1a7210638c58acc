// Start, navigation and keys.

const DRAW = { overview: drawOverview, training: drawTraining, samples: drawSamples, tables: drawTables, config: drawConfig, provenance: drawProvenance };

function draw() {
  const { view, params } = address();
  const kept = { b: params.get("b"), seed: params.get("seed"), hide: params.get("hide") };
  for (const name of Object.keys(VIEWS)) $(`view-${name}`).hidden = name !== view;
  $("nav").replaceChildren(...Object.entries(VIEWS).map(([name, title]) => el("a", { href: link(name, kept), "aria-current": name === view ? "page" : null }, title)));
  document.title = `${VIEWS[view]} · ${D.title} · aipo`;
  DRAW[view]();
}

function step(by) {
  if (!shownIds.length) return;
  const current = document.querySelector(".list [aria-current]");
  const at = current ? shownIds.indexOf(current.dataset.key.slice(5)) : -1;
  change({ q: shownIds[Math.max(0, Math.min(shownIds.length - 1, at + by))] });
  document.querySelector(".list [aria-current]")?.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inField = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
  const { view } = address();
  if (inField) { if (event.key === "Escape") document.activeElement.blur(); return; }
  if (/^[1-6]$/.test(event.key)) location.hash = $("nav").children[Number(event.key) - 1].hash;
  if (view !== "samples") return;
  const inList = document.activeElement.closest(".list");
  if (event.key === "j" || (inList && event.key === "ArrowDown")) { event.preventDefault(); step(1); }
  if (event.key === "k" || (inList && event.key === "ArrowUp")) { event.preventDefault(); step(-1); }
  if (event.key === "/") { event.preventDefault(); $("search")?.focus(); }
});

document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("main").focus(); });
addEventListener("hashchange", () => { tip(null); draw(); window.scrollTo(0, 0); });
addEventListener("popstate", () => draw());
let waiting = 0;
let drawnWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === drawnWidth) return;
  clearTimeout(waiting);
  waiting = setTimeout(() => { drawnWidth = innerWidth; draw(); }, 150);
});

unpack("overview-data").then((data) => {
  D = data;
  draw();
  document.documentElement.dataset.ready = "1";
}).catch((error) => { $("charts").textContent = `The page's data cannot be unpacked: ${error.message}. A browser from 2023 or later is needed.`; });
