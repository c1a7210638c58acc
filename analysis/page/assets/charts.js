// Plots as SVG: a point can be hovered, reached with the arrow keys, and opened.

/** As wide as its place on the screen, so that its letters keep their size. */
function plotWidth(big) {
  const room = Math.max(300, $("main").clientWidth - 40);
  const columns = big ? 1 : Math.max(1, Math.floor((room + 26) / 406));
  return Math.min(1100, Math.floor((room - 26 * (columns - 1)) / columns));
}

function ticks(low, high, wanted) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / wanted));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => span / size <= wanted) || 10 * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * span; k += 1) found.push(Number((k * step).toPrecision(10)));
  return found;
}

/** A tick's label: small numbers by their power, as there is room for five characters. */
function shortNumber(value) {
  const text = value !== 0 && Math.abs(value) < 0.001 ? value.toExponential() : String(value);
  return text.replaceAll("-", "−");
}

/**
 * A plot. `lines`: [{cls, style, points: [[x, y]]}] drawn under `dots`: [{x, y, cls, r, label, tip, href, low, high, end}].
 * `whole` puts ticks at whole x only. Dots with an href can be opened.
 */
function plot({ title, xName, yName, lines, dots, height = 300, whole = false, xLabel = String, big = false }) {
  const all = [...lines.flatMap((line) => line.points), ...dots.flatMap((dot) => [dot.y, dot.low, dot.high].map((y) => [dot.x, y]))].filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
  const figure = el("figure", {}, el("figcaption", {}, title));
  if (!all.length) {
    figure.append(el("p", { class: "quiet" }, "Nothing measured, or all hidden."));
    return figure;
  }
  const width = plotWidth(big);
  const [left, right, top, bottom] = [58, 14, 10, 42];
  const range = (values) => { const low = Math.min(...values), high = Math.max(...values), pad = (high - low || Math.abs(high) || 1) * 0.05; return [low - pad, high + pad]; };
  const bounds = all.reduce((b, [x, y]) => [Math.min(b[0], x), Math.max(b[1], x), Math.min(b[2], y), Math.max(b[3], y)], [Infinity, -Infinity, Infinity, -Infinity]);
  const [x0, x1] = range([bounds[0], bounds[1]]);
  const [y0, y1] = range([bounds[2], bounds[3]]);
  const X = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - right);
  const Y = (y) => height - bottom - ((y - y0) / (y1 - y0)) * (height - top - bottom);
  const at = ([x, y]) => `${X(x).toFixed(1)},${Y(y).toFixed(1)}`;
  const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${title}: ${yName} against ${xName}` });
  for (const y of ticks(y0, y1, 5)) svg.append(el("line", { class: "axis", x1: left, x2: width - right, y1: Y(y), y2: Y(y) }), el("text", { x: left - 7, y: Y(y) + 4, "text-anchor": "end" }, shortNumber(y)));
  for (const x of ticks(x0, x1, Math.max(4, width / 90)).filter((tick) => !whole || Number.isInteger(tick))) svg.append(el("text", { x: X(x), y: height - bottom + 17, "text-anchor": "middle" }, xLabel(x)));
  svg.append(el("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, xName));
  svg.append(el("text", { transform: `translate(13,${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yName));
  for (const line of lines) {
    const points = line.points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
    if (points.length > 1) svg.append(el("polyline", { class: `${line.cls} ${line.style || "line"}`, points: points.map(at).join(" ") }));
  }
  const [open, names] = [[], []];
  for (const dot of dots.filter((one) => Number.isFinite(one.x) && Number.isFinite(one.y))) {
    if (Number.isFinite(dot.low)) svg.append(el("line", { class: `${dot.cls} bar`, x1: X(dot.x), x2: X(dot.x), y1: Y(dot.low), y2: Y(dot.high) }));
    const circle = el("circle", { class: `${dot.cls} ${dot.style || "dot"} ${dot.href ? "link" : ""}`, cx: X(dot.x).toFixed(1), cy: Y(dot.y).toFixed(1), r: dot.r || 5 });
    if (dot.end) {
      const name = { x: X(dot.x) + 8, y: Y(dot.y) + 4, width: 8 * dot.end.length };
      const covers = (other) => Math.abs(other.y - name.y) < 15 && name.x < other.x + other.width && other.x < name.x + name.width;
      while (names.some(covers)) name.y += 15; // lines that end in one place have their names below each other
      names.push(name);
      svg.append(el("text", { class: "end", x: name.x, y: name.y }, dot.end));
    }
    if (dot.tip) {
      circle.setAttribute("role", dot.href ? "link" : "img");
      circle.setAttribute("aria-label", dot.tip.replaceAll("\n", ", "));
      circle.addEventListener("pointerenter", (event) => tip(dot.tip, event.clientX, event.clientY));
      circle.addEventListener("pointerleave", () => tip(null));
      if (dot.href) circle.addEventListener("click", () => { tip(null); location.hash = dot.href; });
      open.push({ circle, dot });
    }
    svg.append(circle);
  }
  walkable(svg, open);
  figure.append(svg);
  return figure;
}

/** One tab stop for a plot; the arrow keys go from point to point, Enter opens. */
function walkable(svg, open) {
  if (!open.length) return;
  let current = -1;
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" && current >= 0 && open[current].dot.href) { tip(null); location.hash = open[current].dot.href; }
    if (event.key === "Escape") tip(null);
    if (!step) return;
    event.preventDefault();
    if (current >= 0) open[current].circle.classList.remove("here");
    current = (current + step + open.length) % open.length;
    const { circle, dot } = open[current];
    circle.classList.add("here");
    const box = circle.getBoundingClientRect();
    tip(dot.tip, box.right, box.bottom);
    say(dot.tip.replaceAll("\n", ", "));
  });
  svg.addEventListener("blur", () => { tip(null); if (current >= 0) open[current].circle.classList.remove("here"); });
}

function tip(text, x, y) {
  const box = $("tip");
  box.hidden = !text;
  if (!text) return;
  box.textContent = text;
  box.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${Math.max(4, Math.min(y + 12, innerHeight - box.offsetHeight - 8))}px`;
}
