// Chapter 4: the receptive field of every cell of a pyramid, measured by gradient, laid over the picture.
// The arithmetic is that of vfnet_edu/widgets/receptive_field.py; fields are kept in blocks of BLOCK x BLOCK pixels.

const BLOCK = 4;

/** The cell of a map of shape [rows, columns] whose point is nearest to x, y in pixels.  -> [row, column] */
export const nearestCell = (x, y, stride, [rows, columns]) => [
  clamp(Math.floor(y / stride + 0.5), 0, rows - 1),
  clamp(Math.floor(x / stride + 0.5), 0, columns - 1),
];

/** Where a cell stands in the list of all cells, level by level, row by row. */
export function indexOf(shapes, level, [row, column]) {
  const before = shapes.slice(0, level).reduce((sum, [h, w]) => sum + h * w, 0);
  return before + row * shapes[level][1] + column;
}

/** One field: the root of the influence of each block, 0 ... 255, row by row. */
export const lightOf = (fields, index, blocks) => Array.from(fields.slice(index * blocks, (index + 1) * blocks));

/** Side in pixels of the smallest square around a point that holds this share of the field. */
export function sideOfShare(light, columns, [px, py], share = 0.5) {
  const far = light.map((v, i) => {
    const x = Math.abs(((i % columns) + 0.5) * BLOCK - px);
    const y = Math.abs((Math.floor(i / columns) + 0.5) * BLOCK - py);
    return [Math.max(x, y), v * v];
  });
  far.sort((a, b) => a[0] - b[0]);
  const total = far.reduce((sum, [, energy]) => sum + energy, 0);
  let held = 0;
  const [reach] = far.find(([, energy]) => {
    held += energy;
    return held >= share * total;
  });
  return 2 * reach + BLOCK;
}

/** The share of the field that lies in a box [x1, y1, x2, y2]; of a block that it cuts, a part counts. */
export function shareInside(light, columns, [x1, y1, x2, y2]) {
  const within = (n, low, high) => clamp(Math.min((n + 1) * BLOCK, high) - Math.max(n * BLOCK, low), 0, BLOCK) / BLOCK;
  let inside = 0;
  let total = 0;
  light.forEach((v, i) => {
    total += v * v;
    inside += v * v * within(i % columns, x1, x2) * within(Math.floor(i / columns), y1, y2);
  });
  return inside / total;
}

/** The share of a box that lies in a square around a point. */
export function covered([x1, y1, x2, y2], [px, py], side) {
  const wide = Math.min(x2, px + side / 2) - Math.max(x1, px - side / 2);
  const high = Math.min(y2, py + side / 2) - Math.max(y1, py - side / 2);
  return (Math.max(wide, 0) * Math.max(high, 0)) / ((x2 - x1) * (y2 - y1));
}

/** The object on which a spot lies, the smallest if there are several; else the one that is nearest. */
export function objectAt(objects, x, y) {
  const rank = ([x1, y1, x2, y2]) => {
    const away = Math.hypot(Math.max(x1 - x, 0, x - x2), Math.max(y1 - y, 0, y - y2));
    return [away, (x2 - x1) * (y2 - y1)];
  };
  const ranked = objects.map((object) => [...rank(object), object]);
  return ranked.sort((a, b) => a[0] - b[0] || a[1] - b[1])[0][2];
}

const bytesOf = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** What there is to say about the cell of a level that is nearest to the chosen spot. */
function cellOf(model, level) {
  const [first, shapes, x, y] = ["first", "shapes", "x", "y"].map((key) => model.get(key));
  const [height, width] = model.get("size").map((side) => side / BLOCK);
  const stride = 2 ** level;
  const cell = nearestCell(x, y, stride, shapes[level - first]);
  const point = [cell[1] * stride, cell[0] * stride];
  const light = lightOf(bytesOf(model.get("fields")), indexOf(shapes, level - first, cell), height * width);
  const object = objectAt(model.get("objects"), x, y);
  const side = sideOfShare(light, width, point);
  const box = object.slice(0, 4);
  const on = shareInside(light, width, box);
  return { level, stride, cell, point, light, object, box, side, on, of: covered(box, point, side) };
}

const percent = (share) => `${number(100 * share, 0)} %`;
const px = (v) => number(v, 0);

/** What the state means, in words. */
export function words({ level, stride, cell: [row, column], point: [x, y], object, side, on, of }) {
  const [x1, y1, x2, y2, name] = object;
  return (
    `P${level}, stride ${stride}, row ${row}, column ${column}: its point is (${x}, ${y}). ` +
    `Half of its field lies in a square of ${px(side)} pixels around this point. ` +
    `The ${name} is ${px(x2 - x1)} × ${px(y2 - y1)} pixels: ${percent(on)} of the field lies on it, ` +
    `and the square covers ${percent(of)} of it.`
  );
}

/** Go to a spot, in pixels; the cell that is nearest to it is chosen. */
function moveTo(model, x, y) {
  const [height, width] = model.get("size");
  const spot = [clamp(Math.round(x), 0, width), clamp(Math.round(y), 0, height)];
  if (spot[0] === model.get("x") && spot[1] === model.get("y")) return;
  model.set("x", spot[0]);
  model.set("y", spot[1]);
  model.save_changes();
}

// On the picture colours are the same in light and dark; a dark rim keeps them visible on any ground.
const YELLOW = "#ffd54f";
const RIM = "#101010";
const VEIL = 0.86; // how dark it is where the cell sees nothing
const LEVELS = ["level", "x", "y"];

const frame = (look) => svg("rect", { fill: "none", ...look });
const place = (rect, [x1, y1, x2, y2]) => set(rect, { x: x1, y: y1, width: x2 - x1, height: y2 - y1 });

