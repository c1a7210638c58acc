// Plots over length and rounds, and the curves of training.

const scoreOf = (point, benchmark) => point.scores.find((score) => score.benchmark === benchmark);

/** Points of one round; a base model that several jobs share once, as in the tables. */
const distinct = (points) => [...new Map(points.map((point) =>
  [point.iteration === -1 ? JSON.stringify([D.jobs[point.job].base_seed, point.scores]) : point.job, point])).values()];

/** Per series and round: the points of its jobs. */
function grouped() {
  const hidden = hiddenSeries();
  return D.series.map((series, number) => {
    const rounds = new Map();
    if (!hidden.has(number)) for (const point of D.points) {
      if (D.jobs[point.job].series !== number) continue;
      if (!rounds.has(point.iteration)) rounds.set(point.iteration, []);
      rounds.get(point.iteration).push(point);
    }
    return { number, series, rounds: [...rounds.entries()].sort((a, b) => a[0] - b[0]) };
  });
}

/** A plot of one quantity over rounds: the mean over seeds, a thin line for each. */
function overRounds(title, yName, value, open) {
  const lines = [], dots = [];
  for (const { number, series, rounds } of grouped()) {
    const jobs = new Map();
    const means = [];
    for (const [iteration, points] of rounds) {
      const values = points.map((point) => [point, value(point)]).filter(([, v]) => Number.isFinite(v));
      if (!values.length) continue;
      for (const [point, v] of values) {
        if (!jobs.has(point.job)) jobs.set(point.job, []);
        jobs.get(point.job).push([iteration, v]);
      }
      const counted = distinct(values.map(([point]) => point)).map(value);
      const m = mean(counted);
      means.push([iteration, m]);
      const spread = counted.length > 1 ? ` ± ${show(sd(counted))} (sd, ${counted.length} ${iteration === -1 ? "base models or seeds" : "seeds"})` : "";
      dots.push({ x: iteration, y: m, cls: `s${number}`, r: 4, tip: `${series.name}\nround ${roundName(iteration)}\n${yName}: ${show(m)}${spread}`, href: open && open(iteration, number) });
    }
    if (jobs.size > 1) for (const points of jobs.values()) lines.push({ cls: `s${number}`, style: "line thin", points });
    lines.push({ cls: `s${number}`, points: means });
  }
  return dots.length ? plot({ title, xName: "round", yName, lines, dots, whole: true, xLabel: roundName, height: 260 }) : null;
}

function lengthAgainstScore(benchmark) {
  const lines = [], dots = [];
  let base = null;
  for (const { number, series, rounds } of grouped()) {
    const path = [];
    for (const [iteration, points] of rounds) {
      const scores = distinct(points).map((point) => [point, scoreOf(point, benchmark.name)]).filter(([, s]) => s && s.score !== null && s.length !== null);
      if (!scores.length) continue;
      const x = mean(scores.map(([, s]) => s.length)), y = mean(scores.map(([, s]) => s.score));
      path.push([x, y]);
      const isBase = iteration === -1;
      if (scores.length > 1) for (const [, s] of scores) dots.push({ x: s.length, y: s.score, cls: isBase ? "base" : `s${number}`, style: "seed", r: 2 });
      const single = scores.length === 1 ? scores[0][1] : null;
      const detail = scores.length > 1 ? `mean of ${scores.length} ${isBase ? "base models or seeds" : "seeds"}` : D.jobs[scores[0][0].job].replicate;
      const interval = single && single.low !== null ? ` (95 %: ${show(single.low)} to ${show(single.high)})` : "";
      const dot = {
        x, y, cls: isBase ? "base" : `s${number}`, r: 4 + (iteration === rounds.at(-1)[0] ? 2 : 0), low: single?.low ?? NaN, high: single?.high ?? NaN,
        end: iteration === rounds.at(-1)[0] ? series.name : "",
        tip: `${isBase ? "base model" : series.name}, round ${roundName(iteration)}\n${benchmark.score_name}: ${show(y)}${interval}\n${benchmark.length_name}: ${show(x)}\n${detail}; open its samples`,
        href: link("samples", { b: benchmark.name, r: isBase ? "-1" : `-1,${iteration}`, seed: D.jobs[scores[0][0].job].replicate }),
      };
      if (!isBase) dots.push(dot); else base = base || dot;
    }
    lines.push({ cls: `s${number}`, style: "path", points: path });
  }
  if (base) dots.push({ ...base, end: "" });
  return plot({ title: "Length against score", xName: benchmark.length_name, yName: benchmark.score_name, lines, dots, big: true, height: 430 });
}

function chosenBenchmark() {
  const order = ["gold", "alpaca_eval", "arena_hard", "mt_bench"];
  const named = D.benchmarks.find((benchmark) => benchmark.name === address().params.get("b"));
  return named || order.map((name) => D.benchmarks.find((benchmark) => benchmark.name === name)).find(Boolean) || D.benchmarks[0];
}

