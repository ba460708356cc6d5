// Chapter 13: one launch over three levels of a pyramid, a program for each tile of cells.
// The arithmetic is that of the chapter's kernels: the cells of a level are one long list, row by row.

const NAMES = ["P3", "P4", "P5"];
const WAYS = ["top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right"];

/** [[rows, columns, stride], ...] of P3, P4, P5. */
export function levelsOf(rows, columns) {
  const levels = [[rows, columns, 8]];
  while (levels.length < 3) {
    const [height, width, stride] = levels.at(-1);
    levels.push([Math.ceil(height / 2), Math.ceil(width / 2), 2 * stride]);
  }
  return levels;
}

/** How many programs a level takes: the last one may be cut short. */
export const tilesOf = ([height, width], size) => Math.ceil((height * width) / size);

/** Where a program works: its level, the first of its cells, and how many of its lanes have one. */
export function place(program, levels, size) {
  let level = 0;
  while (program >= tilesOf(levels[level], size)) {
    program -= tilesOf(levels[level], size);
    level += 1;
  }
  const first = program * size;
  return { level, first, count: Math.min(size, levels[level][0] * levels[level][1] - first) };
}

/** The program that has a cell. */
export const programOf = ([level, cell], levels, size) =>
  levels.slice(0, level).reduce((sum, one) => sum + tilesOf(one, size), 0) + Math.floor(cell / size);

/** Row and column, in cells, that a tap (0 to 8) reads for a cell whose box reaches `reach` pixels to every side. */
export function tapAt(cell, [, width, stride], tap, reach) {
  const far = reach / stride;
  const [i, j] = [Math.floor(tap / 3) - 1, (tap % 3) - 1];
  return [Math.floor(cell / width) + i * far, (cell % width) + j * far];
}

/** The four fetches around a position: upper left, upper right, lower left, lower right. */
export function fetchesAt([y, x], [height, width], channels) {
  return [0, 1, 2, 3].map((k) => {
    const row = Math.floor(y) + (k >> 1);
    const column = Math.floor(x) + (k & 1);
    const inside = row >= 0 && row < height && column >= 0 && column < width;
    const share = (1 - Math.abs(y - row)) * (1 - Math.abs(x - column));
    return { row, column, inside, share, address: (row * width + column) * channels };
  });
}

/** What each lane of a program does in one tap: {cell, at, fetches}, or null for a lane without a cell. */
export function lanesOf(program, levels, { size, tap, reach, channels }) {
  const { level, first, count } = place(program, levels, size);
  return Array.from({ length: size }, (_, lane) => {
    if (lane >= count) return null;
    const at = tapAt(first + lane, levels[level], tap, reach);
    return { cell: first + lane, at, fetches: fetchesAt(at, levels[level], channels) };
  });
}

/** The cell [row, column] that a masked address belongs to all the same; null if it is none of the map's. */
export function mistaken({ row, column, inside }, [height, width]) {
  const cell = row * width + column;
  if (inside || cell < 0 || cell >= height * width) return null;
  return [Math.floor(cell / width), cell % width];
}

/** The chosen cell after dx steps along the list of all cells of all levels, and dy rows. */
export function moved([level, cell], dx, dy, levels) {
  const [height, width] = levels[level];
  const down = cell + dy * width;
  const all = levels.flatMap(([h, w], k) => Array.from({ length: h * w }, (_, c) => [k, c]));
  const now = all.findIndex(([k, c]) => k === level && c === (down >= 0 && down < height * width ? down : cell));
  return all[clamp(now + dx, 0, all.length - 1)];
}

const short = (v) => String(Number(v.toFixed(3))).replace("-", "−");

