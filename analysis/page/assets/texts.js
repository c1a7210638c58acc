// Model text: shown as it is, controls that would hide or reorder it made visible, sentences marked in the miniature.

const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]/gu;
const SENTENCE = /[^.!?\n]*[.!?]|[^.!?\n]+/g;
const SHOWN = 4000;
const MARKS = { r: "right", t: "true, not asked for", w: "wrong", f: "filler", n: "nonsense", d: "repeated" };

function plain(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(CONTROLS)) {
    parts.push(text.slice(from, match.index));
    const code = `U+${match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    parts.push(el("span", { class: "control", title: `control character ${code}` }, code));
    from = match.index + match[0].length;
  }
  parts.push(text.slice(from));
  return parts;
}

function marked(text, marks) {
  const found = marks ? [...text.matchAll(SENTENCE)] : [];
  if (!found.length || found.length !== marks.length) return plain(text);
  const parts = [];
  let from = 0;
  found.forEach((match, i) => {
    const lead = match[0].length - match[0].trimStart().length;
    parts.push(...plain(text.slice(from, match.index + lead)));
    const kind = MARKS[marks[i]];
    const inner = plain(match[0].slice(lead));
    parts.push(...(kind ? [el("mark", { class: marks[i], title: kind }, inner)] : inner));
    from = match.index + match[0].length;
  });
  parts.push(...plain(text.slice(from)));
  return parts;
}

/** A block with the text; of a long one the beginning, and a button for the rest. */
function textBlock(text, marks) {
  const block = el("div", { class: "text", dir: "auto" });
  if (text.length <= SHOWN) {
    block.append(...(text ? marked(text, marks) : [el("i", { class: "quiet" }, "(empty)")]));
    return block;
  }
  let end = SHOWN;
  if (text.charCodeAt(end - 1) >= 0xd800 && text.charCodeAt(end - 1) < 0xdc00) end += 1;
  block.append(...plain(text.slice(0, end)), "… ");
  block.append(el("button", { type: "button", onclick: () => block.replaceChildren(...marked(text, marks)) },
    `show all ${text.length.toLocaleString("en")} characters`));
  return block;
}

function markKey() {
  if (!D.marked) return null;
  return el("p", { class: "key text-key" }, Object.entries(MARKS).map(([code, name]) => el("mark", { class: code }, name)));
}

/** Gold quality from the marks: (right - wrong - nonsense) / asked, in [-1, 1]. */
function gold(marks, asked) {
  const count = (code) => marks.split(code).length - 1;
  const value = (count("r") - count("w") - count("n")) / Math.max(asked, 1);
  return Math.max(-1, Math.min(1, value));
}

// Texts lie in chunks, unpacked when somebody looks.
const chunks = new Map();
const sheets = new Map();

async function need(fingerprints) {
  const places = new Set(fingerprints.map((digest) => D.chunks[digest]).filter((place) => place !== undefined));
  await Promise.all([...places].map((place) => {
    if (!chunks.has(place)) {
      chunks.set(place, unpack(`chunk-${place}`).then((content) => {
        for (const [digest, sheet] of Object.entries(content)) sheets.set(digest, sheet);
        $(`chunk-${place}`).textContent = "";
      }));
    }
    return chunks.get(place);
  }));
}
