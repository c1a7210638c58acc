// Tables that sort by a click on a heading and filter by text; settings of two jobs side by side; provenance.

const ROWS = 200;

/** What a cell sorts by: the first number in it, or its text. */
function sortKey(text) {
  if (text === "base") return 0; // before round 1
  const match = /^[^\d−+-]{0,2}([−+-]?\d[\d.]*)/.exec(text.replaceAll(",", ""));
  return match ? Number(match[1].replace("−", "-")) : text.toLowerCase();
}

const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);

/**
 * columns: [{name, num}], rows: [{cells: [text], href?}]. The address holds order and filter, so that a link keeps them.
 */
function dataTable({ id, caption, columns, rows, notes }) {
  const params = address().params;
  const wanted = (params.get(`${id}.f`) || "").toLowerCase().split(/\s+/).filter(Boolean);
  const [column, direction] = (params.get(`${id}.s`) || "").split(":");
  const place = column === undefined || column === "" ? -1 : Number(column);
  let found = rows.filter((row) => { const text = row.cells.join("\t").toLowerCase(); return wanted.every((word) => text.includes(word)); });
  if (place >= 0 && place < columns.length) {
    const sign = direction === "down" ? -1 : 1;
    found = found.map((row) => [sortKey(row.cells[place]), row]).sort((a, b) => {
      const empty = (a[1].cells[place] === "–") - (b[1].cells[place] === "–");
      return empty || sign * compare(a[0], b[0]);
    }).map(([, row]) => row);
  }
  const limit = Number(params.get(`${id}.n`)) || ROWS;
  const heads = columns.map((one, i) => {
    const sorted = i === place ? (direction === "down" ? "descending" : "ascending") : null;
    const next = sorted === "ascending" ? `${i}:down` : sorted === "descending" ? "" : `${i}:up`;
    return el("th", { scope: "col", class: one.num ? "num" : null, "aria-sort": sorted },
      el("button", { type: "button", "data-key": `${id}.s${i}`, onclick: () => change({ [`${id}.s`]: next }) }, one.name, sorted ? (sorted === "ascending" ? " ▲" : " ▼") : ""));
  });
  const body = found.slice(0, limit).map((row) => el("tr", { class: row.cls }, row.cells.map((cell, i) => {
    const inner = i === 0 && row.href ? el("a", { href: row.href }, cell) : columns[i].code ? el("code", {}, cell) : cell;
    return el(i === 0 ? "th" : "td", { scope: i === 0 ? "row" : null, class: columns[i].num ? "num" : columns[i].wide ? "wide" : null }, inner);
  })));
  return el("section", { "aria-label": caption },
    el("h3", {}, caption),
    el("div", { class: "controls" },
      el("label", {}, "Filter", el("input", { type: "search", value: params.get(`${id}.f`) || "", "data-key": `${id}.f`, "aria-label": `Filter ${caption}`, oninput: (event) => change({ [`${id}.f`]: event.target.value }) })),
      el("span", { class: "quiet", role: "status" }, `${found.length} of ${plural(rows.length, "row")}`)),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption, "data-key": `${id}.scroll` },
      el("table", { id }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, body))),
    found.length > limit && el("button", { type: "button", onclick: () => change({ [`${id}.n`]: limit * 5 }) }, `show more (${found.length - limit} left)`),
    (notes || []).map((note) => el("p", { class: "note" }, note)));
}

function pointsTable(benchmark) {
  const rows = D.points.map((point) => {
    const job = D.jobs[point.job], score = scoreOf(point, benchmark.name);
    return {
      href: link("samples", { b: benchmark.name, r: String(point.iteration), seed: job.replicate }),
      cells: [D.series[job.series].name, job.replicate, roundName(point.iteration), show(score?.score), score && score.low !== null ? `${show(score.low)} to ${show(score.high)}` : "–",
        show(score?.length), show(score?.proxy), show(point.kl), point.n_pairs === null ? "–" : String(point.n_pairs), show(point.chosen_tokens), show(point.rejected_tokens)],
    };
  });
  const names = ["objective", "seed", "round", benchmark.score_name, "95 % interval", benchmark.length_name, "proxy", "KL (nats)", "pairs", "chosen tokens", "rejected tokens"];
  return dataTable({ id: "points", caption: `Every policy on ${benchmark.title}`, columns: names.map((name, i) => ({ name, num: i > 1 })), rows });
}