/** The state in one sentence or two. */
export function words(levels, [level, cell], how) {
  const program = programOf([level, cell], levels, how.size);
  const programs = levels.reduce((sum, one) => sum + tilesOf(one, how.size), 0);
  const { count } = place(program, levels, how.size);
  const [height, width] = levels[level];
  const { at, fetches } = lanesOf(program, levels, how)[cell % how.size];
  const idle = count < how.size ? `, and only ${count} of its ${how.size} lanes have a cell` : "";
  const masked = fetches.filter((one) => !one.inside);
  const some = masked.length === 4 ? "all 4" : `${masked.length} of its 4`;
  const told = masked.length ? `${some} fetches are masked` : "all 4 fetches are on the map";
  return (
    `Program ${program} of 0 to ${programs - 1} works on ${NAMES[level]}, ${height} × ${width} cells${idle}. ` +
    `Lane ${cell % how.size}, cell (${Math.floor(cell / width)}, ${cell % width}): tap ${how.tap + 1}, ` +
    `${WAYS[how.tap]}, reads at row ${short(at[0])}, column ${short(at[1])}; ${told}.${danger(masked, levels[level])}`
  );
}

/** What the first masked fetch would do without its mask. */
function danger(masked, size) {
  const wrong = masked.find((one) => mistaken(one, size));
  if (wrong) {
    const cell = mistaken(wrong, size).join(", ");
    return ` Without its mask, address ${short(wrong.address)} would be cell (${cell}): valid memory, wrong cell.`;
  }
  if (!masked.length) return "";
  const where = masked[0].address < 0 ? "in front of" : "behind";
  return ` Without its mask, address ${short(masked[0].address)} would be memory ${where} the map.`;
}

// ---- the picture

const CELL = 22;
const TITLE = 18;
const BEFORE = [2, 1, 1]; // cells of room above and to the left of each map, for fetches outside; behind, one more
const LOWER = 2 * TITLE + 12 * CELL; // where P4 and P5 begin
const HALF = 8 * CELL; // where P5 begins
const ORIGINS = [
  [BEFORE[0] * CELL, TITLE + BEFORE[0] * CELL],
  [BEFORE[1] * CELL, LOWER + BEFORE[1] * CELL],
  [HALF + BEFORE[2] * CELL, LOWER + BEFORE[2] * CELL],
];
const WIDE = 14 * CELL;
const HIGH = LOWER + 7 * CELL;
const STATE = ["rows", "columns", "tile", "tap", "reach", "at"];

const read = (model) => ({
  size: model.get("tile"),
  tap: model.get("tap"),
  reach: model.get("reach"),
  channels: model.get("channels"),
});

/** The levels and the chosen cell, which a smaller map may have lost. */
function current(model) {
  const levels = levelsOf(model.get("rows"), model.get("columns"));
  const [level, cell] = model.get("at");
  const [height, width] = levels[level];
  return { levels, at: [level, Math.min(cell, height * width - 1)] };
}

const corner = (level, row, column) => [ORIGINS[level][0] + column * CELL, ORIGINS[level][1] + row * CELL];

function square(level, row, column, look, inset = 0) {
  const [x, y] = corner(level, row, column);
  return svg("rect", { x: x + inset, y: y + inset, width: CELL - 2 * inset, height: CELL - 2 * inset, ...look });
}

/** All cells of a level, every second tile a little darker, with the number of the program in its first cell. */
function cells(level, levels, size, chosen) {
  const [height, width] = levels[level];
  const group = svg("g");
  const title = `${NAMES[level]}, ${height} × ${width}`;
  group.append(svg("text", { x: ORIGINS[level][0], y: ORIGINS[level][1] - BEFORE[level] * CELL - 5 }, title));
  for (let cell = 0; cell < height * width; cell++) {
    const program = programOf([level, cell], levels, size);
    const mine = program === chosen;
    const fill = mine ? "var(--ve-blue)" : "var(--ve-soft)";
    const look = { fill, "fill-opacity": mine ? 0.32 : program % 2 ? 0.22 : 0.06, stroke: "var(--ve-line)" };
    const [row, column] = [Math.floor(cell / width), cell % width];
    group.append(square(level, row, column, look));
    if (cell % size) continue;
    const [x, y] = corner(level, row, column);
    group.append(svg("text", { x: x + 2, y: y + 11, style: "font-size:10px" }, program));
  }
  return group;
}

