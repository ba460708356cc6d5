// The pyramid explorer: everything a dense detector says about one image, cell by cell.

/** Image point of a cell: its upper left corner, as the authors have it.  -> [x, y] pixels */
export const pointOf = (row, column, stride) => [column * stride, row * stride];

/** The cell of a map of shape [H, W] that covers an image point; outside the map the nearest one.  -> [row, column] */
export const cellAt = (x, y, stride, [h, w]) => [
  clamp(Math.floor(y / stride), 0, h - 1),
  clamp(Math.floor(x / stride), 0, w - 1),
];

/** Where each level begins in the list of all predictions, and where the last one ends. */
export const levelStarts = (shapes) => shapes.reduce((starts, [h, w]) => [...starts, starts.at(-1) + h * w], [0]);

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
  const shares = objects.map((object) => overlap(box, object)), best = Math.max(0, ...shares);
  return best > 0 ? [shares.indexOf(best), best] : [-1, 0];
}

/** Everything that the state points at. */
function chosen(model) {
  const level = clamp(model.get("level"), 0, model.get("strides").length - 1);
  const stride = model.get("strides")[level], shape = model.get("shapes")[level], starts = levelStarts(model.get("shapes"));
  const [row, column] = cellAt(model.get("x"), model.get("y"), stride, shape);
  const index = starts[level] + row * shape[1] + column;
  return { level, stride, shape, row, column, index, from: starts[level], to: starts[level + 1], point: pointOf(row, column, stride) };
}

const title = (stride) => `P${Math.log2(stride)}`;
const px = (v) => number(v, Math.abs(v - Math.round(v)) < 0.05 ? 0 : 1);

function inWords(model) {
  const { level, stride, row, column, index, from, to, point } = chosen(model);
  const rows = model.get("rows"), names = model.get("classes"), objects = model.get("objects"), threshold = model.get("threshold");
  const [x1, y1, x2, y2, score, label] = rows[index], [object, share] = nearest(rows[index], objects);
  const sides = [point[0] - x1, point[1] - y1, x2 - point[0], y2 - point[1]].map(px).join(", ");
  const words = [
    `${title(stride)}, stride ${stride}: cell (row ${row}, column ${column}) sits at (${px(point[0])}, ${px(point[1])}) px.`,
    `Its best class is ${names[label]}, score ${number(score, 2)}.`,
    `Distances left, top, right, bottom: ${sides} px, so its box runs from (${px(x1)}, ${px(y1)}) to (${px(x2)}, ${px(y2)}).`,
  ];
  if (objects.length)
    words.push(object < 0 ? "The box touches no object." : `Of the real objects it overlaps a ${names[objects[object][4]]} most, IoU ${number(share, 2)}.`);
  words.push(
    `${number(countAbove(rows, threshold, from, to), 0)} of ${number(to - from, 0)} cells of this level score above ${number(threshold, 2)}` +
      `; on all levels ${number(countAbove(rows, threshold), 0)} of ${number(rows.length, 0)}.`,
  );
  return words.join(" ");
}

/** Move to the cell that covers (x, y) on a level; silent where nothing changes. */
function moveTo(model, level, x, y) {
  const stride = model.get("strides")[level], now = chosen(model);
  const [row, column] = cellAt(x, y, stride, model.get("shapes")[level]);
  if (now.level === level && now.row === row && now.column === column) return;
  model.set("level", level);
  model.set("x", (column + 0.5) * stride);
  model.set("y", (row + 0.5) * stride);
  model.save_changes();
}

/** A pointer that hovers, presses or drags chooses; go(x, y) in viewBox coordinates. */
function pointed(area, go) {
  for (const kind of ["pointerdown", "pointermove"]) area.addEventListener(kind, (event) => go(...position(area, event)));
}

const WIDE = 400; // width of the picture in viewBox units
const AMBER = "#ffb000"; // cells above the threshold: seen on pictures and panels of any brightness

