// Chapter 12: a cell's first box, its star, and where each loss would move nine samples and four sides.
// The arithmetic is that of vfnet_edu/models/heads/vfnet.py at one cell, forward and backward: two star convolutions,
// the middle tap of two last layers, the losses of this cell. Coordinates are (y, x) in cells; a gradient is dL/d(it).

const SIDES = ["left", "top", "right", "bottom"];
const AWAY = [-1, -1, 1, 1]; // x1 = x - l, y1 = y - t, x2 = x + r, y2 = y + b
const LEAST = 1e-6; // a positive stays a positive
const RATE = 0.05; // of a step, on the logarithms of the distances, which are what the network predicts

// ---- What the page carries ------------------------------------------------------------------------------------------

function half(bits) {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24;
  return bits & 0x8000 ? -size : size;
}

/** Numbers of half precision, little end first -> Float64Array. */
export function halves(view) {
  const bytes = new DataView(view.buffer, view.byteOffset, view.byteLength);
  return Float64Array.from({ length: view.byteLength / 2 }, (_, n) => half(bytes.getUint16(2 * n, true)));
}

/** Weights {score, refine}, each {star: 9 x C x C, out: outputs x C}, and for each cell its maps {score, refine}. */
export function unpack(view, shape, count) {
  const numbers = halves(view);
  const { channels, classes, height, width } = shape;
  let at = 0;
  const take = (length) => {
    at += length;
    return numbers.subarray(at - length, at);
  };
  const branch = (outputs) => ({ star: take(9 * channels * channels), out: take(outputs * channels) });
  const weights = { score: branch(classes), refine: branch(4) };
  const map = () => take(height * width * channels);
  return { shape, weights, maps: Array.from({ length: count }, () => ({ score: map(), refine: map() })) };
}

// ---- Reading between cells, and its gradient ------------------------------------------------------------------------

/** Nine (y, x) in cells that the star of a box reads. */
export function starCells([px, py], ltrb, stride) {
  const [l, t, r, b] = ltrb.map((d) => d / stride);
  const [x, y] = [px / stride, py / stride];
  return [y - t, y, y + b].flatMap((row) => [x - l, x, x + r].map((column) => [row, column]));
}

/** The cells around a position: [row, column, share, its slope in y, its slope in x]; what lies outside counts 0. */
export function corners(y, x, height, width) {
  const [i, j] = [Math.floor(y), Math.floor(x)];
  const [down, right] = [y - i, x - j];
  return [
    [i, j, (1 - down) * (1 - right), right - 1, down - 1],
    [i, j + 1, (1 - down) * right, -right, 1 - down],
    [i + 1, j, down * (1 - right), 1 - right, -down],
    [i + 1, j + 1, down * right, right, down],
  ].filter(([row, column]) => row >= 0 && row < height && column >= 0 && column < width);
}

/** C features at a position, and their slopes in y and in x. */
function read(map, [y, x], { channels, height, width }) {
  const [value, inY, inX] = [0, 0, 0].map(() => new Float64Array(channels));
  for (const [row, column, share, dy, dx] of corners(y, x, height, width)) {
    const start = (row * width + column) * channels;
    for (let c = 0; c < channels; c++) {
      const cell = map[start + c];
      value[c] += share * cell;
      inY[c] += dy * cell;
      inX[c] += dx * cell;
    }
  }
  return { value, inY, inX };
}

/** One branch at one cell: nine reads, the product, a ReLU, the last layer. `base` is what neighbours add to it. */
function branch({ star, out }, map, taps, base, shape) {
  const c = shape.channels;
  const reads = taps.map((tap) => read(map, tap, shape));
  const seen = new Float64Array(c);
  for (let k = 0; k < 9; k++)
    for (let o = 0; o < c; o++) {
      const row = (k * c + o) * c;
      for (let i = 0; i < c; i++) seen[o] += star[row + i] * reads[k].value[i];
    }
  const answers = base.map((start, k) => seen.reduce((sum, v, i) => sum + out[k * c + i] * Math.max(v, 0), start));
  /** Gradients on the answers -> on the nine positions, [dy, dx] each. */
  const pulls = (push) => {
    const back = seen.map((v, i) => (v > 0 ? push.reduce((sum, g, k) => sum + g * out[k * c + i], 0) : 0));
    return reads.map(({ inY, inX }, k) => {
      const pull = [0, 0];
      for (let o = 0; o < c; o++)
        for (let i = 0; i < c; i++) {
          const g = back[o] * star[(k * c + o) * c + i];
          pull[0] += g * inY[i];
          pull[1] += g * inX[i];
        }
      return pull;
    });
  };
  return { answers, pulls };
}

