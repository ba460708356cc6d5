// Chapter 2: two boxes, and where four losses push the sides of the predicted one.
// A box is [x1, y1, x2, y2], with x1 <= x2 and y1 <= y2. The arithmetic is that of vfnet_edu/boxes.py; where two sides
// are level, each gets half of the gradient, as autograd has it.
// A "measure" is {value, gradient}: a number, and what it gains for each pixel that x1, y1, x2, y2 move right or down.

const EPS = 1e-6; // floor of a union or an enclosing area
const NAMES = ["L1", "IoU", "GIoU", "DIoU"];

/** Whether x < y; a half where they are equal. */
const less = (x, y) => (Math.sign(y - x) + 1) / 2;

/** Along one axis: lengths of the box, of what both share and of the frame, and their change with each end of the box. */
function along(a, b, axis) {
  const [low, high, from, to] = [a[axis], a[axis + 2], b[axis], b[axis + 2]];
  const shared = Math.min(high, to) - Math.max(low, from);
  const meets = shared > 0 ? 1 : 0; // where they only touch, the slope has a kink; this is its lower end
  return {
    apart: (low + high - from - to) / 2, // of the middles
    own: { length: high - low, change: [-1, 1] },
    shared: { length: Math.max(shared, 0), change: [-meets * less(from, low), meets * less(high, to)] },
    frame: { length: Math.max(high, to) - Math.min(low, from), change: [-less(low, from), less(to, high)] },
  };
}

const ends = (x, y) => [0, 1].flatMap((end) => [x[end], y[end]]); // from both axes to x1, y1, x2, y2

const product = (x, y) => ({
  value: x.length * y.length,
  gradient: ends(
    x.change.map((change) => change * y.length),
    y.change.map((change) => change * x.length),
  ),
});

const squares = (x, y) => ({
  value: x.length ** 2 + y.length ** 2,
  gradient: ends(
    x.change.map((change) => 2 * change * x.length),
    y.change.map((change) => 2 * change * y.length),
  ),
});

const plus = (one, other, factor = 1) => ({
  value: one.value + factor * other.value,
  gradient: one.gradient.map((g, k) => g + factor * other.gradient[k]),
});

const ratio = (one, other) => ({
  value: one.value / other.value,
  gradient: one.gradient.map((g, k) => (g * other.value - one.value * other.gradient[k]) / other.value ** 2),
});

const constant = (value) => ({ value, gradient: [0, 0, 0, 0] });
const floor = (one) => (one.value >= EPS ? one : constant(EPS));

/** L1 (pixels), IoU, GIoU and DIoU of two boxes, with their gradients with respect to the first. */
export function measures(a, b) {
  const [x, y] = [along(a, b, 0), along(a, b, 1)];
  const [own, shared, frame] = ["own", "shared", "frame"].map((part) => product(x[part], y[part]));
  const other = constant((b[2] - b[0]) * (b[3] - b[1]));
  const union = floor(plus(plus(own, other), shared, -1));
  const iou = ratio(shared, union);
  const filled = ratio(plus(union, constant(0)), floor(frame));
  const distance = { value: x.apart ** 2 + y.apart ** 2, gradient: [x.apart, y.apart, x.apart, y.apart] };
  return {
    L1: {
      value: a.reduce((sum, v, k) => sum + Math.abs(v - b[k]), 0),
      gradient: a.map((v, k) => Math.sign(v - b[k])),
    },
    IoU: iou,
    GIoU: plus(plus(iou, filled), constant(-1)),
    DIoU: plus(iou, ratio(distance, floor(squares(x.frame, y.frame))), -1),
  };
}

/** Where each loss pushes x1, y1, x2, y2 of the first box: minus the gradient of L1, 1 - IoU, 1 - GIoU, 1 - DIoU. */
export function pushes(a, b) {
  const all = measures(a, b);
  const turn = (name) => all[name].gradient.map((g) => (name === "L1" ? -g : g) + 0); // + 0: never minus zero
  return Object.fromEntries(NAMES.map((name) => [name, turn(name)]));
}

/** Steps of one length along the pushes of a loss. A box that nothing pushes stays where it is. */
export function walk(a, b, name, steps, length = 1) {
  let box = a;
  for (let n = 0; n < steps; n++) {
    const push = pushes(box, b)[name];
    const size = Math.hypot(...push);
    if (size === 0) return box;
    box = box.map((v, k) => v + (length * push[k]) / size);
  }
  return box;
}

const SIDES = ["left", "upper", "right", "lower"];
const NOTHING = 1e-12; // a push below this is none