/** The image with the grid of one level, the chosen cell, its distances and its box. */
function scene(model) {
  const [h, w] = model.get("size"), strides = model.get("strides"), shapes = model.get("shapes");
  const frame = [shapes[0][1] * strides[0], shapes[0][0] * strides[0]], k = WIDE / frame[0]; // padded to whole cells
  const area = svg("svg", { viewBox: `0 0 ${WIDE} ${frame[1] * k}`, role: "group", "aria-label": "image with the grid of the chosen level", style: "overflow: hidden; width: 100%" });
  const rect = (box, attributes) => svg("rect", { x: box[0] * k, y: box[1] * k, width: (box[2] - box[0]) * k, height: (box[3] - box[1]) * k, fill: "none", ...attributes });
  const bright = (make, stroke = "var(--ve-blue)") => [make({ stroke: "#fff", "stroke-width": 5, "stroke-opacity": 0.75 }), make({ stroke, "stroke-width": 2.5 })];

  area.append(svg("rect", { width: WIDE, height: frame[1] * k, fill: "var(--ve-panel)" }), svg("image", { href: model.get("image"), width: w * k, height: h * k, preserveAspectRatio: "none" }));
  const still = svg("g", { "pointer-events": "none" }), moving = svg("g", { "pointer-events": "none" });
  const cursor = svg("g", { style: "outline: none" }); // its focus shows on the cell, not around the larger area to touch
  draggable(cursor, area, {
    label: "cell",
    drag: () => {}, // the whole picture follows the pointer
    nudge: (dx, dy) => {
      const { level, stride, row, column } = chosen(model);
      moveTo(model, level, (column + dx + 0.5) * stride, (row + dy + 0.5) * stride);
    },
  });
  area.append(still, cursor, moving);
  pointed(area, (x, y) => moveTo(model, chosen(model).level, x / k, y / k));
  for (const kind of ["focus", "blur"]) cursor.addEventListener(kind, draw);

  function draw() {
    const { stride, shape, row, column, index, from, to, point } = chosen(model);
    const rows = model.get("rows"), threshold = model.get("threshold"), objects = model.get("objects");
    let grid = "";
    for (let i = 0; i <= shape[0]; i++) grid += `M0 ${i * stride * k}H${WIDE}`;
    for (let j = 0; j <= shape[1]; j++) grid += `M${j * stride * k} 0V${frame[1] * k}`;
    const above = rows.slice(from, to).flatMap((r, i) => (r[4] > threshold ? [[r, pointOf(Math.floor(i / shape[1]), i % shape[1], stride)]] : []));
    still.replaceChildren(
      svg("path", { d: grid, stroke: "#000", "stroke-width": 1.6, "stroke-opacity": 0.35 }),
      svg("path", { d: grid, stroke: "#fff", "stroke-width": 0.8, "stroke-opacity": 0.6 }),
      ...above.flatMap(([r]) => [rect(r, { stroke: "#000", "stroke-width": 2.4, "stroke-opacity": 0.25 }), rect(r, { stroke: AMBER, "stroke-width": 1.2 })]),
      ...above.map(([, [x, y]]) => svg("circle", { cx: x * k, cy: y * k, r: 4, fill: AMBER, stroke: "#000", "stroke-width": 1 })),
    );

    const cell = [point[0], point[1], point[0] + stride, point[1] + stride], [x, y] = point.map((v) => v * k);
    const middle = [x + (stride * k) / 2, y + (stride * k) / 2];
    cursor.replaceChildren(svg("circle", { cx: middle[0], cy: middle[1], r: Math.max(24, stride * k * 0.75), fill: "transparent" }), ...bright((more) => rect(cell, more), "var(--ve-orange)"));
    if (cursor.matches(":focus")) cursor.append(rect(cell, { stroke: "var(--ve-orange)", "stroke-width": 6 }));
    set(cursor, { "aria-valuemin": 0, "aria-valuemax": to - from - 1, "aria-valuenow": index - from, "aria-valuetext": `row ${row}, column ${column}, ${model.get("classes")[rows[index][5]]} ${number(rows[index][4], 2)}` });

    const box = rows[index], [object] = nearest(box, objects);
    const ends = { l: [box[0] * k, y], t: [x, box[1] * k], r: [box[2] * k, y], b: [x, box[3] * k] };
    const long = Object.entries(ends).filter(([, [ex, ey]]) => Math.hypot(ex - x, ey - y) > 34); // room for its letter
    const letters = long.map(([side, [ex, ey]]) => {
      const at = { x: clamp((x + ex) / 2 + (ey === y ? 0 : 9), 8, WIDE - 8), y: clamp((y + ey) / 2 + (ey === y ? -5 : 4), 12, frame[1] * k - 4), "text-anchor": "middle" };
      return svg("text", { ...at, style: "font-weight: 700; fill: #000; paint-order: stroke; stroke: #fff; stroke-width: 4px" }, side);
    });
    moving.replaceChildren(
      ...(object < 0 ? [] : [rect(objects[object], { stroke: "#000", "stroke-width": 4, "stroke-opacity": 0.55 }), rect(objects[object], { stroke: "#7dffcf", "stroke-width": 2.5, "stroke-dasharray": "7 5" })]),
      ...bright((more) => rect(box, more)),
      ...Object.values(ends).flatMap(([ex, ey]) => bright((more) => svg("line", { x1: x, y1: y, x2: ex, y2: ey, ...more }))),
      ...letters,
      svg("circle", { cx: x, cy: y, r: 6, fill: "var(--ve-blue)", stroke: "#fff", "stroke-width": 2 }),
    );
  }
  return { area, draw };
}

