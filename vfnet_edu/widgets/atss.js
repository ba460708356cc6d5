// The ATSS explorer.  The rule itself comes first, as pure functions; tests compare them with vfnet_edu.assigners.atss.

const SIDE = 8; // of an anchor, in strides
const LEAST = 8; // smallest side of the object, pixels

/** IoU of two boxes [x1, y1, x2, y2]. */
export function iou(a, b) {
  const w = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const h = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const area = (c) => (c[2] - c[0]) * (c[3] - c[1]);
  return (w * h) / Math.max(area(a) + area(b) - w * h, 1e-6);
}

/** Mean and unbiased standard deviation (n - 1) of a list. */
export function meanAndStd(values) {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const squares = values.reduce((sum, v) => sum + (v - mean) ** 2, 0);
  return [mean, Math.sqrt(squares / (values.length - 1))];
}

/** The k points of a level nearest to (cx, cy), nearest first; of two equally near, the first in reading order.
 *  -> {points: [{index, x, y}], tied: whether the k-th is no nearer than the next} */
export function nearest(width, height, stride, cx, cy, k) {
  const columns = Math.ceil(width / stride);
  const rows = Math.ceil(height / stride);
  const points = Array.from({ length: columns * rows }, (_, index) => {
    const x = (index % columns) * stride;
    const y = Math.floor(index / columns) * stride;
    return { index, x, y, distance: Math.sqrt((x - cx) ** 2 + (y - cy) ** 2) };
  });
  points.sort((a, b) => a.distance - b.distance || a.index - b.index);
  return { points: points.slice(0, k), tied: points.length > k && points[k - 1].distance === points[k].distance };
}

/** ATSS for one object.  -> {candidates, mean, std, threshold, tied: [level, ...]}; a candidate's `fate` is "positive",
 *  "low" (below the threshold) or "outside" (at or above it, but its point lies outside the object). */
export function assign(box, k, width, height, strides) {
  const cx = (box[0] + box[2]) / 2;
  const cy = (box[1] + box[3]) / 2;
  const candidates = [];
  const tied = [];
  for (const stride of strides) {
    const level = Math.log2(stride);
    const half = (SIDE * stride) / 2;
    const near = nearest(width, height, stride, cx, cy, k);
    if (near.tied) tied.push(level);
    for (const p of near.points)
      candidates.push({ ...p, level, half, iou: iou([p.x - half, p.y - half, p.x + half, p.y + half], box) });
  }
  const [mean, std] = meanAndStd(candidates.map((c) => c.iou));
  const threshold = mean + std;
  for (const c of candidates) {
    const inside = Math.min(c.x - box[0], c.y - box[1], box[2] - c.x, box[3] - c.y) > 0.01;
    c.fate = !(c.iou >= threshold) ? "low" : inside ? "positive" : "outside";
  }
  return { candidates, mean, std, threshold, tied };
}

/** The state in words. */
export function sentence({ candidates, mean, std, threshold, tied }, k) {
  const count = (what) => candidates.filter(what).length;
  const levels = [...new Set(candidates.map((c) => c.level))];
  const pass = count((c) => c.fate !== "low");
  const positive = count((c) => c.fate === "positive");
  const shares = levels.map((l) => [l, count((c) => c.level === l && c.fate === "positive")]).filter(([, n]) => n);
  const where = shares.map(([l, n]) => `${n} on P${l}`).join(", ");

  let verdict = `${pass} pass, ${positive === pass ? "all" : positive || "none"} of them inside the box`;
  if (pass === 1) verdict = `1 passes, and lies ${positive ? "inside" : "outside"} the box`;
  if (pass === 0) verdict = "none passes";
  const learn = positive ? `${positive} positive${positive === 1 ? "" : "s"} (${where})` : "nobody learns this object";
  const ties = tied.map((l) => `P${l}`).join(", ");
  const tie = ties && ` Tie on ${ties}: another point is as near as the last one taken.`;
  return (
    `k = ${k}: ${candidates.length} candidates on ${levels.length} levels, ` +
    `mean IoU ${number(mean, 3)} + std ${number(std, 3)} = threshold ${number(threshold, 3)}; ` +
    `${verdict}: ${learn}.${tie}`
  );
}