/** The four fetches of the chosen lane, and what the masked ones would read without their mask. */
function four(level, size, fetches) {
  const ink = { fill: "none", stroke: "var(--ve-orange)", "stroke-width": 2.2 };
  const marks = fetches.map((one) =>
    square(level, one.row, one.column, { ...ink, "stroke-dasharray": one.inside ? null : "3 3" }, 1.5),
  );
  const wrong = fetches.map((one) => mistaken(one, size)).filter((cell) => cell);
  const pink = { fill: "none", stroke: "var(--ve-pink)", "stroke-width": 2.2 };
  return [...marks, ...wrong.map(([row, column]) => square(level, row, column, pink, 3.5))];
}

/** A dot in every cell that another lane fetches. */
function others(level, lanes, chosen) {
  const seen = new Map();
  lanes.forEach((lane, i) => {
    if (!lane || i === chosen) return;
    for (const one of lane.fetches) if (one.inside) seen.set(`${one.row} ${one.column}`, one);
  });
  return [...seen.values()].map(({ row, column }) => {
    const [x, y] = corner(level, row, column);
    return svg("circle", { cx: x + CELL / 2, cy: y + CELL / 2, r: 2.2, fill: "var(--ve-orange)" });
  });
}

/** From the chosen cell to where its tap reads. */
function arm(level, width, { cell, at }) {
  const middle = ([row, column]) => corner(level, row + 0.5, column + 0.5);
  const [x1, y1] = middle([Math.floor(cell / width), cell % width]);
  const [x2, y2] = middle(at);
  return [
    svg("line", { x1, y1, x2, y2, stroke: "var(--ve-orange)", "stroke-width": 1.6 }),
    svg("circle", { cx: x2, cy: y2, r: 3.6, fill: "var(--ve-orange)", stroke: "var(--ve-ground)" }),
  ];
}

/** The cell under a point of the picture, or the nearest one. */
function cellUnder([x, y], levels) {
  const level = y < LOWER - TITLE ? 0 : x < HALF ? 1 : 2;
  const [height, width] = levels[level];
  const [left, top] = ORIGINS[level];
  const row = clamp(Math.floor((y - top) / CELL), 0, height - 1);
  const column = clamp(Math.floor((x - left) / CELL), 0, width - 1);
  return [level, row * width + column];
}

function picture(model, stops) {
  const art = svg("svg", {
    viewBox: `0 0 ${WIDE} ${HIGH}`,
    style: `width:${WIDE}px`,
    role: "group",
    "aria-label": "Three maps of cells, in tiles",
  });
  const [under, over] = [svg("g"), svg("g", { "pointer-events": "none" })];
  const handle = svg(
    "g",
    {},
    svg("circle", { r: 7, fill: "none", stroke: "currentColor", "stroke-width": 2 }),
    svg("circle", { r: 14, fill: "transparent" }),
  );
  const go = (point) => write(model, "at", cellUnder(point, current(model).levels));
  draggable(handle, art, {
    label: "chosen cell, and with it a lane of a program",
    drag: (x, y) => go([x, y]),
    nudge: (dx, dy) => write(model, "at", moved(current(model).at, dx, dy, current(model).levels)),
  });
  art.addEventListener("pointerdown", (event) => {
    if (!handle.contains(event.target)) go(position(art, event));
  });
  art.append(under, over, handle);

  const draw = () => {
    const { levels, at } = current(model);
    const [level, cell] = at;
    const how = read(model);
    const program = programOf(at, levels, how.size);
    const lanes = lanesOf(program, levels, how);
    const lane = lanes[cell % how.size];
    const width = levels[level][1];
    const [row, column] = [Math.floor(cell / width), cell % width];
    under.replaceChildren(...levels.map((_, k) => cells(k, levels, how.size, program)));
    over.replaceChildren(
      ...others(level, lanes, cell % how.size),
      ...four(level, levels[level], lane.fetches),
      ...arm(level, width, lane),
    );
    const [x, y] = corner(level, row + 0.5, column + 0.5);
    const spoken = `program ${program}, lane ${cell % how.size}, cell (${row}, ${column}) of ${NAMES[level]}`;
    const last = programOf([2, levels[2][0] * levels[2][1] - 1], levels, how.size);
    set(handle, { transform: `translate(${x} ${y})`, "aria-valuenow": program, "aria-valuetext": spoken });
    set(handle, { "aria-valuemin": 0, "aria-valuemax": last });
  };
  stops.push(follow(model, STATE, draw));
  return html("div", { style: `flex:1 1 300px;max-width:${WIDE}px` }, art);
}

