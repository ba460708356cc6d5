// Chapter 9: three losses over the score p, and how hard each pushes on its logit, over (p, q).
// q = 0 is background. The arithmetic is that of vfnet_edu/losses.py; gradients are with respect to the logit.

/** Binary cross-entropy of the probability p with the target q. */
export const bce = (p, q) => -(q > 0 ? q * Math.log(p) : 0) - (q < 1 ? (1 - q) * Math.log1p(-p) : 0);

/** Focal loss: its target is 1 whatever q > 0. Positives weigh 1 - alpha, background alpha. */
export const focal = (p, q, alpha, gamma) =>
  q > 0 ? (1 - alpha) * (1 - p) ** gamma * -Math.log(p) : alpha * p ** gamma * -Math.log1p(-p);
export const focalGradient = (p, q, alpha, gamma) =>
  q > 0
    ? (1 - alpha) * (1 - p) ** gamma * (gamma * p * Math.log(p) + p - 1)
    : alpha * p ** gamma * (p - gamma * (1 - p) * Math.log1p(-p));

/** Quality focal loss: |p - q|^gamma BCE(p, q). */
export const quality = (p, q, _alpha, gamma) => Math.abs(p - q) ** gamma * bce(p, q);
export const qualityGradient = (p, q, _alpha, gamma) => {
  const d = p - q;
  const size = Math.abs(d);
  if (size === 0) return 0;
  return size ** gamma * d + gamma * size ** (gamma - 1) * Math.sign(d) * p * (1 - p) * bce(p, q);
};

/** Varifocal loss: q BCE(p, q) for positives, alpha p^gamma (-log(1 - p)) for background. */
export const varifocal = (p, q, alpha, gamma) => (q > 0 ? q * bce(p, q) : focal(p, 0, alpha, gamma));
export const varifocalGradient = (p, q, alpha, gamma) => (q > 0 ? q * (p - q) : focalGradient(p, 0, alpha, gamma));

const LOSSES = [
  { short: "FL", name: "focal", value: focal, gradient: focalGradient },
  { short: "QFL", name: "quality focal", value: quality, gradient: qualityGradient },
  { short: "VFL", name: "varifocal", value: varifocal, gradient: varifocalGradient },
];
const STATE = ["p", "q", "alpha", "gamma"];
const CELLS = 60; // of a landscape along each side
const TOP = 2; // highest loss drawn
const UP = [31, 134, 201]; // blue: push up
const DOWN = [217, 98, 10]; // orange: push down; both readable on both grounds
const MAP = { side: 100, gap: 7, strip: 11 }; // a landscape in its own units: the square, a gap, the background strip

/** How strong a push is, in words and in signs: "up 0.40" and "↑ 0.40", "nowhere" and "0" */
const strength = (g) => number(Math.abs(g), Math.abs(g) < 0.01 ? 4 : 2);
const push = (g) => (Math.abs(g) < 5e-5 ? "nowhere" : `${g < 0 ? "up" : "down"} ${strength(g)}`);
const arrow = (g) => (Math.abs(g) < 5e-5 ? "0" : `${g < 0 ? "↑" : "↓"} ${strength(g)}`);

/** What the state means, in words. */
export function words(p, q, alpha, gamma) {
  const [fl, qfl, vfl] = LOSSES.map((loss) => loss.gradient(p, q, alpha, gamma));
  const at = q > 0 ? `At p = ${number(p, 3)}, q = ${number(q)}` : `Background at p = ${number(p, 3)}`;
  const pushes = `${at}: FL pushes the logit ${push(fl)}, QFL ${push(qfl)}, VFL ${push(vfl)}.`;
  if (q === 0) return `${pushes} On background FL and VFL are the same loss.`;
  if (alpha === 1) return `${pushes} With α = 1 the focal loss gives positives the weight 1 − α = 0.`;
  if (Math.abs(p - q) < 0.0025) {
    const floor = number(varifocal(p, q, alpha, gamma));
    return `${pushes} QFL and VFL rest here. VFL's floor is q·H(q) = ${floor}; FL keeps pushing towards 1.`;
  }
  if (p > q) return `${pushes} The score is too high for this box: QFL and VFL lower it, FL still raises it.`;
  return `${pushes} The score is too low for this box: all three raise it.`;
}