function drawTables() {
  const benchmark = chosenBenchmark();
  const chosen = D.tables.find((table) => table.name === address().params.get("t")) || D.tables[0];
  fill($("view-tables"), el("h2", {}, "Tables"),
    benchmark && el("div", { class: "controls" }, select("Benchmark", "b", D.benchmarks.map((one) => [one.name, one.title]), benchmark.name)),
    benchmark && pointsTable(benchmark),
    chosen && el("div", { class: "controls" }, select("Table of the report", "t", D.tables.map((table) => [table.name, table.title]), chosen.name, (value) => change({ t: value, "report.s": null, "report.f": null }))),
    chosen && dataTable({ id: "report", caption: chosen.title, columns: chosen.header.map((name, i) => ({ name, num: i > 0 && chosen.cells.every((row) => /^[^a-z]*[\d–]/i.test(row[i]) || !row[i]) })), rows: chosen.cells.map((cells) => ({ cells })), notes: chosen.notes }));
}

function drawConfig() {
  const params = address().params;
  const jobRows = D.jobs.map((job) => ({ cells: [job.job, D.series[job.series].name, job.replicate, job.status, String(job.rounds), job.differs_in || "–", job.overrides] }));
  const second = D.jobs.find((job) => job.series !== D.jobs[0].series) || D.jobs[1] || D.jobs[0];
  const [a, b] = [D.jobs[params.get("a")] || D.jobs[0], D.jobs[params.get("b2")] || second];
  const options = D.jobs.map((job, i) => [i, `${D.series[job.series].name}, ${job.replicate}`]);
  const all = params.get("all") === "1";
  const keys = [...new Set([...Object.keys(a.settings), ...Object.keys(b.settings)])].sort();
  const rows = keys.map((key) => ({ cells: [key, a.settings[key] ?? "–", b.settings[key] ?? "–"], cls: a.settings[key] === b.settings[key] ? null : "differs" }));
  fill($("view-config"), el("h2", {}, "Configuration"),
    dataTable({ id: "jobs", caption: "Jobs", columns: ["job", "objective", "seed", "status", "rounds", "differs in", "started with"].map((name, i) => ({ name, num: i === 4, wide: i > 4 })), rows: jobRows }),
    el("h3", {}, "Two jobs side by side"),
    el("div", { class: "controls" }, select("Job A", "a", options, D.jobs.indexOf(a)), select("Job B", "b2", options, D.jobs.indexOf(b)),
      el("label", {}, el("input", { type: "checkbox", checked: all, "data-key": "all", onchange: (event) => change({ all: event.target.checked ? "1" : null }) }), "settings that are equal, too")),
    dataTable({ id: "settings", caption: "Settings", columns: [{ name: "setting" }, { name: "job A", wide: true }, { name: "job B", wide: true }], rows: rows.filter((row) => all || row.cls),
      notes: ["Settings that shape no number (folders, trackers, batch sizes) are not compared."] }));
}

function drawProvenance() {
  const machines = D.machines.map((machine, i) => ({ cells: [String(i), machine.commit, machine.host, machine.processor, machine.accelerators, machine.threads, machine.packages] }));
  const rows = D.artifacts.map((one) => ({ cells: [one.stage, one.fingerprint, D.jobs[one.job].job, roundName(one.iteration), String(one.machine), show(one.seconds)] }));
  fill($("view-provenance"), el("h2", {}, "Provenance"),
    dataTable({ id: "machines", caption: "Machines and code", columns: ["no.", "commit", "host", "processor", "accelerators", "threads", "packages"].map((name, i) => ({ name, num: i === 0 || i === 5, code: i === 1, wide: i === 6 })), rows: machines, notes: ["A + after a commit: the checkout had uncommitted changes."] }),
    dataTable({ id: "artifacts", caption: "Artifacts", columns: ["stage", "fingerprint", "job", "round", "machine", "seconds"].map((name, i) => ({ name, num: i > 2, code: i === 1 })), rows, notes: ["An artifact lies in the store under stage/fingerprint; jobs that share one list it each."] }));
}