// ---- the picture

const COLOURS = ["blue", "orange", "green", "pink", "yellow"].map((name) => `var(--ve-${name})`);

/** A candidate at (x, y): a disc, a ring or a cross of radius r. */
function mark(fate, x, y, r, colour) {
  if (fate === "positive")
    return svg("circle", { cx: x, cy: y, r, fill: colour, stroke: "var(--ve-ground)", "stroke-width": 1 });
  if (fate === "low")
    return svg("circle", { cx: x, cy: y, r: r - 0.7, fill: "none", stroke: colour, "stroke-width": 1.4 });
  return svg("path", {
    d: `M${x - r} ${y - r}l${2 * r} ${2 * r}M${x - r} ${y + r}l${2 * r} ${-2 * r}`,
    stroke: colour,
    "stroke-width": 2.2,
  });
}

/** Dots of equal IoU are stacked, one row per level. */
function strip(result, strides, shown) {
  const width = 330;
  const height = 300;
  const rows = strides.length;
  const { group, X, Y } = plot({
    width,
    height,
    top: 44,
    left: 34,
    x: { range: [0, 1], ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], label: "IoU with the object" },
    y: {
      range: [0, rows],
      ticks: strides.map((_, i) => rows - 1 - i),
      show: (t) => `P${Math.log2(strides[rows - 1 - t])}`,
    },
  });
  strides.forEach((stride, i) => {
    const candidates = result.candidates.filter((c) => c.level === Math.log2(stride));
    const row = svg("g", { opacity: shown(Math.log2(stride)) ? 1 : 0.2 });
    row.append(...stacked(candidates, X, Y(rows - 1 - i) - 4, Y(0) - Y(1) - 12, COLOURS[i % 5]));
    group.append(row);
  });
  const line = (value, text, y, dash, leftOfIt) => {
    if (!(value <= 1)) return; // not a number: a single candidate has no deviation
    const x = X(value);
    const at = { x: leftOfIt ? x + 2 : x - 2, y, "text-anchor": leftOfIt ? "end" : "start" };
    const halo = { stroke: "var(--ve-ground)", "stroke-width": 5, "paint-order": "stroke" }; // a line may run behind
    const ink = { stroke: "currentColor", "stroke-width": 1.6, "stroke-dasharray": dash };
    group.append(
      svg("line", { x1: x, x2: x, y1: y + 5, y2: height - 38, ...ink }),
      svg("text", { ...at, ...halo }, `${text} ${number(value, 3)}`),
    );
  };
  line(result.threshold, "mean + std: threshold", 14, null, result.threshold > 0.42);
  line(result.mean, "mean", 32, "4 4", result.mean > 0.14); // left of its line wherever there is room
  return group;
}

/** Marks of candidates along the scale X, best last; those too near to each other stack up from `bottom`. */
function stacked(candidates, X, bottom, room, colour) {
  const step = 6;
  const stacks = new Map();
  for (const c of [...candidates].sort((a, b) => a.iou - b.iou)) {
    const bin = Math.round(X(c.iou) / step);
    stacks.set(bin, [...(stacks.get(bin) ?? []), c]);
  }
  const rise = Math.min(step, room / Math.max(...[...stacks.values()].map((stack) => stack.length)));
  return [...stacks].flatMap(([bin, stack]) =>
    stack.map((c, n) => mark(c.fate, bin * step, bottom - n * rise, 3, colour)),
  );
}

/** Name, and where its x and its y are in [x1, y1, x2, y2]. */
const CORNERS = [
  ["top left", 0, 1],
  ["top right", 2, 1],
  ["bottom right", 2, 3],
  ["bottom left", 0, 3],
];