/** Gradients on nine positions, in cells -> on the distances l, t, r, b, in pixels. */
export function fourSides(pulls, stride) {
  const sum = (taps, axis) => taps.reduce((total, k) => total + pulls[k][axis], 0) / stride;
  return [-sum([0, 3, 6], 1), -sum([0, 1, 2], 0), sum([2, 5, 8], 1), sum([6, 7, 8], 0)];
}

// ---- Losses of one cell ---------------------------------------------------------------------------------------------

const softplus = (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))); // log(1 + e^z)
const sigmoid = (z) => 1 / (1 + Math.exp(-z));

/** dL/dz of the varifocal loss; q > 0 at the true class, 0 at all others. */
export function varifocalPush(z, q) {
  const p = sigmoid(z);
  return q > 0 ? q * (p - q) : 0.75 * p * p * (p + 2 * (1 - p) * softplus(z));
}

/** IoU and GIoU of a box with a true one, and the slopes of GIoU along x1, y1, x2, y2. */
export function overlap(box, truth) {
  const axes = [0, 1];
  const inner = axes.map((i) => Math.max(Math.min(box[i + 2], truth[i + 2]) - Math.max(box[i], truth[i]), 0));
  const outer = axes.map((i) => Math.max(box[i + 2], truth[i + 2]) - Math.min(box[i], truth[i]));
  const sides = (a) => axes.map((i) => a[i + 2] - a[i]);
  const [size, other] = [sides(box), sides(truth)];
  const shared = inner[0] * inner[1];
  const union = size[0] * size[1] + other[0] * other[1] - shared;
  const around = outer[0] * outer[1];
  const slopes = box.map((v, i) => {
    const across = 1 - (i % 2);
    const inside = AWAY[i] * (v - truth[i]) < 0; // moved outwards, this side gains overlap; outside it only adds area
    const more = inside && shared > 0 ? AWAY[i] * inner[across] : 0;
    const wider = inside ? 0 : AWAY[i] * outer[across];
    const joint = AWAY[i] * size[across] - more;
    return more / union - (shared * joint) / union ** 2 + joint / around - (union * wider) / around ** 2;
  });
  return { iou: shared / union, giou: shared / union - (around - union) / around, slopes };
}

const boxOf = ([x, y], ltrb) => ltrb.map((d, i) => (i % 2 ? y : x) + AWAY[i] * d);

/**
 * A cell with a first box: both IoUs, the refined distances, its score, and the gradients of three losses:
 * `own` of the first box on its four sides; `score` and `refinement` on nine points, {points, sides}.
 */
export function evaluate({ shape, weights, maps }, which, cell, ltrb) {
  const { stride, gain } = shape;
  const taps = starCells(cell.point, ltrb, stride);
  const score = branch(weights.score, maps[which].score, taps, cell.base[0], shape);
  const refine = branch(weights.refine, maps[which].refine, taps, cell.base[1], shape);
  const refined = ltrb.map((d, i) => d * Math.exp(gain * refine.answers[i]));
  const first = overlap(boxOf(cell.point, ltrb), cell.truth);
  const better = overlap(boxOf(cell.point, refined), cell.truth);

  const q = Math.max(better.iou, LEAST);
  const asked = score.answers.map((z, k) => varifocalPush(z, k === cell.label ? q : 0));
  const [light, heavy] = [shape.weights[0] * Math.max(first.iou, LEAST), shape.weights[1] * q];
  const told = refined.map((d, i) => -heavy * better.slopes[i] * AWAY[i] * d * gain); // the first box is detached
  const through = (points) => ({ points, sides: fourSides(points, stride) });
  return {
    refined,
    iou: first.iou,
    refinedIou: better.iou,
    score: sigmoid(score.answers[cell.label]),
    own: first.slopes.map((slope, i) => -light * slope * AWAY[i]),
    byScore: through(score.pulls(asked)),
    byRefinement: through(refine.pulls(told)),
  };
}

/** What comes through the star, of one loss or of both: {points, sides}. */
export function throughStar({ byScore, byRefinement }, pull) {
  if (pull === "score") return byScore;
  if (pull === "refinement") return byRefinement;
  const points = byScore.points.map(([dy, dx], k) => [dy + byRefinement.points[k][0], dx + byRefinement.points[k][1]]);
  return { points, sides: byScore.sides.map((g, i) => g + byRefinement.sides[i]) };
}

