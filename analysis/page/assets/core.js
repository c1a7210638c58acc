"use strict";
// Data, helpers and the address. Everything that models, configs or errors wrote reaches the page as text nodes only.

async function unpack(id) {
  const packed = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function el(tag, attributes, ...children) {
  const svg = ["svg", "g", "path", "circle", "line", "text", "rect", "polyline", "title"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const $ = (id) => document.getElementById(id);
const say = (text) => { $("status").textContent = text; };
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const known = (values) => values.filter((value) => value !== null && value !== undefined);
// Iterations count from 0, as in files and addresses; for people rounds count from 1.
const roundName = (iteration) => (iteration === -1 ? "base" : String(iteration + 1));
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

function sd(values) {
  if (values.length < 2) return 0;
  const m = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - m) ** 2, 0) / (values.length - 1));
}

function show(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const places = digits ?? (size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.01 || size === 0 ? 3 : 5);
  return value.toFixed(places).replace("-", "−");
}

// The address: `#view?key=value&...`. It alone says what is shown, so that every view has a link and Back works.
const VIEWS = { overview: "Overview", training: "Training", samples: "Samples", tables: "Tables", config: "Config", provenance: "Provenance" };

function address() {
  const [view, query] = location.hash.slice(1).split("?");
  return { view: Object.hasOwn(VIEWS, view) ? view : "overview", params: new URLSearchParams(query || "") };
}

function link(view, params) {
  const query = new URLSearchParams(Object.entries(params || {}).filter(([, value]) => value !== null && value !== undefined && value !== "")).toString();
  return `#${view}${query ? `?${query}` : ""}`;
}

/** Change some keys of the address; `push` makes a step that Back undoes. */
function change(keys, push) {
  const { view, params } = address();
  for (const [key, value] of Object.entries(keys)) {
    if (value === null || value === "") params.delete(key); else params.set(key, value);
  }
  const query = params.toString();
  history[push ? "pushState" : "replaceState"](null, "", `#${view}${query ? `?${query}` : ""}`);
  draw();
}

let D = null; // the overview, as analysis.page.views.Overview

const hiddenSeries = () => new Set((address().params.get("hide") || "").split(",").filter(Boolean).map(Number));

function seriesChips() {
  const hidden = hiddenSeries();
  return el("div", { class: "chips", role: "group", "aria-label": "Objectives shown" }, D.series.map((series, number) =>
    el("button", {
      type: "button", class: `s${number}`, "aria-pressed": String(!hidden.has(number)), "data-key": `series${number}`,
      onclick: () => {
        if (hidden.has(number)) hidden.delete(number); else hidden.add(number);
        change({ hide: [...hidden].sort((a, b) => a - b).join(",") });
      },
    }, el("span", { class: "swatch" }), series.name)));
}

function select(label, key, options, value, onchange) {
  const box = el("select", { "data-key": key, onchange: (event) => (onchange ? onchange(event.target.value) : change({ [key]: event.target.value })) },
    options.map(([id, name]) => el("option", { value: id, selected: String(id) === String(value) }, name)));
  return el("label", {}, label, box);
}

/** Replace a view's content without losing the keyboard's place in it. */
function fill(target, ...children) {
  const active = document.activeElement;
  const key = target.contains(active) ? active.getAttribute("data-key") : null;
  const range = key && active.tagName === "INPUT" ? [active.selectionStart, active.selectionEnd] : null;
  const scrolled = [...target.querySelectorAll("[data-scroll]")].map((node) => [node.dataset.scroll, node.scrollTop]);
  target.replaceChildren(...children.flat().filter(Boolean));
  for (const [name, top] of scrolled) {
    const node = target.querySelector(`[data-scroll="${name}"]`);
    if (node) node.scrollTop = top;
  }
  if (!key) return;
  const again = [...target.querySelectorAll("[data-key]")].find((node) => node.getAttribute("data-key") === key);
  if (again) {
    again.focus({ preventScroll: true });
    if (range) again.setSelectionRange(...range);
  }
}