function curves(model, stops) {
  const width = 390;
  const height = 300;
  const art = svg("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": "Loss over the score p, for the chosen target q",
  });
  const { group, X, Y } = plot({
    width,
    height,
    x: { range: [0, 1], ticks: [0, 0.25, 0.5, 0.75, 1], label: "score p" },
    y: { range: [0, TOP], ticks: [0, 0.5, 1, 1.5, 2], label: "loss" },
  });
  const needle = svg("line", { y1: Y(0), y2: Y(TOP), stroke: "currentColor", "stroke-dasharray": "3 3" });
  const truth = svg("line", { y1: Y(0), y2: Y(0) - 9, stroke: "currentColor", "stroke-width": 3 });
  const name = svg("text", { y: Y(0) - 13, "text-anchor": "middle" }, "q");
  const lines = LOSSES.map(({ short }) => svg("path", { fill: "none", ...LOOK[short] }));
  const dots = LOSSES.map(({ short }) =>
    svg("circle", { r: 4.5, fill: LOOK[short].stroke, stroke: "var(--ve-ground)" }),
  );
  art.append(group, truth, name, needle, ...lines, ...dots); // VFL last, on top
  const legend = html("div", { class: "ve-choice" });
  const values = LOSSES.map(({ short }) => {
    const value = html("output");
    const sample = svg("svg", { width: 28, height: 8, "aria-hidden": "true" });
    sample.append(svg("line", { x1: 0, y1: 4, x2: 28, y2: 4, ...LOOK[short] }));
    const style = "display:inline-flex;gap:5px;align-items:center";
    legend.append(html("span", { style }, sample, `${short} `, value));
    return value;
  });
  const draw = () => {
    const [p, q, alpha, gamma] = STATE.map((key) => model.get(key));
    const at = Array.from({ length: 199 }, (_, i) => (i + 1) / 200);
    LOSSES.forEach(({ value }, i) => {
      const points = at.map((x) => [x, value(x, q, alpha, gamma)]).filter(([, y]) => y <= TOP);
      lines[i].setAttribute("d", path(points.map(([x, y]) => [X(x), Y(y)])));
      const here = value(p, q, alpha, gamma);
      set(dots[i], { cx: X(p), cy: Y(Math.min(here, TOP)) });
      values[i].textContent = number(here, 3);
    });
    set(needle, { x1: X(p), x2: X(p) });
    set(truth, { x1: X(q), x2: X(q) });
    set(name, { x: X(q) });
  };
  stops.push(follow(model, STATE, draw));
  const heading = html("div", {}, html("b", {}, "Loss"), " at this p and q");
  return html("div", { style: "flex-basis:300px;max-width:480px" }, heading, legend, art);
}

/** Fill a canvas of one pixel per cell with the pushes of a loss; the ground shows through where there is none. */
function paint(canvas, gradient, row) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  const image = context.createImageData(width, height);
  for (let j = 0; j < height; j++)
    for (let i = 0; i < width; i++) {
      const g = gradient((i + 0.5) / width, row(j));
      const ink = g < 0 ? UP : DOWN;
      const alpha = 255 * Math.sqrt(Math.min(Math.abs(g), 1)); // root: weak pushes show
      image.data.set([...ink, alpha], 4 * (j * width + i));
    }
  context.putImageData(image, 0, 0);
}

/** The pushes of one loss over (p, q), and the cursor that all landscapes share. */
function landscape(model, loss, stops) {
  const { side, gap, strip } = MAP;
  const total = side + gap + strip;
  const canvas = (height, box) => {
    const style = `position:absolute;left:0;width:100%;${box};border:1px solid var(--ve-line)`;
    return html("canvas", { width: CELLS, height, "aria-hidden": "true", style });
  };
  const square = canvas(CELLS, `top:0;height:${(100 * side) / total}%`);
  const ground = canvas(1, `bottom:0;height:${(100 * strip) / total}%`);
  const art = svg("svg", {
    viewBox: `0 0 ${side} ${total}`,
    style: "position:absolute;inset:0;width:100%;height:100%;touch-action:none;cursor:crosshair",
  });
  const { area, handle } = cursor(model, loss, art);
  art.append(area);
  if (loss.short !== "FL") {
    const ink = { stroke: "currentColor", "stroke-width": 0.8, "stroke-dasharray": "2.5 2.5" };
    art.append(svg("line", { x1: 0, y1: side, x2: side, y2: 0, ...ink })); // p = q
  }
  art.append(handle);
  const value = html("output", { style: "font-variant-numeric:tabular-nums;white-space:nowrap" });

  const draw = () => {
    const gradient = (p, q) => loss.gradient(p, q, model.get("alpha"), model.get("gamma"));
    paint(square, gradient, (j) => 1 - (j + 0.5) / CELLS);
    paint(ground, gradient, () => 0);
  };
  const point = () => {
    const [p, q, alpha, gamma] = STATE.map((key) => model.get(key));
    const g = loss.gradient(p, q, alpha, gamma);
    value.textContent = arrow(g);
    set(handle, {
      transform: `translate(${p * side} ${q > 0 ? (1 - q) * side : side + gap + strip / 2})`,
      "aria-valuenow": p,
      "aria-valuetext": `p ${number(p, 3)}, q ${number(q)}: pushes the logit ${push(g)}`,
    });
  };
  stops.push(follow(model, ["alpha", "gamma"], draw), follow(model, STATE, point));
  const style = `position:relative;aspect-ratio:${side}/${total};margin:4px 8px 36px 42px`;
  return html(
    "div",
    { style: "flex:1 1 180px;min-width:0;max-width:340px" },
    html("div", {}, html("b", {}, loss.short), " ", value),
    html("div", { style }, square, ground, art, ...scales()),
  );
}