/** The object: a frame that moves it and four handles that resize it; `place` puts all where the box is. */
function movable(model, plane) {
  const W = model.get("width");
  const H = model.get("height");
  const ellipse = svg("ellipse", { fill: "var(--ve-soft)", opacity: 0.28 });
  const frame = svg("rect", { fill: "transparent", stroke: "currentColor", "stroke-width": 2 });
  const keep = (box) => write(model, "box", box.map(Math.round));
  const moveTo = (x, y) => {
    const [x1, y1, x2, y2] = model.get("box");
    const [w, h] = [x2 - x1, y2 - y1];
    const left = clamp(Math.round(x - w / 2), 0, W - w);
    const top = clamp(Math.round(y - h / 2), 0, H - h);
    keep([left, top, left + w, top + h]);
  };
  const nudge = (dx, dy) => {
    const [x1, y1, x2, y2] = model.get("box");
    moveTo((x1 + x2) / 2 + dx, (y1 + y2) / 2 + dy);
  };
  draggable(frame, plane, { label: "Object: move", drag: moveTo, nudge });
  const corners = CORNERS.map(([name, i, j]) => corner(model, plane, name, i, j, keep));
  for (const handle of [frame, ...corners.map((c) => c.handle)])
    set(handle, { "aria-valuemin": 0, "aria-valuemax": W });

  const place = (box) => {
    const [x1, y1, x2, y2] = box;
    const where = `from (${x1}, ${y1}) to (${x2}, ${y2})`;
    const spoken = (now, text) => ({ "aria-valuenow": now, "aria-valuetext": text });
    const middle = (x1 + x2) / 2;
    set(ellipse, { cx: middle, cy: (y1 + y2) / 2, rx: (x2 - x1) / 2, ry: (y2 - y1) / 2 });
    set(frame, { x: x1, y: y1, width: x2 - x1, height: y2 - y1, ...spoken(middle, where) });
    for (const { handle, i, j, away } of corners) {
      const transform = `translate(${box[i] + away[0]} ${box[j] + away[1]})`;
      set(handle, { transform, ...spoken(box[i], `(${box[i]}, ${box[j]}), object ${where}`) });
    }
  };
  return { ellipse, frame, handles: corners.map((c) => c.handle), place };
}

/** The handle of the corner whose x and y are the i-th and the j-th number of the box. */
function corner(model, plane, name, i, j, keep) {
  const handle = svg(
    "g",
    {},
    svg("circle", { r: 10, fill: "transparent" }),
    svg("rect", { x: -4, y: -4, width: 8, height: 8, rx: 1.5, fill: "currentColor", stroke: "var(--ve-ground)" }),
  );
  const away = [i ? 8 : -8, j === 3 ? 8 : -8]; // outside the corner, so that a small object can still be grabbed
  const to = (x, y) => {
    const b = [...model.get("box")];
    b[i] = i === 0 ? clamp(x, 0, b[2] - LEAST) : clamp(x, b[0] + LEAST, model.get("width"));
    b[j] = j === 1 ? clamp(y, 0, b[3] - LEAST) : clamp(y, b[1] + LEAST, model.get("height"));
    keep(b);
  };
  draggable(handle, plane, {
    label: `Object: ${name} corner`,
    drag: (x, y) => to(x - away[0], y - away[1]),
    nudge: (dx, dy) => to(model.get("box")[i] + dx, model.get("box")[j] + dy),
  });
  return { handle, i, j, away };
}