/** Sides that a loss pushes the wrong way, away from their true place. */
const astray = (push, a, b) => SIDES.filter((_, k) => push[k] * (b[k] - a[k]) < -NOTHING);

const list = (words) => (words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words[0]);

const sides = (names) => `${list(names)} side${names.length > 1 ? "s" : ""}`;

/** What 1 - IoU does: with an overlap it agrees with L1, without one it does nothing. */
const direct = (push) =>
  push.IoU.some((p) => Math.abs(p) > NOTHING)
    ? "L1 and 1 − IoU push every side towards its true place."
    : "1 − IoU is silent.";

/** What GIoU does, if that is not what L1 does. */
function detour(push, a, b) {
  if (push.every((p) => Math.abs(p) < NOTHING)) return "1 − GIoU is silent, too.";
  const wrong = astray(push, a, b);
  return wrong.length ? `1 − GIoU pushes the ${sides(wrong)} the wrong way.` : "1 − GIoU pushes no side the wrong way.";
}

/** The state in words. */
export function words(a, b, steps = 0, walked = "") {
  const all = measures(a, b);
  const told = `IoU ${number(all.IoU.value)}, GIoU ${number(all.GIoU.value)}, L1 ${number(all.L1.value, 0)} pixels.`;
  const after = steps ? `After ${steps} steps with ${walked}: ` : "";
  const push = pushes(a, b);
  const verdict = all.L1.value < 0.5 ? "The two boxes are the same." : `${direct(push)} ${detour(push.GIoU, a, b)}`;
  return `${after}${told} ${verdict}`;
}

// ---- the picture

const COLOURS = { L1: "orange", IoU: "green", GIoU: "blue", DIoU: "pink" };
const colour = (name) => `var(--ve-${COLOURS[name]})`;
const STATE = ["box", "truth", "loss", "start", "steps"];
const LONGEST = 46; // of an arrow, pixels
const STEPS = 100; // of one pixel each: what a button does

/** How long an arrow is drawn: L1 by the pixel, the others by the side of the true box; the root, so weak ones show. */
function reach(name, push, truth) {
  const scale = name === "L1" ? 1 : Math.sqrt(Math.max((truth[2] - truth[0]) * (truth[3] - truth[1]), 1));
  return Math.sign(push) * Math.min(30 * Math.sqrt(Math.abs(push) * scale), LONGEST);
}

/** An arrow from (x, y) along an axis, or a small ring where there is no push. */
function arrow(x, y, axis, length, ink) {
  if (Math.abs(length) < 0.5)
    return svg("circle", { cx: x, cy: y, r: 3.4, fill: "var(--ve-ground)", stroke: ink, "stroke-width": 1.8 });
  const [dx, dy] = axis ? [0, 1] : [1, 0];
  const [tipX, tipY] = [x + dx * length, y + dy * length];
  const back = Math.sign(length) * Math.min(7, Math.abs(length));
  const [baseX, baseY] = [tipX - dx * back, tipY - dy * back];
  const barbs = [-4.5, 4.5].map((d) => [baseX + dy * d, baseY + dx * d]);
  const ways = [
    [
      [x, y],
      [baseX, baseY],
    ],
    [barbs[0], [tipX, tipY], barbs[1], barbs[0]],
  ];
  return svg("path", { d: ways.map(path).join(""), stroke: ink, fill: ink, "stroke-width": 2.6 });
}

/** The arrows of the chosen losses on the four sides of the box; each loss has its own place along a side. */
function arrows(a, b, names) {
  const push = pushes(a, b);
  return names.flatMap((name, n) =>
    SIDES.map((_, k) => {
      const axis = k % 2;
      const other = 1 - axis;
      const at = a[other] + ((n + 1) / (names.length + 1)) * (a[other + 2] - a[other]);
      const [x, y] = axis ? [at, a[k]] : [a[k], at];
      return arrow(x, y, axis, reach(name, push[name][k], b), colour(name));
    }),
  );
}

/** Name of a corner, and where its x and its y stand in a box. */
const CORNERS = [
  ["top left", 0, 1],
  ["top right", 2, 1],
  ["bottom right", 2, 3],
  ["bottom left", 0, 3],
];

