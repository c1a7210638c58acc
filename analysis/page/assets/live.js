"use strict";
// Added by `aipo view` alone: asks the server that served this page whether there is a newer one, and then takes it.
(async () => {
  const served = document.currentScript.dataset.version;
  const place = "aipo-scroll";
  const ready = () => document.documentElement.hasAttribute("data-ready");
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const kept = sessionStorage.getItem(place);
  sessionStorage.removeItem(place);
  for (let tries = 0; kept && !ready() && tries < 50; tries += 1) await wait(100);
  if (kept) scrollTo(0, Number(kept));
  const inUse = () => ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement?.tagName) || !getSelection().isCollapsed;
  for (;;) {
    await wait(2000);
    try {
      const answer = await fetch("version", { cache: "no-store" });
      // Whoever is typing or marking text is not disturbed; the newer page waits.
      if (answer.ok && (await answer.text()) !== served && !document.hidden && !inUse()) {
        sessionStorage.setItem(place, String(scrollY));
        location.reload();
        return;
      }
    } catch { /* the server is gone: the page stays as it is */ }
  }
})();
