// The sample browser: benchmark questions with the answers of every objective and round, or a round's training prompts.

const FILTERS = {
  answers: { "": "all", growth: "longest growth", disagree: "judges disagree", truncated: "truncated", worse: "score fell" },
  training: { "": "all", growth: "chosen longest beside rejected", disagree: "ranker against gold", truncated: "truncated", nopair: "no pair" },
};
let generation = 0;
let shownIds = [];
const lower = new Map(); // answers fingerprint -> texts per question, in lower case

const replicateNames = () => [...new Set(D.jobs.map((job) => job.replicate))];

function pointsOf(replicate) {
  return D.points.filter((point) => D.jobs[point.job].replicate === replicate && (point.sheets.length || (point.pairs && point.pairs in D.chunks)));
}

async function drawSamples() {
  const mine = ++generation;
  const target = $("view-samples");
  const params = address().params;
  const kind = params.get("kind") === "training" ? "training" : "answers";
  const replicates = replicateNames().filter((name) => pointsOf(name).length);
  const head = [el("h2", {}, "Samples"), el("p", { class: "note" }, D.texts_note)];
  if (!replicates.length) { fill(target, head, el("p", {}, "The page holds no texts: no artifact with answers could be read.")); return; }
  const replicate = replicates.includes(params.get("seed")) ? params.get("seed") : replicates[0];
  const missing = params.get("seed") && params.get("seed") !== replicate ? el("p", { class: "note" }, `Texts of ${params.get("seed")} are not in this page; ${replicate} is shown.`) : null;
  const points = pointsOf(replicate);
  const view = kind === "answers" ? answersView(points) : trainingView(points);
  const wanted = view.fingerprints;
  if (wanted.some((digest) => digest in D.chunks && !sheets.has(digest))) {
    if (!target.childElementCount) fill(target, head, el("p", { role: "status" }, "Unpacking texts…"));
    try { await need(wanted); } catch (error) { fill(target, head, el("p", {}, `The texts cannot be unpacked: ${error.message}`)); return; }
    if (mine !== generation) return;
  }
  const started = performance.now();
  const words = (params.get("s") || "").toLowerCase();
  const filter = Object.hasOwn(FILTERS[kind], params.get("f") || "") ? params.get("f") || "" : "";
  const items = view.items(words, filter);
  const took = performance.now() - started;
  target.dataset.filterMs = took.toFixed(1);
  shownIds = items.map((item) => item.id);
  const current = items.find((item) => item.id === params.get("q")) || (params.get("q") && view.byId(params.get("q"))) || items[0];
  const list = el("div", { class: "list", role: "group", "aria-label": "Prompts", "data-scroll": "list" },
    items.slice(0, 400).map((item) => el("button", {
      type: "button", "data-key": `item-${item.id}`, "aria-current": current && item.id === current.id ? "true" : null,
      onclick: () => change({ q: item.id }, true),
    }, el("span", { dir: "auto" }, plain(item.title.length > 110 ? `${item.title.slice(0, 108)}…` : item.title)), el("small", {}, item.note))),
    items.length > 400 && el("p", { class: "note" }, `${items.length - 400} more: search or filter to see them`),
    !items.length && el("p", { class: "note" }, "Nothing matches."));
  fill(target, head, missing,
    el("div", { class: "chips plain", role: "group", "aria-label": "Kind of sample" }, [["answers", "Benchmark answers"], ["training", "Training prompts"]].map(([id, name]) =>
      el("button", { type: "button", "aria-pressed": String(id === kind), "data-key": `kind-${id}`, onclick: () => change({ kind: id === "answers" ? null : id, q: null, f: null, r: null }, true) }, name))),
    el("div", { class: "controls" }, view.controls, replicates.length > 1 && select("Seed", "seed", replicates.map((name) => [name, name]), replicate),
      select("Filter", "f", Object.entries(FILTERS[kind]), filter),
      el("label", {}, "Search", el("input", { type: "search", id: "search", "data-key": "search", value: params.get("s") || "", placeholder: "in prompts and answers", oninput: (event) => change({ s: event.target.value }) })),
      el("span", { class: "quiet", id: "found", role: "status" }, `${items.length} of ${plural(view.total, "prompt")}; ${plural(view.texts, "text")} searched`)),
    view.chips,
    el("div", { class: "browser" }, list, el("div", { id: "detail" }, current ? view.detail(current) : el("p", { class: "quiet" }, "Choose a prompt."))),
    el("p", { class: "note" }, "Keys: ", el("kbd", {}, "j"), " ", el("kbd", {}, "k"), " next and previous prompt, ", el("kbd", {}, "/"), " search. The address of this page always leads back to what you see."));
}