function drawOverview() {
  const benchmark = chosenBenchmark();
  if (!benchmark) { fill($("charts"), el("p", {}, "No benchmark was scored yet.")); return; }
  const samples = (name) => (iteration) => link("samples", { b: name, r: iteration === -1 ? "-1" : `-1,${iteration}` });
  const goldBenchmark = D.benchmarks.find((one) => one.name === "gold");
  const score = (name, key) => (point) => scoreOf(point, name)?.[key] ?? NaN;
  const other = benchmark.name === "gold" ? null : goldBenchmark;
  const proxied = D.benchmarks.find((one) => D.points.some((point) => Number.isFinite(scoreOf(point, one.name)?.proxy ?? NaN)));
  fill($("charts"),
    el("h2", {}, "Plots"),
    el("div", { class: "controls" }, select("Benchmark", "b", D.benchmarks.map((one) => [one.name, one.title]), benchmark.name)),
    seriesChips(),
    D.jobs.some((job) => job.status !== "done") && el("p", { class: "note" }, "Not all jobs are done: later rounds are means over fewer seeds."),
    el("p", { class: "note" }, "A marker is the mean over seeds after one round, the largest after the last; small dots and thin lines are single seeds. Choose a marker to read its samples: click, or Tab to the plot, arrow keys, Enter."),
    lengthAgainstScore(benchmark),
    el("div", { class: "grid" },
      overRounds(`Length: ${benchmark.title}`, benchmark.length_name, score(benchmark.name, "length"), samples(benchmark.name)),
      overRounds(`Score: ${benchmark.title}`, benchmark.score_name, score(benchmark.name, "score"), samples(benchmark.name)),
      other && overRounds(`Gold: ${other.title}`, other.score_name, score("gold", "score"), samples("gold")),
      proxied && overRounds(`Proxy: what the ranker gives the answers to ${proxied.title}`, "ranker’s mean score", score(proxied.name, "proxy"), samples(proxied.name)),
      overRounds("KL from the base model", "KL (nats per completion)", (point) => point.kl ?? NaN),
      overRounds("KL from the round before", "KL (nats per completion)", (point) => point.kl_previous ?? NaN),
      overRounds("Training pairs: how much longer the chosen side is", "chosen − rejected (tokens)", (point) => (point.chosen_tokens === null || point.rejected_tokens === null ? NaN : point.chosen_tokens - point.rejected_tokens)),
      overRounds("Training pairs kept", "pairs", (point) => point.n_pairs ?? NaN)));
}

const CURVES = {
  reward_margin: ["Reward margin", "chosen − rejected reward"], reward_accuracy: ["Reward accuracy", "pairs with chosen above rejected"],
  reference_agreement: ["Reference agreement", "pairs the reference orders alike"], loss: ["Loss", "loss per pair"],
  chosen_reward: ["Chosen reward", "reward"], rejected_reward: ["Rejected reward", "reward"], grad_norm: ["Gradient norm", "norm"],
  chosen_tokens: ["Chosen length", "tokens"], rejected_tokens: ["Rejected length", "tokens"], learning_rate: ["Learning rate", "rate"],
};

function drawTraining() {
  const curves = new Map(D.curves.map((curve) => [curve.train, curve.values]));
  const params = address().params;
  const smooth = params.get("by") !== "step";
  const plots = Object.entries(CURVES).map(([key, [title, yName]]) => {
    if (smooth) return overRounds(title, yName, (point) => { const values = known(curves.get(point.train)?.[key] || []); return values.length ? mean(values) : NaN; });
    const lines = [];
    for (const { number, rounds } of grouped()) {
      const jobs = new Map();
      for (const [iteration, points] of rounds) for (const point of points) {
        const values = curves.get(point.train)?.[key];
        if (!values) continue;
        if (!jobs.has(point.job)) jobs.set(point.job, []);
        values.forEach((value, step) => { if (value !== null) jobs.get(point.job).push([iteration + step / values.length, value]); });
      }
      const single = jobs.size === 1;
      for (const points of jobs.values()) lines.push({ cls: `s${number}`, style: single ? "line" : "line thin", points });
    }
    return lines.some((line) => line.points.length) ? plot({ title, xName: "round", yName, lines, dots: [], whole: true, height: 260 }) : null;
  });
  fill($("view-training"), el("h2", {}, "Training curves"),
    el("div", { class: "controls" }, select("A value per", "by", [["round", "round (mean over its steps)"], ["step", "optimizer step"]], smooth ? "round" : "step")),
    seriesChips(), plots.some(Boolean) ? el("div", { class: "grid" }, plots) : el("p", {}, "No training was logged, or all is hidden."));
}