/** The gradient that a step follows, on l, t, r, b: the first box's own, if it counts, and a share of the star's. */
export const together = (seen, { pull, own, factor }) =>
  throughStar(seen, pull).sides.map((g, i) => factor * g + (own ? seen.own[i] : 0));

/** One step of gradient descent on the logarithms of the distances. */
export const step = (ltrb, gradient) => ltrb.map((d, i) => d * Math.exp(clamp(-RATE * d * gradient[i], -0.2, 0.2)));

/** How far each side may reach inside the view. */
const room = ({ point: [x, y], view: [left, top, side] }) => [x - left, y - top, left + side - x, top + side - y];

const inView = (cell, ltrb) => ltrb.map((d, i) => clamp(d, 1, room(cell)[i]));

const outward = (g) => (g < 0 ? "outward" : "inward"); // a step goes against the gradient

/** What the state means, in words. */
export function words(seen, ltrb, choices) {
  const [l, t, r, b] = ltrb;
  const box = `First box ${number(l + r, 1)} × ${number(t + b, 1)} px`;
  const known = `${box}: IoU ${number(seen.iou)}, refined ${number(seen.refinedIou)}; score ${number(seen.score)}.`;
  const star = throughStar(seen, choices.pull).sides;
  const most = star.reduce((best, g, i) => (Math.abs(g) > Math.abs(star[best]) ? i : best), 0);
  const share = number(choices.factor, 1);
  const own = choices.own ? `, the first box's own loss ${outward(seen.own[most])}` : "";
  return `${known} Factor ${share}. The star pulls most at the ${SIDES[most]}, ${outward(star[most])}${own}.`;
}

// ---- The picture ----------------------------------------------------------------------------------------------------
// On the photograph colours are the same in light and dark; a dark rim keeps them visible on any ground.

const SIZE = 360; // of the drawing
const RIM = "#101010";
const INKS = { first: "#ffffff", refined: "#ffd54f", truth: "#7ee8c0", star: "#ff9a52" };
const CHOICES = ["pull", "own", "factor"];
const STATE = ["which", "ltrb", ...CHOICES];

const choicesOf = (model) => Object.fromEntries(CHOICES.map((key) => [key, model.get(key)]));

/** Two strokes along one path or around one box: a dark rim, and the ink on it. */
function rimmed(tag, ink, width, more = {}) {
  const rim = svg(tag, { fill: "none", stroke: RIM, "stroke-width": width + 2.4, opacity: 0.65 });
  const line = svg(tag, { fill: "none", stroke: ink, "stroke-width": width, ...more });
  const both = svg("g", { "pointer-events": "none" }, rim, line);
  const draw = (attributes) => [rim, line].forEach((one) => set(one, attributes));
  return { element: both, draw };
}

/** The "d" of an arrow from (x, y) by (dx, dy); none where it is too short to see. */
export function arrow(x, y, dx, dy) {
  const length = Math.hypot(dx, dy);
  if (length < 1.5) return "M0 0";
  const [ux, uy] = [dx / length, dy / length];
  const head = Math.min(7, 0.6 * length);
  const wing = (side) => [x + dx - head * (ux - side * 0.6 * uy), y + dy - head * (uy + side * 0.6 * ux)];
  return (
    path([
      [x, y],
      [x + dx, y + dy],
    ]) + path([wing(1), [x + dx, y + dy], wing(-1)])
  );
}

/** What can be grabbed: a white ring, and around it room for a finger. */
const ring = () => [
  svg("circle", { r: 10, fill: "none", stroke: RIM, "stroke-width": 4, opacity: 0.6 }),
  svg("circle", { r: 10, fill: "none", stroke: "#fff", "stroke-width": 2 }),
  svg("circle", { r: 18, fill: "transparent" }),
];

/** Tap of each side, and which way is outward: x, y. */
const OUTWARD = [
  [3, -1, 0],
  [1, 0, -1],
  [5, 1, 0],
  [7, 0, 1],
];

/** Four taps move a side of the first box each; x and y of the drawing become pixels by `scale`. */
function moveSides(model, art, taps, scale) {
  const cell = () => model.get("cells")[model.get("which")];
  const put = (i, distance) => {
    const ltrb = [...model.get("ltrb")];
    ltrb[i] = Math.round(10 * distance) / 10;
    write(model, "ltrb", inView(cell(), ltrb));
  };
  OUTWARD.forEach(([k, wx, wy], i) => {
    taps[k].append(...ring());
    draggable(taps[k], art, {
      label: `${SIDES[i]} side of the first box`,
      drag: (x, y) => {
        const [px, py] = cell().point;
        const [left, top] = cell().view;
        put(i, wx * (x / scale() + left - px) + wy * (y / scale() + top - py));
      },
      nudge: (dx, dy) => put(i, model.get("ltrb")[i] + wx * dx + wy * dy),
    });
    set(taps[k], { "aria-valuemin": 1, "aria-orientation": wx ? "horizontal" : "vertical" });
  });
}

