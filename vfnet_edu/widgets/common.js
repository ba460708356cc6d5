// What all explorers share: building elements, controls bound to the model, handles, the frame of a plot.
// Text from outside only ever becomes textContent or an attribute, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes))
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  element.append(...children.map((c) => (typeof c === "object" ? c : String(c))));
  return element;
}

/** An HTML element: html("p", {class: "note"}, "text", child, ...) */
export const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
/** An SVG element, in the same way. */
export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);
/** Set several attributes at once. */
export const set = (element, attributes) => fill(element, attributes, []);
export const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
/** 1234.5 -> "1,234.5": the same in every browser's language */
export const number = (x, digits = 2) => {
  const [whole, rest] = Math.abs(x).toFixed(digits).split(".");
  const sign = x < 0 && Number(Math.abs(x).toFixed(digits)) !== 0 ? "−" : "";
  return sign + whole.replace(/\B(?=(\d{3})+$)/g, ",") + (rest ? `.${rest}` : "");
};

/** The panel of an explorer with its name for screen readers, and the line that puts into words what it shows. */
export function panel(el, name) {
  const root = html("section", { class: "ve", role: "group", "aria-label": name });
  const says = html("p", { class: "ve-says", "aria-live": "polite" });
  el.append(root);
  return { root, says };
}

/** Call `draw` now and whenever one of `keys` changes; returns the function that stops it. */
export function follow(model, keys, draw) {
  for (const key of keys) model.on(`change:${key}`, draw);
  draw();
  return () => keys.forEach((key) => model.off(`change:${key}`, draw));
}

export function write(model, key, value) {
  model.set(key, value);
  model.save_changes();
}

/** A slider bound to a number of the model, with its label and value. `show` turns the value into text. */
export function slider(model, key, { label, min, max, step, show = (v) => number(v, 2), stops = [] }) {
  const output = html("output");
  const input = html("input", { type: "range", min, max, step, "aria-label": label });
  const text = html("span", {}, `${label} `, output);
  const control = html("div", { class: "ve-control" }, text, input);
  input.addEventListener("input", () => write(model, key, Number(input.value)));
  const draw = () => {
    input.value = model.get(key);
    output.textContent = show(model.get(key));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  stops.push(follow(model, [key], draw));
  return control;
}

let groups = 0;
/** A choice among a few, bound to a value of the model. options: [[value, text], ...] */
export function choice(model, key, { label, options, stops = [] }) {
  const name = `ve-choice-${++groups}-${Math.random().toString(36).slice(2)}`;
  const fieldset = html("fieldset", { class: "ve-choice" }, html("legend", {}, label));
  const inputs = options.map(([value, text]) => {
    const input = html("input", { type: "radio", name });
    input.addEventListener("change", () => write(model, key, value));
    fieldset.append(html("label", {}, input, text));
    return [value, input];
  });
  const draw = () => {
    for (const [value, input] of inputs) input.checked = model.get(key) === value;
  };
  stops.push(follow(model, [key], draw));
  return fieldset;
}

/** Pointer position in the coordinates of an <svg>'s viewBox. */
export function position(svgElement, event) {
  const box = svgElement.getBoundingClientRect();
  const view = svgElement.viewBox.baseVal;
  return [
    view.x + ((event.clientX - box.left) / box.width) * view.width,
    view.y + ((event.clientY - box.top) / box.height) * view.height,
  ];
}

/** Call `done` however a press on the element ends. */
export function onRelease(element, done) {
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(end, done);
}

/**
 * Make an SVG element draggable by mouse and touch, and movable by arrow keys (with Shift: ten steps).
 * drag(x, y) receives viewBox coordinates; nudge(dx, dy) receives steps of the keys: -1, 0, 1 or tenfold.
 * The caller sets aria-valuenow / aria-valuetext when it redraws.
 */
export function draggable(element, svgElement, { label, drag, nudge, role = "slider" }) {
  set(element, { tabindex: 0, role, "aria-label": label });
  element.classList.add("ve-handle");
  let held = null; // where on the element it was grabbed, so that it does not jump
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    const box = element.getBoundingClientRect();
    const frame = svgElement.getBoundingClientRect();
    const view = svgElement.viewBox.baseVal;
    const [x, y] = position(svgElement, event);
    const scale = view.width / frame.width;
    const centre = [
      view.x + (box.left + box.width / 2 - frame.left) * scale,
      view.y + (box.top + box.height / 2 - frame.top) * scale,
    ];
    held = [x - centre[0], y - centre[1]];
    element.focus({ preventScroll: true });
    event.preventDefault();
  });
  element.addEventListener("pointermove", (event) => {
    if (!held) return;
    const [x, y] = position(svgElement, event);
    drag(x - held[0], y - held[1]);
  });
  onRelease(element, () => (held = null));
  element.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    const step = event.shiftKey ? 10 : 1;
    nudge(way[0] * step, way[1] * step);
    event.preventDefault();
  });
  return element;
}

/**
 * The frame of a plot: axes, ticks and titles; returns the group to draw into and the two scales.
 * x, y: {range: [low, high], ticks: [...], label, show}
 */
export function plot({ width, height, x, y, left = 44, bottom = 38, top = 10, right = 10 }) {
  const X = (v) => left + ((v - x.range[0]) / (x.range[1] - x.range[0])) * (width - left - right);
  const Y = (v) => height - bottom - ((v - y.range[0]) / (y.range[1] - y.range[0])) * (height - top - bottom);
  const group = svg("g");
  const line = (x1, y1, x2, y2) => group.append(svg("line", { x1, y1, x2, y2, stroke: "var(--ve-line)" }));
  const text = (words, where) => group.append(svg("text", { "text-anchor": "middle", ...where }, words));
  for (const t of y.ticks) {
    line(left, Y(t), width - right, Y(t));
    text((y.show ?? String)(t), { x: left - 6, y: Y(t) + 4, "text-anchor": "end" });
  }
  for (const t of x.ticks) {
    line(X(t), height - bottom, X(t), height - bottom + 4);
    text((x.show ?? String)(t), { x: X(t), y: height - bottom + 17 });
  }
  line(left, height - bottom, width - right, height - bottom);
  if (x.label) text(x.label, { x: (left + width - right) / 2, y: height - 4 });
  if (y.label) text(y.label, { transform: `translate(11 ${(top + height - bottom) / 2}) rotate(-90)` });
  return { group, X, Y };
}

/** How a loss is drawn, always in this order: the strokes of vfnet_edu/viz/chapters.py. */
export const LOOK = {
  FL: { stroke: "var(--ve-orange)", "stroke-width": 2.5, "stroke-dasharray": "2 4" },
  "VFL 0/1": { stroke: "var(--ve-pink)", "stroke-width": 2.5, "stroke-dasharray": "8 3 2 3" },
  QFL: { stroke: "var(--ve-green)", "stroke-width": 2.5, "stroke-dasharray": "7 4" },
  VFL: { stroke: "var(--ve-blue)", "stroke-width": 2.5 },
};

/** The "d" of a path through points [[x, y], ...] in pixels. */
export const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join("");
