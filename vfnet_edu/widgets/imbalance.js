// Chapter 7: who speaks in the gradient of the class loss, while every score has the same value p = sigmoid(bias).
// The arithmetic is the gradient of focal_loss in vfnet_edu/losses.py with respect to the logit, summed over all scores.

/** How hard one background score is pushed down. It weighs 1 - alpha. */
export const pushDown = (p, alpha, gamma) => (1 - alpha) * p ** gamma * (p - gamma * (1 - p) * Math.log1p(-p));

/** How hard one positive is pushed up. It weighs alpha. */
export const pushUp = (p, alpha, gamma) => alpha * (1 - p) ** gamma * (1 - p - gamma * p * Math.log(p));

export const sigmoid = (z) => 1 / (1 + Math.exp(-z));

/** Both sums, and the share of background in their total. */
export function pushes({ bias, alpha, gamma, positives, background }) {
  const p = sigmoid(bias);
  const down = background * pushDown(p, alpha, gamma);
  const up = positives * pushUp(p, alpha, gamma);
  return { down, up, share: down / (down + up) };
}

/** The bias at which both sums are equal: above it background is louder, below it the positives are. */
export function balance(state) {
  let [low, high] = [-36, 36]; // beyond, 1 - p is no longer a number of its own
  for (let i = 0; i < 100; i++) {
    const bias = (low + high) / 2;
    const { down, up } = pushes({ ...state, bias });
    if (down > up) high = bias;
    else low = bias;
  }
  return (low + high) / 2;
}

const STATE = ["gamma", "alpha", "bias", "positives", "background"];
const PLAIN = { alpha: 0.5, gamma: 0 }; // half the cross-entropy: the same shares
const PLACES = [
  ["a photograph", { positives: 38, background: 1791962 }],
  ["a small scene", { positives: 24, background: 2664 }],
];
const [FROM, TO] = [-12, 2]; // biases that are drawn
const TICKS = [0.00001, 0.0001, 0.001, 0.01, 0.1, 0.5];

/** 0.0144 -> "0.0144", 0.0000251 -> "0.000025": two digits that count */
export const small = (p) => number(p, clamp(1 - Math.floor(Math.log10(p)), 2, 9));
/** A share in percent, with more digits where it is close to none or to all. */
export const percent = (share) => {
  const rest = Math.min(share, 1 - share);
  return `${number(100 * share, rest >= 0.02 ? 0 : rest >= 0.0005 ? 1 : 3)} %`;
};
const strength = (push) => number(push, push < 10 ? 2 : push < 1000 ? 1 : 0);

/** What the state means, in words. */
export function words(state) {
  const { gamma, alpha, bias, positives, background } = state;
  const { down, up, share } = pushes(state);
  const plain = pushes({ ...state, ...PLAIN });
  const own = `with γ = ${number(gamma)} and α = ${number(alpha)}`;
  const [here, there] = [state, { ...state, ...PLAIN }].map((at) => small(sigmoid(balance(at))));
  return (
    `Every score at ${small(sigmoid(bias))}: background makes ${percent(plain.share)} of the push with cross-entropy, ` +
    `${percent(share)} ${own}: ${number(background, 0)} scores push down with ${strength(down)} in all, ` +
    `${number(positives, 0)} push up with ${strength(up)}. In balance: at ${there} with cross-entropy, at ${here} ${own}.`
  );
}

/** Two bars, each as long as all pushes together: the part of background, then that of the positives. */
function bars(model, state, stops) {
  const [width, left, right, high] = [400, 92, 64, 26];
  const art = svg("svg", { viewBox: `0 0 ${width} ${2 * high + 6}`, role: "img" });
  const rows = ["cross-entropy", "focal loss"].map((name, i) => {
    const box = { y: i * (high + 6), height: high };
    const ground = svg("rect", { ...box, x: left, fill: "var(--ve-orange)" });
    const objects = svg("rect", { ...box, fill: "var(--ve-blue)" });
    const value = svg("text", { x: width - right + 6, y: box.y + high / 2 + 4, "font-weight": 600 });
    art.append(
      svg("text", { x: left - 8, y: box.y + high / 2 + 4, "text-anchor": "end" }, name),
      ground,
      objects,
      value,
    );
    return { ground, objects, value };
  });
  const draw = () => {
    const shares = [PLAIN, {}].map((change) => pushes({ ...state(), ...change }).share);
    const room = width - left - right;
    rows.forEach(({ ground, objects, value }, i) => {
      set(ground, { width: shares[i] * room });
      set(objects, { x: left + shares[i] * room, width: (1 - shares[i]) * room });
      value.textContent = percent(shares[i]);
    });
    const told = `Share of background: cross-entropy ${percent(shares[0])}, focal loss ${percent(shares[1])}`;
    set(art, { "aria-label": told });
  };
  stops.push(follow(model, STATE, draw));
  const swatch = (colour) =>
    html("span", {
      style: `display:inline-block;width:12px;height:12px;margin:0 5px 0 0;background:var(--ve-${colour})`,
    });
  const legend = html("div", { class: "ve-choice" });
  legend.append(
    html("span", {}, swatch("orange"), "background, pushes down"),
    html("span", {}, swatch("blue"), "positives, push up"),
  );
  return html("div", {}, html("b", {}, "Who makes the push"), legend, art);
}

const LINES = [
  { change: PLAIN, look: { stroke: "var(--ve-ink)", "stroke-width": 2 }, name: "cross-entropy" },
  { change: {}, look: LOOK.FL, name: "focal loss" },
];

