// The pyramid explorer: everything a dense detector says about one image, cell by cell.

/** Image point of a cell: its upper left corner, as the authors have it.  -> [x, y] pixels */
export const pointOf = (row, column, stride) => [column * stride, row * stride];

/** The cell of a map of shape [H, W] that covers an image point; outside the map the nearest one.  -> [row, column] */
export const cellAt = (x, y, stride, [h, w]) => [
  clamp(Math.floor(y / stride), 0, h - 1),
  clamp(Math.floor(x / stride), 0, w - 1),
];

/** Where each level begins in the list of all predictions, and where the last one ends. */
export function levelStarts(shapes) {
  const starts = [0];
  for (const [h, w] of shapes) starts.push(starts.at(-1) + h * w);
  return starts;
}

/** How many of predictions from .. to - 1 score above the threshold; a prediction is [x1, y1, x2, y2, score, label] */
export const countAbove = (rows, threshold, from = 0, to = rows.length) =>
  rows.slice(from, to).filter((row) => row[4] > threshold).length;

/** Intersection over union of two boxes [x1, y1, x2, y2] */
export function overlap(a, b) {
  const width = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const height = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / Math.max(area(a) + area(b) - width * height, 1e-6);
}

/** The object that a box overlaps most, [index, IoU]; [-1, 0] where it touches none. */
export function nearest(box, objects) {
  const shares = objects.map((object) => overlap(box, object));
  const best = Math.max(0, ...shares);
  return best > 0 ? [shares.indexOf(best), best] : [-1, 0];
}

/** Everything that the state points at. */
function chosen(model) {
  const level = clamp(model.get("level"), 0, model.get("strides").length - 1);
  const stride = model.get("strides")[level];
  const shape = model.get("shapes")[level];
  const starts = levelStarts(model.get("shapes"));
  const [row, column] = cellAt(model.get("x"), model.get("y"), stride, shape);
  const index = starts[level] + row * shape[1] + column;
  const [from, to] = [starts[level], starts[level + 1]];
  return { level, stride, shape, row, column, index, from, to, point: pointOf(row, column, stride) };
}

const title = (stride) => `P${Math.log2(stride)}`;
const px = (v) => number(v, Math.abs(v - Math.round(v)) < 0.05 ? 0 : 1);

function inWords(model) {
  const { stride, row, column, index, from, to, point } = chosen(model);
  const [rows, names, objects] = ["rows", "classes", "objects"].map((key) => model.get(key));
  const threshold = model.get("threshold");
  const [x1, y1, x2, y2, score, label] = rows[index];
  const [object, share] = nearest(rows[index], objects);
  const sides = [point[0] - x1, point[1] - y1, x2 - point[0], y2 - point[1]].map(px).join(", ");
  const cell = `cell (row ${row}, column ${column})`;
  const words = [
    `${title(stride)}, stride ${stride}: ${cell} sits at (${px(point[0])}, ${px(point[1])}) px.`,
    `Its best class is ${names[label]}, score ${number(score, 2)}.`,
    `Distances left, top, right, bottom: ${sides} px,`,
    `so its box runs from (${px(x1)}, ${px(y1)}) to (${px(x2)}, ${px(y2)}).`,
  ];
  if (object >= 0) {
    const name = names[objects[object][4]];
    words.push(`Of the real objects it overlaps a ${name} most, IoU ${number(share, 2)}.`);
  } else if (objects.length) {
    words.push("The box touches no object.");
  }
  const here = `${number(countAbove(rows, threshold, from, to), 0)} of ${number(to - from, 0)}`;
  const everywhere = `${number(countAbove(rows, threshold), 0)} of ${number(rows.length, 0)}`;
  words.push(`${here} cells of this level score above ${number(threshold, 2)}; on all levels ${everywhere}.`);
  return words.join(" ");
}

/** Move to the cell that covers (x, y) on a level; silent where nothing changes. */
function moveTo(model, level, x, y) {
  const stride = model.get("strides")[level];
  const now = chosen(model);
  const [row, column] = cellAt(x, y, stride, model.get("shapes")[level]);
  if (now.level === level && now.row === row && now.column === column) return;
  model.set("level", level);
  model.set("x", (column + 0.5) * stride);
  model.set("y", (row + 0.5) * stride);
  model.save_changes();
}