/** The image with the object, the points of the shown levels and the candidates; `draw` shows a result. */
function picture(model) {
  const W = model.get("width");
  const H = model.get("height");
  const strides = model.get("strides");
  const margin = 18;
  const clip = `ve-atss-${Math.random().toString(36).slice(2)}`;
  const plane = svg("svg", {
    viewBox: `${-margin} ${-margin} ${W + 2 * margin} ${H + 2 * margin}`,
    role: "group",
    "aria-label": "The image, the object and its candidates",
  });
  const under = svg("g");
  const over = svg("g", { "pointer-events": "none" });
  const { ellipse, frame, handles, place } = movable(model, plane);
  plane.append(
    svg("defs", {}, svg("clipPath", { id: clip }, svg("rect", { width: W, height: H }))),
    svg("rect", { width: W, height: H, fill: "var(--ve-panel)", stroke: "var(--ve-line)" }),
    ...[under, ellipse, frame, over, ...handles],
  );
  plane.append(invitation(model));

  const indexOf = (candidate) => strides.indexOf(2 ** candidate.level);
  const colourOf = (candidate) => COLOURS[indexOf(candidate) % 5];
  const draw = (candidates, only, shown) => {
    place(model.get("box"));
    const finest = only === 0 ? Math.min(...strides) : 2 ** only;
    const points = nearest(W, H, finest, 0, 0, Infinity).points;
    under.replaceChildren(...points.map(({ x, y }) => svg("circle", { cx: x, cy: y, r: 0.8, fill: "var(--ve-soft)" })));
    const closest = candidates.find((c) => c.level === only);
    if (closest) under.append(anchor(closest, colourOf(closest), clip));
    const marks = candidates.map((c) => {
      const shape = mark(c.fate, c.x, c.y, 3.2 + 1.7 * indexOf(c), colourOf(c));
      return set(shape, { opacity: shown(c.level) ? 1 : 0.15 });
    });
    over.replaceChildren(...marks.reverse()); // coarse levels below: their marks are larger
  };
  return { plane, draw };
}

/** "drag me" under the object, until somebody does. */
function invitation(model) {
  const [x1, y1, x2, y2] = model.get("box");
  const below = y2 + 34 < model.get("height");
  const halo = { stroke: "var(--ve-panel)", "stroke-width": 5, "paint-order": "stroke", "pointer-events": "none" };
  const words = svg(
    "text",
    { x: (x1 + x2) / 2, y: below ? y2 + 30 : y1 - 16, "text-anchor": "middle", "font-weight": 600, ...halo },
    "↔ drag me, or a corner",
  );
  model.on("change:box", () => words.remove());
  return words;
}

/** The square of a candidate, dashed. */
function anchor({ x, y, half }, colour, clip) {
  return svg("rect", {
    x: x - half,
    y: y - half,
    width: 2 * half,
    height: 2 * half,
    fill: "none",
    stroke: colour,
    "stroke-width": 1.6,
    "stroke-dasharray": "5 4",
    "clip-path": `url(#${clip})`,
  });
}

const KEY =
  "Disc: positive. Ring: below the threshold. Cross: above it, but the point lies outside the object. " +
  "Colour and size: the level. With one level shown, the dashed square is the anchor of its nearest point.";

function render({ model, el }) {
  const stops = [];
  const strides = model.get("strides");
  const { root, says } = panel(el, `ATSS on ${strides.length} levels: which points learn the object?`);
  const image = picture(model);
  const chart = svg("svg", { viewBox: "0 0 330 300", role: "img" });
  const levels = strides.map((s) => [Math.log2(s), `P${Math.log2(s)}`]);
  const controls = html(
    "div",
    { class: "ve-controls" },
    slider(model, "k", { label: "k, candidates per level", min: 1, max: 25, step: 1, show: String, stops }),
    choice(model, "level", { label: "Show", options: [[0, "all levels"], ...levels], stops }),
  );
  root.append(
    controls,
    html("div", { class: "ve-row" }, image.plane, chart),
    html("p", { class: "ve-key" }, KEY),
    says,
  );

  const draw = () => {
    const only = model.get("level");
    const shown = (level) => only === 0 || only === level;
    const result = assign(model.get("box"), model.get("k"), model.get("width"), model.get("height"), strides);
    const { candidates, mean, threshold } = result;
    image.draw(candidates, only, shown);
    chart.replaceChildren(strip(result, strides, shown));
    says.textContent = sentence(result, model.get("k"));
    const numbers = `mean ${number(mean, 3)}, threshold ${number(threshold, 3)}`;
    set(chart, {
      "aria-label": `IoU of the ${candidates.length} candidates with the object, one row per level: ${numbers}`,
    });
  };
  stops.push(follow(model, ["box", "k", "level"], draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