/** A box that is dragged as a whole or by its corners; `place` draws it. `key`: "box" or "truth" of the model. */
function movable(model, plane, key, look, name) {
  const size = model.get("size");
  const keep = (box) => {
    model.set(key, box);
    model.set("start", []);
    model.set("steps", 0);
    model.save_changes();
  };
  const moveTo = (x, y) => {
    const [x1, y1, x2, y2] = model.get(key);
    const [w, h] = [x2 - x1, y2 - y1];
    const left = clamp(Math.round(x - w / 2), 0, Math.max(size[0] - w, 0));
    const top = clamp(Math.round(y - h / 2), 0, Math.max(size[1] - h, 0));
    keep([left, top, left + w, top + h]);
  };
  const nudge = (dx, dy) => {
    const [x1, y1, x2, y2] = model.get(key);
    moveTo((x1 + x2) / 2 + dx, (y1 + y2) / 2 + dy);
  };
  const frame = svg("rect", { fill: "transparent", "stroke-width": 2.4, ...look });
  draggable(frame, plane, { label: `${name}: move`, drag: moveTo, nudge });
  const corners = CORNERS.map(([where, i, j]) =>
    corner(model, plane, key, look.stroke, `${name}: ${where}`, i, j, keep),
  );
  for (const handle of [frame, ...corners.map((c) => c.handle)])
    set(handle, { "aria-valuemin": 0, "aria-valuemax": size[0] });

  const place = () => {
    const box = model.get(key);
    const [x1, y1, x2, y2] = box;
    const told = `from (${number(x1, 0)}, ${number(y1, 0)}) to (${number(x2, 0)}, ${number(y2, 0)})`;
    const where = { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0) };
    set(frame, { ...where, "aria-valuenow": (x1 + x2) / 2, "aria-valuetext": told });
    for (const { handle, i, j, away } of corners) {
      const transform = `translate(${box[i] + away[0]} ${box[j] + away[1]})`;
      set(handle, { transform, "aria-valuenow": box[i], "aria-valuetext": told });
    }
  };
  return { frame, handles: corners.map((c) => c.handle), place };
}

/** The handle of one corner, a little outside, so that a box without area can still be opened. */
function corner(model, plane, key, ink, label, i, j, keep) {
  const handle = svg(
    "g",
    {},
    svg("circle", { r: 11, fill: "transparent" }),
    svg("rect", { x: -4.5, y: -4.5, width: 9, height: 9, rx: 2, fill: ink, stroke: "var(--ve-ground)" }),
  );
  const away = [i ? 7 : -7, j === 3 ? 7 : -7];
  const size = model.get("size");
  const to = (x, y) => {
    const box = [...model.get(key)];
    box[i] = i === 0 ? clamp(Math.round(x), 0, box[2]) : clamp(Math.round(x), box[0], size[0]);
    box[j] = j === 1 ? clamp(Math.round(y), 0, box[3]) : clamp(Math.round(y), box[1], size[1]);
    keep(box);
  };
  draggable(handle, plane, {
    label,
    drag: (x, y) => to(x - away[0], y - away[1]),
    nudge: (dx, dy) => to(model.get(key)[i] + dx, model.get(key)[j] + dy),
  });
  return { handle, i, j, away };
}

/** The picture: the true box dashed, the predicted one solid, its arrows, and dotted where a walk began. */
function picture(model, stops) {
  const [width, height] = model.get("size");
  const plane = svg("svg", {
    viewBox: `-12 -12 ${width + 24} ${height + 24}`,
    role: "group",
    "aria-label": "A true box, a predicted box, and arrows on the sides of the predicted one",
  });
  const ink = { stroke: "var(--ve-ink)" };
  const predicted = movable(
    model,
    plane,
    "box",
    { ...ink, fill: "var(--ve-soft)", "fill-opacity": 0.16 },
    "Predicted box",
  );
  const truth = movable(model, plane, "truth", { stroke: "var(--ve-yellow)", "stroke-dasharray": "7 5" }, "True box");
  const ghost = svg("rect", { fill: "none", ...ink, "stroke-dasharray": "1 5", "stroke-linecap": "round" });
  const over = svg("g", { "pointer-events": "none" });
  const halo = { stroke: "var(--ve-panel)", "stroke-width": 5, "paint-order": "stroke", "pointer-events": "none" };
  const names = ["predicted", "true"].map((name) =>
    svg("text", { "text-anchor": "middle", "font-weight": 600, ...halo }, name),
  );
  plane.append(
    svg("rect", { width, height, fill: "var(--ve-panel)", stroke: "var(--ve-line)" }),
    ...[ghost, truth.frame, predicted.frame, ...names, over, ...truth.handles, ...predicted.handles],
  );
  const draw = () => {
    const [a, b, chosen, start] = STATE.map((key) => model.get(key));
    for (const one of [predicted, truth]) one.place();
    [a, b].forEach((box, n) => {
      set(names[n], { x: (box[0] + box[2]) / 2, y: (box[1] + box[3]) / 2 + 4 });
    });
    const [x1, y1, x2, y2] = start.length ? start : [0, 0, 0, 0];
    set(ghost, { x: x1, y: y1, width: x2 - x1, height: y2 - y1, visibility: start.length ? "visible" : "hidden" });
    over.replaceChildren(...arrows(a, b, chosen === "all" ? NAMES.slice(0, 3) : [chosen]));
  };
  stops.push(follow(model, STATE, draw));
  return html("div", { style: "flex:1 1 330px;max-width:470px" }, plane);
}