/** A pointer that hovers, presses or drags chooses; go(x, y) in viewBox coordinates. */
function pointed(area, go) {
  for (const kind of ["pointerdown", "pointermove"])
    area.addEventListener(kind, (event) => go(...position(area, event)));
}

const WIDE = 400; // width of the picture in viewBox units
const AMBER = "#ffb000"; // cells above the threshold: visible on pictures and panels of any brightness

/** The image with the grid of one level, the chosen cell, its distances and its box. */
function scene(model) {
  const [h, w] = model.get("size");
  const stride = model.get("strides")[0];
  const shape = model.get("shapes")[0];
  const k = WIDE / (shape[1] * stride); // the picture is padded to whole cells
  const high = shape[0] * stride * k;
  const area = svg("svg", {
    viewBox: `0 0 ${WIDE} ${high}`,
    role: "group",
    "aria-label": "image with the grid of the chosen level",
    style: "overflow: hidden; width: 100%",
  });
  const still = svg("g", { "pointer-events": "none" });
  const moving = svg("g", { "pointer-events": "none" });
  const cursor = svg("g", { style: "outline: none" }); // focus shows on the cell, not around all that can be touched
  draggable(cursor, area, {
    label: "cell",
    drag: () => {}, // the whole picture follows the pointer
    nudge: (dx, dy) => {
      const { level, stride, row, column } = chosen(model);
      moveTo(model, level, (column + dx + 0.5) * stride, (row + dy + 0.5) * stride);
    },
  });
  area.append(
    svg("rect", { width: WIDE, height: high, fill: "var(--ve-panel)" }),
    svg("image", { href: model.get("image"), width: w * k, height: h * k, preserveAspectRatio: "none" }),
    ...[still, cursor, moving],
  );
  pointed(area, (x, y) => moveTo(model, chosen(model).level, x / k, y / k));

  const draw = () => {
    still.replaceChildren(...gridAndPredictions(model, k, high));
    drawCursor(model, k, cursor);
    moving.replaceChildren(...chosenBox(model, k, high));
  };
  for (const kind of ["focus", "blur"]) cursor.addEventListener(kind, draw);
  return { area, draw };
}

/** The outline of a box [x1, y1, x2, y2], k units per pixel. */
const outline = ([x1, y1, x2, y2], k, look) =>
  svg("rect", { x: x1 * k, y: y1 * k, width: (x2 - x1) * k, height: (y2 - y1) * k, fill: "none", ...look });

/** The same shape twice: a white one below, so that the coloured one is seen on any picture. */
const bright = (make, stroke = "var(--ve-blue)") => [
  make({ stroke: "#fff", "stroke-width": 5, "stroke-opacity": 0.75 }),
  make({ stroke, "stroke-width": 2.5 }),
];

/** The cells of the chosen level, and which of its predictions score above the threshold. */
function gridAndPredictions(model, k, high) {
  const { stride, shape, from, to } = chosen(model);
  const threshold = model.get("threshold");
  let grid = "";
  for (let i = 0; i <= shape[0]; i++) grid += `M0 ${i * stride * k}H${WIDE}`;
  for (let j = 0; j <= shape[1]; j++) grid += `M${j * stride * k} 0V${high}`;
  const boxes = [];
  const dots = [];
  const rows = model.get("rows").slice(from, to);
  rows.forEach((row, i) => {
    if (row[4] <= threshold) return;
    const [x, y] = pointOf(Math.floor(i / shape[1]), i % shape[1], stride);
    boxes.push(outline(row, k, { stroke: "#000", "stroke-width": 2.4, "stroke-opacity": 0.25 }));
    boxes.push(outline(row, k, { stroke: AMBER, "stroke-width": 1.2 }));
    dots.push(svg("circle", { cx: x * k, cy: y * k, r: 4, fill: AMBER, stroke: "#000", "stroke-width": 1 }));
  });
  return [
    svg("path", { d: grid, stroke: "#000", "stroke-width": 1.6, "stroke-opacity": 0.35 }),
    svg("path", { d: grid, stroke: "#fff", "stroke-width": 0.8, "stroke-opacity": 0.6 }),
    ...boxes,
    ...dots,
  ];
}