/** One row per lane: its cell, and the addresses of its four fetches. */
function table(model, stops) {
  const heads = ["lane", "cell", "upper left", "upper right", "lower left", "lower right"];
  const head = html("tr", {}, ...heads.map((text) => html("th", { scope: "col" }, text)));
  const columns = ["11%", "17%", "18%", "18%", "18%", "18%"].map((width) => html("col", { style: `width:${width}` }));
  const body = html("tbody");
  const entry = (one) => html("td", one.inside ? {} : { class: "ve-masked" }, one.inside ? one.address : "masked");
  const row = (lane, number, width, chosen) => {
    const blank = ["no cell", ...Array(4).fill("masked")].map((text) => html("td", { class: "ve-masked" }, text));
    const place = lane && `(${Math.floor(lane.cell / width)}, ${lane.cell % width})`;
    const rest = lane ? [html("td", {}, place), ...lane.fetches.map(entry)] : blank;
    return html("tr", chosen ? { class: "ve-chosen" } : {}, html("td", {}, number), ...rest);
  };
  const draw = () => {
    const { levels, at } = current(model);
    const how = read(model);
    const lanes = lanesOf(programOf(at, levels, how.size), levels, how);
    const width = levels[at[0]][1];
    body.replaceChildren(...lanes.map((lane, i) => row(lane, i, width, i === at[1] % how.size)));
  };
  stops.push(follow(model, STATE, draw));
  const caption = html(
    "div",
    {},
    `Addresses, in numbers from the start of the map; ${model.get("channels")} to a cell`,
  );
  const whole = html("table", { class: "ve-lanes" }, html("colgroup", {}, ...columns), html("thead", {}, head), body);
  return html("div", { style: "flex:1 1 300px" }, caption, whole);
}

const KEY =
  "Numbers: the programs. Blue: the tile of the chosen one. Orange: where the chosen lane reads, and its four " +
  "fetches, dashed where the mask says no. Dots: what the other lanes fetch. Pink: the cell that a masked fetch would " +
  "read without its mask.";

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Launch grid explorer");
  const cellsShown = { min: 3, step: 1, show: String, stops };
  const taps = WAYS.map((_, k) => [k, k + 1]);
  const controls = html(
    "div",
    { class: "ve-controls" },
    slider(model, "rows", { label: "rows of P3", max: 7, ...cellsShown }),
    slider(model, "columns", { label: "columns of P3", max: 9, ...cellsShown }),
    slider(model, "reach", { label: "box reaches", min: 0, max: 16, step: 1, show: (v) => `${v} px`, stops }),
    choice(model, "tile", { label: "cells per program", options: [4, 8, 16].map((m) => [m, m]), stops }),
    choice(model, "tap", { label: "tap", options: taps, stops }),
  );
  const row = html("div", { class: "ve-row" }, picture(model, stops), table(model, stops));
  root.append(controls, row, html("p", {}, KEY), says);
  const draw = () => {
    const { levels, at } = current(model);
    says.textContent = words(levels, at, read(model));
  };
  stops.push(follow(model, STATE, draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