const WAYS = ["←→", "↑↓"];
/** A push in signs: "→ 1.63", "0" */
const signed = (push, k) =>
  Math.abs(push) < NOTHING ? "0" : `${WAYS[k % 2][push < 0 ? 0 : 1]} ${number(Math.abs(push), 2)}`;

/** Loss and four pushes of each. */
function table(model, stops) {
  const cell = (tag, ...words) => html(tag, { style: "padding:3px 4px;white-space:nowrap" }, ...words);
  const rows = NAMES.map((name) => {
    const cells = Array.from({ length: 5 }, () => cell("td"));
    const mark = html("span", { style: `color:${colour(name)};font-weight:700` }, name === "L1" ? "L1" : `1 − ${name}`);
    return { name, cells, row: html("tr", {}, cell("td", mark), ...cells) };
  });
  const draw = () => {
    const [a, b] = [model.get("box"), model.get("truth")];
    const [all, push] = [measures(a, b), pushes(a, b)];
    for (const { name, cells } of rows) {
      const [unit, value] = name === "L1" ? [1, number(all.L1.value, 0)] : [100, number(1 - all[name].value)];
      cells[0].textContent = value;
      for (let k = 0; k < 4; k++) cells[k + 1].textContent = signed(unit * push[name][k], k);
    }
  };
  stops.push(follow(model, ["box", "truth"], draw));
  const style = "text-align:left;color:inherit;font-size:14px";
  const caption = html(
    "caption",
    { style },
    html("b", {}, "Loss and push"),
    " on each side. L1 per pixel, others per 100 px",
  );
  const heads = ["measure", "loss", ...SIDES].map((head) => cell("th", head));
  const body = html("tbody", {}, ...rows.map(({ row }) => row));
  return html("table", { style: "font-size:12.5px" }, caption, html("thead", {}, html("tr", {}, ...heads)), body);
}

function button(text, press, ink = "var(--ve-ink)") {
  const style =
    `font:inherit;padding:4px 12px;min-height:32px;border:1px solid ${ink};border-radius:6px;` +
    "background:var(--ve-panel);color:inherit;cursor:pointer";
  const element = html("button", { type: "button", style }, text);
  element.addEventListener("click", press);
  return element;
}

/** Some steps with a loss, and the way back. Another loss goes on from where the box is. */
function walking(model) {
  const go = (name) => {
    const [box, truth] = [model.get("box"), model.get("truth")];
    if (!model.get("start").length) model.set("start", box);
    model.set("steps", model.get("walked") === name ? model.get("steps") + STEPS : STEPS);
    model.set("walked", name);
    model.set("box", walk(box, truth, name, STEPS));
    model.save_changes();
  };
  const back = () => {
    if (!model.get("start").length) return;
    model.set("box", model.get("start"));
    model.set("start", []);
    model.set("steps", 0);
    model.save_changes();
  };
  const style = "display:flex;flex-wrap:wrap;gap:6px;align-items:center;margin-top:8px";
  const ways = NAMES.map((name) => button(name, () => go(name), colour(name)));
  return html("div", { style }, html("span", {}, `${STEPS} steps of one pixel with`), ...ways, button("Back", back));
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Two boxes: how far apart, and which way?");
  const options = [["all", "L1, IoU, GIoU"], ...NAMES.map((name) => [name, name])];
  const controls = html("div", { class: "ve-controls" }, choice(model, "loss", { label: "Arrows of", options, stops }));
  const side = html("div", { style: "flex:1 1 290px" }, table(model, stops), walking(model));
  root.append(controls, html("div", { class: "ve-row" }, picture(model, stops), side), says);
  const draw = () => {
    says.textContent = words(...["box", "truth", "steps", "walked"].map((key) => model.get(key)));
  };
  stops.push(follow(model, ["box", "truth", "steps"], draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