function answersView(points) {
  const benchmark = chosenBenchmark();
  const hidden = hiddenSeries();
  const sheetOf = (point) => point.sheets.find((sheet) => sheet.benchmark === benchmark.name);
  const all = points.filter(sheetOf).map((point) => ({ point, series: D.jobs[point.job].series, sheet: sheetOf(point) }));
  const shown = all.filter((one) => !hidden.has(one.series)).sort((a, b) => a.series - b.series || a.point.iteration - b.point.iteration);
  const rounds = [...new Set(all.map((one) => one.point.iteration))].sort((a, b) => a - b);
  const asked = address().params.get("r");
  const fallback = [...new Set([-1, rounds[Math.floor(rounds.length / 2)], rounds.at(-1)])].filter((round) => rounds.includes(round));
  const chosen = asked === null ? fallback : asked.split(",").map(Number).filter((round) => rounds.includes(round));
  const fingerprints = [...new Set(all.flatMap((one) => [one.sheet.answers, ...one.sheet.verdicts.map((verdict) => verdict.scores)]))];
  const tokens = (one, q) => { const n = sheets.get(one.sheet.answers)?.n[q]; return n && n.length ? n.reduce((sum, value) => sum + value, 0) : null; };
  const value = (one, q) => sheets.get(one.sheet.verdicts[0]?.scores)?.v[q] ?? null;
  const baseOf = (q, series) => all.find((one) => one.point.iteration === -1 && (series === undefined || one.series === series) && tokens(one, q) !== null) || all.find((one) => one.point.iteration === -1);
  const ends = D.series.map((_, number) => shown.filter((one) => one.series === number).at(-1)).filter(Boolean);
  const baseTokens = (q, series) => { const base = baseOf(q, series); return base ? tokens(base, q) : null; };
  const growth = (q) => Math.max(...ends.map((one) => { const base = baseTokens(q, one.series), end = tokens(one, q); return base === null || end === null ? -Infinity : end - base; }), -Infinity);
  const fall = (q) => Math.max(...ends.map((one) => { const base = baseOf(q, one.series); const from = base && value(base, q), to = value(one, q); return from === null || from === undefined || to === null ? -Infinity : from - to; }), -Infinity);
  const disagreement = (q) => Math.max(...shown.map((one) => apart(verdictsOf(one.sheet, q))), 0);
  const cut = (q) => shown.some((one) => sheets.get(one.sheet.answers)?.x[q]?.some(Boolean));

  function texts(one) {
    const digest = one.sheet.answers;
    if (!lower.has(digest)) lower.set(digest, (sheets.get(digest)?.t || []).map((turns) => turns.join("\n").toLowerCase()));
    return lower.get(digest);
  }

  const item = (q) => {
    const question = benchmark.questions[q];
    const g = growth(q);
    return { id: question.question_id, q, title: question.turns[0] || question.question_id, note: `${question.question_id}${Number.isFinite(g) ? ` · longest growth ${g > 0 ? "+" : ""}${show(g, 0)} tokens` : ""}` };
  };
  return {
    fingerprints,
    total: benchmark.questions.length,
    texts: new Set(shown.map((one) => one.sheet.answers)).size * benchmark.questions.length,
    items(words, filter) {
      const searched = [...new Map(shown.map((one) => [one.sheet.answers, one])).values()];
      let found = benchmark.questions.map((_, q) => q).filter((q) => !words || benchmark.questions[q].turns.join("\n").toLowerCase().includes(words) || benchmark.questions[q].question_id.toLowerCase().includes(words) || searched.some((one) => (texts(one)[q] || "").includes(words)));
      const by = (score) => { const keyed = found.map((q) => [score(q), q]); return keyed.sort((a, b) => b[0] - a[0] || a[1] - b[1]).map(([, q]) => q); };
      if (filter === "growth") found = by(growth);
      if (filter === "truncated") found = found.filter(cut);
      if (filter === "disagree") { found = found.filter((q) => disagreement(q) > 0); found = by(disagreement); }
      if (filter === "worse") { found = found.filter((q) => fall(q) > 0); found = by(fall); }
      return found.map(item);
    },
    byId: (id) => { const q = benchmark.questions.findIndex((question) => question.question_id === id); return q < 0 ? null : item(q); },
    controls: [select("Benchmark", "b", D.benchmarks.map((one) => [one.name, one.title]), benchmark.name, (name) => change({ b: name, q: null }))],
    chips: [seriesChips(), el("div", { class: "chips plain", role: "group", "aria-label": "Rounds shown" }, el("span", { class: "quiet" }, "Rounds"), rounds.map((round) =>
      el("button", { type: "button", "data-key": `round${round}`, "aria-pressed": String(chosen.includes(round)), onclick: () => {
        const next = chosen.includes(round) ? chosen.filter((other) => other !== round) : [...chosen, round];
        change({ r: next.sort((a, b) => a - b).join(",") || "none" });
      } }, roundName(round))))],
    detail({ q, id }) {
      const turns = benchmark.questions[q].turns;
      return [el("h3", {}, el("bdi", {}, id)), turns.length ? conversation(turns.map((turn) => ["user", turn])) : el("p", { class: "quiet" }, "The question’s text is not on the machine that made this page."), markKey(),
        el("div", { class: "rows" }, chosen.map((round) => {
          const row = shown.filter((one) => one.point.iteration === round);
          const same = round === -1 && new Set(row.map((one) => one.sheet.answers)).size === 1;
          const cards = same ? [answerCard("base model", "base", row[0].sheet, q, null)] : row.map((one) => answerCard(D.series[one.series].name, `s${one.series}`, one.sheet, q, round === -1 ? null : baseTokens(q, one.series)));
          return el("section", { class: "row", "aria-label": `round ${roundName(round)}` }, el("h3", {}, round === -1 ? "Base model" : `After round ${roundName(round)}`), el("div", { class: "cards" }, cards));
        }))];
    },
  };
}

