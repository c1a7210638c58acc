// One answer, one candidate.

const verdictValue = (value, order) => (value === null ? "unscored" : order === "single" ? show(value) : `${show(100 * value, 0)} % for the policy`);

/** What each judge said of the answer to question `q`: [name, value, [[turn, order, value, reply]]]. */
function verdictsOf(sheet, q) {
  return sheet.verdicts.map((source) => {
    const found = sheets.get(source.scores);
    return { judge: source.judge, diagnostic: source.diagnostic, value: found?.v[q] ?? null, replies: found?.j[q] || [] };
  });
}

function verdictList(verdicts) {
  const list = el("dl", {});
  for (const { judge, diagnostic, value, replies } of verdicts) {
    const values = replies.map(([turn, order, v]) => `${replies.some((reply) => reply[0] > 1) ? `turn ${turn}: ` : ""}${verdictValue(v, order)}`);
    list.append(el("dt", {}, judge + (diagnostic ? " (diagnostic)" : "")), el("dd", {}, value === null ? [...new Set(values)].join("; ") || "–" : `${show(value)}${values.length > 1 ? ` (${values.join("; ")})` : ""}`));
  }
  const said = verdicts.flatMap(({ judge, replies }) => replies.filter((reply) => reply[3]).map((reply) => [judge, reply]));
  if (!said.length) return [list];
  return [list, el("details", {}, el("summary", {}, "What the judges wrote"), said.map(([judge, [turn, order, , reply]]) =>
    el("div", {}, el("span", { class: "quiet" }, `${judge}, turn ${turn}, ${order.replaceAll("_", " ")}: `), textBlock(reply, ""))))];
}

function answerCard(title, cls, sheet, q, baseTokens) {
  const answers = sheets.get(sheet.answers);
  if (!answers || !answers.t[q].length) return el("article", { class: `card ${cls}` }, el("h4", {}, title), el("p", { class: "quiet" }, "no answer"));
  const tokens = answers.n[q].reduce((sum, n) => sum + n, 0);
  const growth = baseTokens !== null && tokens !== baseTokens ? ` (${tokens > baseTokens ? "+" : "−"}${Math.abs(tokens - baseTokens)})` : "";
  return el("article", { class: `card ${cls}`, "aria-label": title },
    el("h4", {}, el("span", {}, title), el("span", { class: "quiet" }, `${tokens} tokens${growth}`)),
    answers.t[q].map((text, turn) => [answers.t[q].length > 1 ? el("div", { class: "quiet" }, `turn ${turn + 1}`) : null, textBlock(text, answers.m[q][turn] || "")]).flat(),
    answers.x[q].some(Boolean) ? el("span", { class: "tag" }, "cut at the token limit") : null,
    verdictList(verdictsOf(sheet, q)));
}

function candidateCard(prompt, place, rank) {
  const [text, tokens, cut, score, marks] = prompt.c[place];
  const role = place === prompt.w ? "chosen" : place === prompt.l ? "rejected" : "";
  const truth = marks ? [el("dt", {}, "gold"), el("dd", {}, show(gold(marks, prompt.a)))] : [];
  const title = `rank ${rank}${role ? `: ${role}` : ""}`;
  return el("article", { class: `card ${role}`, "aria-label": title },
    el("h4", {}, el("span", {}, title), el("span", { class: "quiet" }, `${tokens} tokens`)), textBlock(text, marks),
    cut ? el("span", { class: "tag" }, "cut at the token limit") : null,
    el("dl", {}, el("dt", {}, "ranker"), el("dd", {}, show(score)), ...truth));
}

function conversation(messages) {
  return el("div", { class: "prompt" }, messages.map(([role, content]) => el("div", {}, messages.length > 1 || role !== "user" ? el("span", { class: "quiet" }, `${role}: `) : null, textBlock(content, ""))));
}