/** Picture, three boxes, nine points with their arrows, and beside each side its two pulls. */
function picture(model) {
  const label = "A cell's boxes, its star, and where each loss pulls";
  const art = svg("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group", "aria-label": label });
  const image = svg("image", { width: SIZE, height: SIZE });
  const [truth, refined, first] = [
    rimmed("rect", INKS.truth, 2, { "stroke-dasharray": "7 5" }),
    rimmed("rect", INKS.refined, 2),
    rimmed("rect", INKS.first, 2.2),
  ];
  const taps = Array.from({ length: 9 }, () => svg("g", {}, svg("circle", { r: 4, fill: "#fff", stroke: RIM })));
  const arrows = taps.map(() => rimmed("path", INKS.star, 2.2));
  const own = OUTWARD.map(() => rimmed("path", INKS.first, 3));
  const star = OUTWARD.map(() => rimmed("path", INKS.star, 3));
  const cell = () => model.get("cells")[model.get("which")];
  const scale = () => SIZE / cell().view[2];
  moveSides(model, art, taps, scale);
  const above = [0, 2, 4, 6, 8, ...OUTWARD.map(([k]) => k)].map((k) => taps[k]); // what can be grabbed is on top
  const drawn = [truth, refined, first, ...arrows, ...own, ...star].map(({ element }) => element);
  art.append(image, ...drawn, ...above);

  const place = ([x1, y1, x2, y2]) => {
    const [left, top] = cell().view;
    const s = scale();
    return { x: s * (x1 - left), y: s * (y1 - top), width: s * (x2 - x1), height: s * (y2 - y1) };
  };
  const draw = (seen, unit) => {
    const { point, view, image: href } = cell();
    const ltrb = model.get("ltrb");
    const { stride } = model.get("shape");
    const box = place(boxOf(point, ltrb));
    image.setAttribute("href", href);
    truth.draw(place(cell().truth));
    refined.draw(place(boxOf(point, seen.refined)));
    first.draw(box);
    const { points, sides } = throughStar(seen, model.get("pull"));
    starCells(point, ltrb, stride).forEach(([row, column], k) => {
      const [x, y] = [scale() * (column * stride - view[0]), scale() * (row * stride - view[1])];
      const [dy, dx] = points[k].map((g) => clamp((-g / stride) * unit, -70, 70));
      taps[k].setAttribute("transform", `translate(${x} ${y})`);
      arrows[k].draw({ d: arrow(x, y, dx, dy) });
    });
    OUTWARD.forEach(([k, wx, wy], i) => {
      const shift = [0.25, 0.75].map((part) => [
        box.x + (wx ? 0 : part) * box.width,
        box.y + (wx ? part : 0) * box.height,
      ]);
      const side = (g, [x, y]) => {
        const at = [x + (wx > 0 ? box.width : 0), y + (wy > 0 ? box.height : 0)];
        const long = clamp(-g * unit, -70, 70);
        return { d: arrow(...at, wx * long, wy * long) };
      };
      own[i].draw(side(model.get("own") ? seen.own[i] : 0, shift[0]));
      star[i].draw(side(model.get("factor") * sides[i], shift[1]));
      const text = `${number(ltrb[i], 1)} pixels from the point`;
      set(taps[k], { "aria-valuenow": ltrb[i], "aria-valuemax": room(cell())[i], "aria-valuetext": text });
    });
  };
  return { draw, element: html("div", { style: `flex:1 1 300px;max-width:${SIZE + 30}px` }, art) };
}

// ---- Numbers, controls, the panel -----------------------------------------------------------------------------------

const CLOSE = "white-space:nowrap;padding:3px 4px"; // a number stays on its line in a narrow column