/** The chosen cell: what is seen of it, what can be touched, and what is heard. */
function drawCursor(model, k, cursor) {
  const { stride, row, column, index, from, to, point } = chosen(model);
  const [x, y] = point;
  const cell = [x, y, x + stride, y + stride];
  const half = (stride * k) / 2;
  const reach = Math.max(24, stride * k * 0.75); // room for a finger
  cursor.replaceChildren(
    svg("circle", { cx: x * k + half, cy: y * k + half, r: reach, fill: "transparent" }),
    ...bright((look) => outline(cell, k, look), "var(--ve-orange)"),
  );
  if (cursor.matches(":focus")) cursor.append(outline(cell, k, { stroke: "var(--ve-orange)", "stroke-width": 6 }));
  const [score, label] = model.get("rows")[index].slice(4);
  set(cursor, {
    "aria-valuemin": 0,
    "aria-valuemax": to - from - 1,
    "aria-valuenow": index - from,
    "aria-valuetext": `row ${row}, column ${column}, ${model.get("classes")[label]} ${number(score, 2)}`,
  });
}

/** The box of the chosen cell and its four distances, each with its letter; below, the object it overlaps most. */
function chosenBox(model, k, high) {
  const { index, point } = chosen(model);
  const [x, y] = point.map((v) => v * k);
  const box = model.get("rows")[index];
  const object = model.get("objects")[nearest(box, model.get("objects"))[0]];
  const ends = { l: [box[0] * k, y], t: [x, box[1] * k], r: [box[2] * k, y], b: [x, box[3] * k] };
  const long = Object.entries(ends).filter(([, [ex, ey]]) => Math.hypot(ex - x, ey - y) > 34); // room for its letter
  const style = "font-weight: 700; fill: #000; paint-order: stroke; stroke: #fff; stroke-width: 4px";
  const letters = long.map(([side, [ex, ey]]) => {
    const [right, down] = ey === y ? [0, -5] : [9, 4]; // beside its line
    const at = { x: clamp((x + ex) / 2 + right, 8, WIDE - 8), y: clamp((y + ey) / 2 + down, 12, high - 4) };
    return svg("text", { ...at, "text-anchor": "middle", style }, side);
  });
  const truth = object
    ? [
        outline(object, k, { stroke: "#000", "stroke-width": 4, "stroke-opacity": 0.55 }),
        outline(object, k, { stroke: "#7dffcf", "stroke-width": 2.5, "stroke-dasharray": "7 5" }),
      ]
    : [];
  const arms = Object.values(ends).flatMap(([ex, ey]) =>
    bright((look) => svg("line", { x1: x, y1: y, x2: ex, y2: ey, ...look })),
  );
  return [
    ...truth,
    ...bright((look) => outline(box, k, look)),
    ...arms,
    ...letters,
    svg("circle", { cx: x, cy: y, r: 6, fill: "var(--ve-blue)", stroke: "#fff", "stroke-width": 2 }),
  ];
}

/** Where the maps of all levels go: the first on the left, the others below each other on the right. */
function layout(shapes) {
  const side = 250 / shapes[0][1]; // of a cell
  const gap = 16;
  const head = 24;
  let below = 0;
  const corners = shapes.map(([h], i) => {
    if (i === 0) return [0, head];
    const corner = [shapes[0][1] * side + gap, below + head];
    below += h * side + head + 4;
    return corner;
  });
  const width = shapes[0][1] * side + (shapes.length > 1 ? gap + Math.max(shapes[1][1] * side, 90) : 0) + 2;
  const height = Math.max(shapes[0][0] * side + head, below) + 2;
  return { side, corners, width, height };
}