/** The scores of all levels as maps with cells of one size: fine levels are large here, coarse ones small. */
function maps(model) {
  const strides = model.get("strides"), shapes = model.get("shapes"), starts = levelStarts(shapes), rows = model.get("rows");
  const side = 250 / shapes[0][1], gap = 16, head = 24;
  let below = 0;
  const corners = shapes.map(([h], i) => {
    if (i === 0) return [0, head];
    const corner = [shapes[0][1] * side + gap, below + head];
    below += h * side + head + 4;
    return corner;
  });
  const width = shapes[0][1] * side + (shapes.length > 1 ? gap + Math.max(shapes[1][1] * side, 90) : 0) + 2;
  const height = Math.max(shapes[0][0] * side + head, below) + 2;
  const area = svg("svg", { viewBox: `-1 0 ${width} ${height}`, role: "img", "aria-label": "scores of all cells of all levels", style: "width: 100%" });
  const marks = svg("g");

  shapes.forEach(([h, w], i) => {
    const [left, top] = corners[i];
    area.append(svg("text", { x: left, y: top - 6, style: "font-size: 17px" }, `${title(strides[i])}: ${h} × ${w}`));
    for (let n = 0; n < h * w; n++) {
      const at = { x: left + (n % w) * side, y: top + Math.floor(n / w) * side, width: side, height: side };
      area.append(svg("rect", { ...at, fill: "var(--ve-blue)", "fill-opacity": rows[starts[i] + n][4], stroke: "var(--ve-line)", "stroke-width": 0.5 }));
    }
  });
  area.append(marks);
  pointed(area, (x, y) => {
    const level = shapes.findIndex(([h, w], i) => x >= corners[i][0] && x < corners[i][0] + w * side && y >= corners[i][1] && y < corners[i][1] + h * side);
    if (level >= 0) moveTo(model, level, ((x - corners[level][0]) / side) * strides[level], ((y - corners[level][1]) / side) * strides[level]);
  });

  function draw() {
    const { level, shape, row, column } = chosen(model), threshold = model.get("threshold");
    const dots = shapes.flatMap(([h, w], i) =>
      rows.slice(starts[i], starts[i + 1]).flatMap((r, n) =>
        r[4] > threshold ? [svg("circle", { cx: corners[i][0] + ((n % w) + 0.5) * side, cy: corners[i][1] + (Math.floor(n / w) + 0.5) * side, r: side / 4.5, fill: AMBER, stroke: "#000", "stroke-width": 0.8 })] : [],
      ),
    );
    const [left, top] = corners[level];
    marks.replaceChildren(
      ...dots,
      svg("rect", { x: left, y: top, width: shape[1] * side, height: shape[0] * side, fill: "none", stroke: "currentColor", "stroke-width": 1.5 }),
      svg("rect", { x: left + column * side, y: top + row * side, width: side, height: side, fill: "none", stroke: "var(--ve-orange)", "stroke-width": 3 }),
    );
  }
  return { area, draw };
}

export function render({ model, el }) {
  const { root, says } = panel(el, "Pyramid explorer"), stops = [];
  const levels = model.get("strides").map((stride, i) => [i, `${title(stride)}, stride ${stride}`]);
  const controls = html(
    "div", { class: "ve-controls" },
    choice(model, "level", { label: "Level", options: levels, stops }),
    slider(model, "threshold", { label: "Score threshold", min: 0, max: 0.95, step: 0.01, stops }),
  );
  const left = scene(model), right = maps(model);
  const key = html("p", { style: "margin: 6px 0 0; color: var(--ve-soft); font-size: 13px" },
    "A full blue cell scores 1, an empty one 0. Dots: cells above the threshold; thin boxes: what those of this level predict." +
      (model.get("objects").length ? " Dashed: the real object." : ""));
  root.append(controls, html("div", { class: "ve-row" }, html("div", { style: "flex-grow: 1.5; flex-basis: 270px" }, left.area), html("div", { style: "flex-basis: 220px" }, right.area, key)), says);
  stops.push(follow(model, ["level", "x", "y", "threshold"], () => {
    left.draw();
    right.draw();
    says.textContent = inWords(model);
  }));
  return () => stops.forEach((stop) => stop());
}

export default { render };