/** Each side's pull outwards, in thousandths of the loss per pixel. */
function table(model) {
  const titles = ["side", "own", "star", "× factor", "step"];
  const rows = SIDES.map((name) => [
    html("th", { scope: "row", style: `${CLOSE};text-align:left` }, name),
    ...[1, 2, 3, 4].map(() => html("td", { style: CLOSE })),
  ]);
  const head = html("tr", {}, ...titles.map((title) => html("th", { scope: "col", style: CLOSE }, title)));
  const body = html("tbody", {}, ...rows.map((cells) => html("tr", {}, ...cells)));
  const caption = "Pull outwards (+) or inwards (−), in thousandths of the loss per pixel";
  const style = "caption-side:top;text-align:left;color:var(--ve-soft)";
  const draw = (seen) => {
    const { sides } = throughStar(seen, model.get("pull"));
    const all = together(seen, choicesOf(model));
    rows.forEach(([, ...cells], i) => {
      const values = [model.get("own") ? seen.own[i] : 0, sides[i], model.get("factor") * sides[i], all[i]];
      values.forEach((g, n) => {
        cells[n].textContent = number(-1000 * g, 1);
      });
    });
  };
  const element = html("table", {}, html("caption", { style }, caption), html("thead", {}, head), body);
  return { draw, element };
}

function legend() {
  const entries = [
    [INKS.truth, "7 5", "the object"],
    [INKS.first, null, "first box, and its own loss's pull"],
    [INKS.refined, null, "refined box"],
    [INKS.star, null, "pull through the star"],
  ];
  const lines = entries.map(([stroke, dash, text]) => {
    const art = svg("svg", {
      width: 30,
      height: 12,
      "aria-hidden": "true",
      style: "display:inline-block;margin-right:6px",
    });
    art.append(svg("line", { x1: 0, y1: 6, x2: 30, y2: 6, stroke: RIM, "stroke-width": 5 }));
    art.append(svg("line", { x1: 0, y1: 6, x2: 30, y2: 6, stroke, "stroke-width": 2.4, "stroke-dasharray": dash }));
    return html("div", {}, art, text);
  });
  return html("div", { style: "margin-top:6px" }, ...lines);
}

function button(text, press) {
  const style =
    "font:inherit;min-height:34px;padding:4px 14px;border-radius:6px;border:1px solid var(--ve-ink);" +
    "background:var(--ve-panel);color:var(--ve-ink);cursor:pointer";
  const element = html("button", { type: "button", style }, text);
  element.addEventListener("click", press);
  return element;
}

function controls(model, look, stops) {
  const names = model.get("cells").map(({ name }, i) => [i, name]);
  const pulls = ["both", "score", "refinement"].map((value) => [value, value]);
  const cell = () => model.get("cells")[model.get("which")];
  const go = (steps) => () => {
    let ltrb = model.get("ltrb");
    for (let n = 0; n < steps; n++) ltrb = inView(cell(), step(ltrb, together(look(ltrb), choicesOf(model))));
    write(model, "ltrb", ltrb);
  };
  const back = () => write(model, "ltrb", [...cell().ltrb]);
  let before = model.get("which");
  const changed = () => {
    if (model.get("which") !== before) back(); // another cell begins with its own box
    before = model.get("which");
  };
  stops.push(follow(model, ["which"], changed));
  const show = (v) => number(v, 1);
  return html(
    "div",
    { class: "ve-controls" },
    choice(model, "which", { label: "cell", options: names, stops }),
    choice(model, "pull", { label: "through the star", options: pulls, stops }),
    choice(model, "own", {
      label: "first box's own loss",
      options: [
        [true, "pulls"],
        [false, "is silent"],
      ],
      stops,
    }),
    slider(model, "factor", { label: "factor on the star's gradient", min: 0, max: 1, step: 0.1, show, stops }),
    html(
      "div",
      { style: "display:flex;gap:8px;flex-wrap:wrap" },
      button("Step", go(1)),
      button("Ten steps", go(10)),
      button("Back", back),
    ),
  );
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Refinement explorer");
  const bundle = unpack(model.get("data"), model.get("shape"), model.get("cells").length);
  const cell = () => model.get("cells")[model.get("which")];
  const look = (ltrb) => evaluate(bundle, model.get("which"), cell(), ltrb);
  const parts = [picture(model), table(model)];
  const units = model.get("cells").map((one, n) => {
    const seen = evaluate(bundle, n, one, one.ltrb); // at the start, the longest pull is 45 units long
    const { points, sides } = throughStar(seen, "both");
    return (
      45 / Math.max(...[...seen.own, ...sides, ...points.flat().map((g) => g / bundle.shape.stride)].map(Math.abs))
    );
  });
  const beside = html("div", { style: "flex:1 1 260px" }, parts[1].element, legend());
  const top = controls(model, look, stops);
  root.append(top, html("div", { class: "ve-row" }, parts[0].element, beside), says);
  const draw = () => {
    const seen = look(model.get("ltrb"));
    for (const part of parts) part.draw(seen, units[model.get("which")]);
    says.textContent = words(seen, model.get("ltrb"), choicesOf(model));
  };
  stops.push(follow(model, STATE, draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