/** The scores of all levels as maps with cells of one size: fine levels are large here, coarse ones small. */
function maps(model) {
  const strides = model.get("strides");
  const shapes = model.get("shapes");
  const starts = levelStarts(shapes);
  const rows = model.get("rows");
  const { side, corners, width, height } = layout(shapes);
  const area = svg("svg", {
    viewBox: `-1 0 ${width} ${height}`,
    role: "img",
    "aria-label": "scores of all cells of all levels",
    style: "width: 100%",
  });
  const marks = svg("g");

  const levels = shapes.map(([h, w], i) => {
    const [left, top] = corners[i];
    const cells = rows.slice(starts[i], starts[i + 1]);
    const holds = (x, y) => x >= left && x < left + w * side && y >= top && y < top + h * side;
    return { h, w, left, top, stride: strides[i], cells, holds };
  });
  for (const { h, w, left, top, stride, cells } of levels) {
    area.append(svg("text", { x: left, y: top - 6, style: "font-size: 17px" }, `${title(stride)}: ${h} × ${w}`));
    const ink = { fill: "var(--ve-blue)", stroke: "var(--ve-line)", "stroke-width": 0.5 };
    cells.forEach((cell, n) => {
      const [x, y] = [left + (n % w) * side, top + Math.floor(n / w) * side];
      area.append(svg("rect", { x, y, width: side, height: side, ...ink, "fill-opacity": cell[4] }));
    });
  }
  area.append(marks);
  pointed(area, (x, y) => {
    const level = levels.findIndex((one) => one.holds(x, y));
    if (level < 0) return;
    const { left, top, stride } = levels[level];
    moveTo(model, level, ((x - left) / side) * stride, ((y - top) / side) * stride);
  });
  return { area, draw: () => marks.replaceChildren(...markedCells(model, levels, side)) };
}

/** A dot on every cell above the threshold, frames around the chosen level and the chosen cell. */
function markedCells(model, levels, side) {
  const { level, shape, row, column } = chosen(model);
  const threshold = model.get("threshold");
  const ink = { r: side / 4.5, fill: AMBER, stroke: "#000", "stroke-width": 0.8 };
  const dots = levels.flatMap(({ w, left, top, cells }) =>
    cells.flatMap((cell, n) => {
      if (cell[4] <= threshold) return [];
      const at = { cx: left + ((n % w) + 0.5) * side, cy: top + (Math.floor(n / w) + 0.5) * side };
      return [svg("circle", { ...at, ...ink })];
    }),
  );
  const { left, top } = levels[level];
  const frame = (x, y, columns, rows, look) =>
    svg("rect", { x, y, width: columns * side, height: rows * side, fill: "none", ...look });
  return [
    ...dots,
    frame(left, top, shape[1], shape[0], { stroke: "currentColor", "stroke-width": 1.5 }),
    frame(left + column * side, top + row * side, 1, 1, { stroke: "var(--ve-orange)", "stroke-width": 3 }),
  ];
}

export function render({ model, el }) {
  const { root, says } = panel(el, "Pyramid explorer");
  const stops = [];
  const levels = model.get("strides").map((stride, i) => [i, `${title(stride)}, stride ${stride}`]);
  const controls = html(
    "div",
    { class: "ve-controls" },
    choice(model, "level", { label: "Level", options: levels, stops }),
    slider(model, "threshold", { label: "Score threshold", min: 0, max: 0.95, step: 0.01, stops }),
  );
  const left = scene(model);
  const right = maps(model);
  const note =
    "A solid blue cell scores 1, an empty one 0. " +
    "Dots: cells above the threshold; thin boxes: what those of this level predict.";
  const dashed = model.get("objects").length ? " Dashed: the real object." : "";
  const key = html("p", { style: "margin: 6px 0 0; color: var(--ve-soft); font-size: 13px" }, note + dashed);
  const row = html(
    "div",
    { class: "ve-row" },
    html("div", { style: "flex-grow: 1.5; flex-basis: 270px" }, left.area),
    html("div", { style: "flex-basis: 220px" }, right.area, key),
  );
  root.append(controls, row, says);
  const draw = () => {
    left.draw();
    right.draw();
    says.textContent = inWords(model);
  };
  stops.push(follow(model, ["level", "x", "y", "threshold"], draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