/** The numbers and names along the left and the lower side of a landscape. */
function scales() {
  const { side, gap, strip } = MAP;
  const total = side + gap + strip;
  const tick = (text, place) =>
    html(
      "span",
      { "aria-hidden": "true", style: `position:absolute;font-size:12px;line-height:1;white-space:nowrap;${place}` },
      text,
    );
  const left = (text, y) => tick(text, `right:calc(100% + 4px);top:${(100 * y) / total}%;transform:translateY(-50%)`);
  const below = (text, x) => tick(text, `top:calc(100% + 4px);left:${x}%;transform:translateX(-50%)`);
  const turned = "writing-mode:vertical-rl;transform:translateY(-50%) rotate(180deg)";
  return [
    ...[1, 0.5, 0].map((q) => left(q, (1 - q) * side)),
    left("bg", side + gap + strip / 2),
    tick("target q", `left:-42px;top:${(50 * side) / total}%;${turned}`),
    ...[0, 0.5, 1].map((p) => below(p, 100 * p)),
    tick("score p", "top:calc(100% + 20px);left:50%;transform:translateX(-50%)"),
  ];
}

/** The handle of a landscape, and the area where a press moves it: both set p and q. */
function cursor(model, loss, art) {
  const { side, gap, strip } = MAP;
  const area = svg("rect", { width: side, height: side + gap + strip, fill: "transparent" });
  const handle = svg(
    "g",
    { "aria-valuemin": 0, "aria-valuemax": 1 },
    svg("circle", { r: 11, fill: "transparent" }),
    svg("circle", { r: 4.4, fill: "var(--ve-ground)", stroke: "var(--ve-ink)", "stroke-width": 1.8 }),
  );
  const go = (p, q) => {
    model.set("p", clamp(Math.round(p * 200) / 200, 0.005, 0.995));
    model.set("q", clamp(Math.round(q * 100) / 100, 0, 1));
    model.save_changes();
  };
  const drag = (x, y) => go(x / side, y > side + gap / 2 ? 0 : Math.max(1 - y / side, 0.01));
  draggable(handle, art, {
    label: `${loss.name} loss: cursor over score p (left, right) and target q (down, up)`,
    drag,
    nudge: (dx, dy) => go(model.get("p") + dx / 100, model.get("q") - dy / 100),
  });
  let held = false; // a press anywhere on the landscape moves the cursor there
  area.addEventListener("pointerdown", (event) => {
    area.setPointerCapture(event.pointerId);
    held = true;
    drag(...position(art, event));
    handle.focus({ preventScroll: true });
    event.preventDefault();
  });
  area.addEventListener("pointermove", (event) => held && drag(...position(art, event)));
  onRelease(area, () => (held = false));
  return { area, handle };
}

function landscapes(model, stops) {
  const maps = html(
    "div",
    { style: "display:flex;flex-wrap:wrap;gap:4px 10px" },
    ...LOSSES.map((loss) => landscape(model, loss, stops)),
  );
  const mix = ([r, g, b], a) => `rgba(${r},${g},${b},${a})`;
  const colours = `${mix(UP, 1)},${mix(UP, 0)} 50%,${mix(DOWN, 0)} 50%,${mix(DOWN, 1)}`;
  const bar = html("div", {
    "aria-hidden": "true",
    style: `height:10px;border:1px solid var(--ve-line);background:linear-gradient(to right,${colours})`,
  });
  const ticks = html("div", { style: "display:flex;justify-content:space-between" });
  ticks.append(...["↑ 1", "↑ ¼", "0", "↓ ¼", "↓ 1"].map((tick) => html("span", {}, tick)));
  const heading = html(
    "div",
    {},
    html("b", {}, "Push on the logit"),
    ": minus the gradient. Drag the ring. Strip bg: background, q = 0. Dashed: p = q.",
  );
  const legend = html("div", { style: "max-width:320px;margin-top:6px" }, bar, ticks);
  return html("div", { style: "flex-basis:100%" }, heading, maps, legend);
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Loss explorer");
  const target = (q) => (q > 0 ? number(q) : "0: background");
  const controls = html(
    "div",
    { class: "ve-controls" },
    slider(model, "q", { label: "target q", min: 0, max: 1, step: 0.01, show: target, stops }),
    slider(model, "p", { label: "score p", min: 0.005, max: 0.995, step: 0.005, show: (v) => number(v, 3), stops }),
    slider(model, "alpha", { label: "α (background)", min: 0, max: 1, step: 0.05, stops }),
    slider(model, "gamma", { label: "γ (focusing)", min: 0, max: 4, step: 0.25, stops }),
  );
  root.append(controls, html("div", { class: "ve-row" }, curves(model, stops), landscapes(model, stops)), says);
  const draw = () => {
    says.textContent = words(...STATE.map((key) => model.get(key)));
  };
  stops.push(follow(model, STATE, draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