/** The same share for every other start, and a knob that moves the start. */
function curves(model, state, stops) {
  const [width, height, left, right] = [400, 250, 50, 12];
  const art = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Share over the start" });
  const { group, X, Y } = plot({
    width,
    height,
    left,
    right,
    x: {
      range: [FROM, TO],
      ticks: TICKS.map((p) => Math.log(p / (1 - p))),
      show: (z) => String(Number(sigmoid(z).toPrecision(1))),
      label: "score that all start at",
    },
    y: { range: [0, 1], ticks: [0, 0.25, 0.5, 0.75, 1], show: (v) => `${100 * v} %` },
  });
  const middle = svg("line", { x1: X(FROM), x2: X(TO), y1: Y(0.5), y2: Y(0.5), stroke: "currentColor" });
  const needle = svg("line", { y1: Y(0), y2: Y(1), stroke: "currentColor", "stroke-dasharray": "3 3" });
  const drawn = LINES.map(({ look }) => ({
    line: svg("path", { fill: "none", ...look }),
    dot: svg("circle", { r: 4, cy: Y(0.5), fill: "var(--ve-ground)", stroke: look.stroke, "stroke-width": 2 }),
  }));
  const knob = svg("circle", { r: 9, fill: "var(--ve-orange)", stroke: "var(--ve-ground)", "stroke-width": 2 });
  const move = (bias) => write(model, "bias", clamp(Math.round(bias * 20) / 20, FROM, TO));
  draggable(knob, art, {
    label: "score that all start at",
    drag: (x) => move(FROM + ((x - left) / (width - left - right)) * (TO - FROM)),
    nudge: (dx, dy) => move(model.get("bias") + 0.1 * (dx - dy)),
  });
  set(knob, { "aria-valuemin": FROM, "aria-valuemax": TO });
  art.append(group, middle, needle, ...drawn.flatMap(({ line, dot }) => [line, dot]), knob);
  const biases = Array.from({ length: 141 }, (_, i) => FROM + ((TO - FROM) * i) / 140);
  const draw = () => {
    const now = state();
    drawn.forEach(({ line, dot }, i) => {
      const at = { ...now, ...LINES[i].change };
      set(line, { d: path(biases.map((bias) => [X(bias), Y(pushes({ ...at, bias }).share)])) });
      const even = balance(at);
      set(dot, { cx: X(clamp(even, FROM, TO)), visibility: even > FROM && even < TO ? "visible" : "hidden" });
    });
    const { share } = pushes(now);
    set(needle, { x1: X(now.bias), x2: X(now.bias) });
    const told = `all scores at ${small(sigmoid(now.bias))}: background makes ${percent(share)}`;
    set(knob, { cx: X(now.bias), cy: Y(share), "aria-valuenow": now.bias, "aria-valuetext": told });
  };
  stops.push(follow(model, STATE, draw));
  return html("div", {}, html("b", {}, "Share of background"), ", for every start", legend(), art);
}

function legend() {
  const names = html("div", { class: "ve-choice" });
  for (const { look, name } of LINES) {
    const sample = svg("svg", { width: 28, height: 8, "aria-hidden": "true" });
    sample.append(svg("line", { x1: 0, y1: 4, x2: 28, y2: 4, ...look }));
    names.append(html("span", { style: "display:inline-flex;gap:5px;align-items:center" }, sample, name));
  }
  names.append(html("span", {}, "○ balance"));
  return names;
}

/** A slider over powers of ten, from a hundred to ten million. */
function powers(model, key, label, stops) {
  const output = html("output");
  const input = html("input", { type: "range", min: 2, max: 7, step: 0.01, "aria-label": label });
  input.addEventListener("input", () => write(model, key, Math.round(10 ** Number(input.value))));
  const draw = () => {
    input.value = Math.log10(model.get(key));
    output.textContent = number(model.get(key), 0);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  stops.push(follow(model, [key], draw));
  return html("div", { class: "ve-control" }, html("span", {}, `${label} `, output), input);
}

/** Buttons that set both counts at once. */
function places(model) {
  const buttons = PLACES.map(([name, counts]) => {
    const button = html("button", { type: "button" }, name);
    button.addEventListener("click", () => {
      for (const [key, count] of Object.entries(counts)) model.set(key, count);
      model.save_changes();
    });
    return button;
  });
  const row = html("div", { style: "display:flex;flex-wrap:wrap;gap:6px" }, ...buttons);
  return html("div", { class: "ve-control", style: "flex:1 1 220px" }, html("span", {}, "scores of"), row);
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Imbalance explorer");
  const state = () => Object.fromEntries(STATE.map((key) => [key, model.get(key)]));
  const whole = (v) => number(v, 0);
  const start = (bias) => `${number(bias)}: score ${small(sigmoid(bias))}`;
  const controls = html(
    "div",
    { class: "ve-controls" },
    slider(model, "gamma", { label: "γ (focusing)", min: 0, max: 4, step: 0.25, stops }),
    slider(model, "alpha", { label: "α (positives)", min: 0.05, max: 0.95, step: 0.05, stops }),
    slider(model, "bias", { label: "bias", min: FROM, max: TO, step: 0.1, show: start, stops }),
    powers(model, "background", "background scores", stops),
    slider(model, "positives", { label: "positive scores", min: 1, max: 200, step: 1, show: whole, stops }),
    places(model),
  );
  const row = html("div", { class: "ve-row" }, bars(model, state, stops), curves(model, state, stops));
  root.append(controls, row, says);
  stops.push(follow(model, STATE, () => (says.textContent = words(state()))));
  return () => stops.forEach((stop) => stop());
}

export default { render };