/** How far two judges lie apart: preferences on opposite sides of a tie, or ratings three points apart and more. */
function apart(verdicts) {
  const means = verdicts.map(({ replies }) => {
    const values = known(replies.map((reply) => reply[2]));
    return values.length ? [mean(values), replies[0][1] === "single"] : null;
  }).filter(Boolean);
  let most = 0;
  for (let i = 1; i < means.length; i += 1) {
    const gap = Math.abs(means[i][0] - means[0][0]);
    const opposite = (means[i][0] - 0.5) * (means[0][0] - 0.5) < 0;
    if (means[0][1] === means[i][1] && (means[0][1] ? gap >= 3 : opposite)) most = Math.max(most, gap);
  }
  return most;
}

function trainingView(points) {
  const params = address().params;
  const withPairs = points.filter((point) => point.pairs && point.pairs in D.chunks);
  const jobs = [...new Set(withPairs.map((point) => point.job))];
  const job = jobs.includes(Number(params.get("j") ?? NaN)) ? Number(params.get("j")) : jobs[0];
  const rounds = withPairs.filter((point) => point.job === job);
  const asked = Number((params.get("r") ?? "x").split(",").at(-1));
  const point = rounds.find((one) => one.iteration === asked) || rounds.at(-1);
  const rows = () => (point && sheets.get(point.pairs)) || [];
  const lengths = (row) => (row.w === null || row.l === null ? -Infinity : row.c[row.w][1] - row.c[row.l][1]);
  const against = (row) => { // gold lost by taking the ranker's best instead of the truth's
    if (!D.marked || row.w === null) return 0;
    const golds = row.c.map((candidate) => gold(candidate[4], row.a));
    return row.l === null ? 0 : golds[row.l] - golds[row.w];
  };
  const item = (row) => ({ id: row.i, row, title: row.p.at(-1)?.[1] || row.i, note: `${row.s}${row.w === null ? " · no pair" : ` · chosen ${row.c[row.w][1]}, rejected ${row.l === null ? "–" : row.c[row.l][1]} tokens`}` });
  return {
    fingerprints: point ? [point.pairs] : [],
    get total() { return rows().length; },
    get texts() { return rows().reduce((sum, row) => sum + row.c.length, 0); },
    items(words, filter) {
      let found = rows().filter((row) => !words || row.p.some((message) => message[1].toLowerCase().includes(words)) || row.c.some((candidate) => candidate[0].toLowerCase().includes(words)));
      if (filter === "growth") found = [...found].sort((a, b) => lengths(b) - lengths(a));
      if (filter === "truncated") found = found.filter((row) => row.c.some((candidate) => candidate[2]));
      if (filter === "disagree") found = found.filter((row) => against(row) > 0).sort((a, b) => against(b) - against(a));
      if (filter === "nopair") found = found.filter((row) => row.w === null);
      return found.map(item);
    },
    byId: (id) => { const row = rows().find((one) => one.i === id); return row ? item(row) : null; },
    controls: [select("Objective", "j", jobs.map((number) => [number, D.series[D.jobs[number].series].name]), job, (number) => change({ j: number, q: null })),
      select("Round", "r", rounds.map((one) => [one.iteration, roundName(one.iteration)]), point?.iteration, (round) => change({ r: round, q: null }))],
    chips: null,
    detail({ row }) {
      const order = row.c.map((candidate, place) => [candidate[3], place]).sort((a, b) => (b[0] ?? -Infinity) - (a[0] ?? -Infinity) || a[1] - b[1]).map(([, place]) => place);
      return [el("h3", {}, el("bdi", {}, row.i)), conversation(row.p), markKey(),
        row.w === null ? el("p", { class: "note" }, "This prompt gave no pair.") : null,
        el("div", { class: "cards" }, order.map((place, rank) => candidateCard(row, place, rank + 1)))];
    },
  };
}