/** The picture, dark where the cell sees nothing; the points of the level, the square and the object. */
function scene(model, stops) {
  const [height, width] = model.get("size");
  const columns = width / BLOCK;
  const area = svg("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "group",
    "aria-label": "picture, lit where the cell sees",
    style: "overflow:hidden;width:100%;cursor:crosshair",
  });
  const tile = { width: BLOCK, height: BLOCK, fill: "#000", "shape-rendering": "crispEdges" };
  const veil = Array.from({ length: (height / BLOCK) * columns }, (_, i) =>
    svg("rect", { x: (i % columns) * BLOCK, y: Math.floor(i / columns) * BLOCK, ...tile }),
  );
  const dots = svg("path", { stroke: "#fff", "stroke-width": 1, "stroke-linecap": "round", "stroke-opacity": 0.75 });
  const truth = [
    frame({ stroke: RIM, "stroke-width": 1.6 }),
    frame({ stroke: "#fff", "stroke-width": 0.9, "stroke-dasharray": "3 2" }),
  ];
  const half = [frame({ stroke: RIM, "stroke-width": 1.8 }), frame({ stroke: YELLOW, "stroke-width": 1 })];
  const still = svg("g", { "pointer-events": "none" }, ...veil, dots, ...truth, ...half);
  const cursor = marker(model, area);
  area.append(svg("image", { href: model.get("image"), width, height }), still, cursor);
  for (const kind of ["pointerdown", "pointermove"])
    area.addEventListener(kind, (event) => moveTo(model, ...position(area, event)));

  const draw = () => {
    const { level, stride, point, light, box, side, cell } = cellOf(model, model.get("level"));
    veil.forEach((rect, i) => set(rect, { "fill-opacity": (VEIL * (1 - Math.sqrt(light[i] / 255))).toFixed(3) }));
    const [rows, across] = model.get("shapes")[level - model.get("first")];
    let d = "";
    for (let i = 0; i < rows; i++) for (let j = 0; j < across; j++) d += `M${j * stride} ${i * stride}h0`;
    set(dots, { d });
    const [x, y] = point;
    for (const rect of truth) place(rect, box);
    for (const rect of half) place(rect, [x - side / 2, y - side / 2, x + side / 2, y + side / 2]);
    const where = `P${level}, row ${cell[0]}, column ${cell[1]}`;
    set(cursor, {
      transform: `translate(${x} ${y})`,
      "aria-valuemin": 0,
      "aria-valuemax": rows * across - 1,
      "aria-valuenow": cell[0] * across + cell[1],
      "aria-valuetext": where,
    });
  };
  stops.push(follow(model, LEVELS, draw));
  return area;
}

/** The point of the chosen cell, with room for a finger; arrow keys step from cell to cell. */
function marker(model, area) {
  const cursor = svg(
    "g",
    { style: "outline-width:1px;outline-offset:0" }, // in pixels of the picture, which is enlarged
    svg("circle", { r: 7, fill: "transparent" }),
    svg("circle", { r: 2.6, fill: "none", stroke: RIM, "stroke-width": 2 }),
    svg("circle", { r: 2.6, fill: "none", stroke: YELLOW, "stroke-width": 1.1 }),
  );
  draggable(cursor, area, {
    label: "cell",
    drag: () => {}, // the whole picture follows the pointer
    nudge: (dx, dy) => {
      const { point, stride } = cellOf(model, model.get("level"));
      moveTo(model, point[0] + dx * stride, point[1] + dy * stride);
    },
  });
  return cursor;
}

/** The cells of all levels that are nearest to the same spot, side by side. */
function table(model, stops) {
  const head = ["level", "square with half of the field", "field on the object", "object in the square"];
  const titles = head.map((text) => html("th", { scope: "col", style: "overflow-wrap:normal;font-size:12.5px" }, text));
  const levels = model.get("shapes").map((_, i) => i + model.get("first"));
  const rows = levels.map((level) => {
    const cells = head.slice(1).map(() => html("td"));
    return { level, cells, row: html("tr", {}, html("th", { scope: "row" }, `P${level}`), ...cells) };
  });
  const draw = () => {
    for (const { level, cells, row } of rows) {
      const { side, on, of } = cellOf(model, level);
      [`${px(side)} px`, percent(on), percent(of)].forEach((text, i) => (cells[i].textContent = text));
      row.style.fontWeight = level === model.get("level") ? "700" : "400";
      for (const cell of cells) cell.style.fontWeight = "inherit";
    }
  };
  stops.push(follow(model, LEVELS, draw));
  return html(
    "table",
    { style: "width:100%" },
    html("thead", {}, html("tr", {}, ...titles)),
    ...rows.map((r) => r.row),
  );
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Receptive field explorer");
  const [first, count] = [model.get("first"), model.get("shapes").length];
  const show = (level) => `P${level}, stride ${2 ** level}`;
  const range = { min: first, max: first + count - 1, step: 1 };
  const controls = html(
    "div",
    { class: "ve-controls" },
    slider(model, "level", { label: "level", ...range, show, stops }),
  );
  const note =
    "Lit: pixels that move the features of the cell. Dots: the points of this level. Yellow: the point of the cell, " +
    "and the square around it that holds half of its field. Dashed: the object under it, or the nearest.";
  const key = html("p", { style: "margin:6px 0 0;color:var(--ve-soft);font-size:13px" }, note);
  const row = html(
    "div",
    { class: "ve-row" },
    html("div", { style: "flex:1.2 1 270px;max-width:400px" }, scene(model, stops)),
    html("div", { style: "flex:1 1 250px" }, table(model, stops), key),
  );
  root.append(controls, row, says);
  const draw = () => {
    says.textContent = words(cellOf(model, model.get("level")));
  };
  stops.push(follow(model, LEVELS, draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
