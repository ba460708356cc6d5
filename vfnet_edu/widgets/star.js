// Chapter 11: the nine samples of a star on a photograph, beside those of a 3x3 convolution at the same cell.
// Taps go row by row: top left, top, top right, left, the point itself, right, bottom left, bottom, bottom right.
// The arithmetic is that of vfnet_edu/ops/star/operator.py and reference.py; coordinates are (y, x) in cells.

const WAYS = [-1, 0, 1];
const SIDES = ["left", "top", "right", "bottom"];
const STRIDES = [8, 16, 32];

/** Nine (y, x) in cells that the star of a box reads. point, ltrb in pixels. */
export function starCells([px, py], ltrb, stride) {
  const x = px / stride;
  const y = py / stride;
  const [l, t, r, b] = ltrb.map((d) => d / stride);
  return [y - t, y, y + b].flatMap((row) => [x - l, x, x + r].map((column) => [row, column]));
}

/** Nine (y, x) in cells that a 3x3 convolution reads. */
export const gridCells = ([px, py], stride) => WAYS.flatMap((i) => WAYS.map((j) => [py / stride + i, px / stride + j]));

/** (dy, dx) of the nine taps, flat: what a deformable convolution adds to its regular grid to land on the star. */
export function starOffsets(ltrb, stride) {
  const [l, t, r, b] = ltrb.map((d) => d / stride);
  return [-t, 0, b].flatMap((dy, i) => [-l, 0, r].flatMap((dx, j) => [dy - WAYS[i], dx - WAYS[j]]));
}

/** RGBA pixels -> {width, height, cells}: each cell the mean colour of the stride x stride pixels around its point. */
export function colourMap(pixels, [width, height], stride) {
  const map = { width: width / stride + 1, height: height / stride + 1, cells: [] };
  const around = (n, length) => [Math.max(n * stride - stride / 2, 0), Math.min(n * stride + stride / 2, length)];
  for (let i = 0; i < map.height; i++)
    for (let j = 0; j < map.width; j++) map.cells.push(mean(pixels, width, around(j, width), around(i, height)));
  return map;
}

/** Mean colour of the pixels with x in [left, right) and y in [top, bottom). */
function mean(pixels, width, [left, right], [top, bottom]) {
  const sum = [0, 0, 0];
  for (let y = top; y < bottom; y++)
    for (let x = left; x < right; x++) for (let c = 0; c < 3; c++) sum[c] += pixels[4 * (y * width + x) + c];
  return sum.map((s) => s / ((right - left) * (bottom - top)));
}

/** The map between its cells: four neighbours, weighted by nearness; a neighbour outside counts as 0. */
export function bilinear(map, [y, x]) {
  const top = Math.floor(y);
  const left = Math.floor(x);
  const value = [0, 0, 0];
  for (const row of [top, top + 1])
    for (const column of [left, left + 1]) {
      if (row < 0 || row >= map.height || column < 0 || column >= map.width) continue;
      const wy = row === top ? top + 1 - y : y - top;
      const wx = column === left ? left + 1 - x : x - left;
      const cell = map.cells[row * map.width + column];
      for (let c = 0; c < 3; c++) value[c] += wy * wx * cell[c];
    }
  return value;
}

/** The multiple of `step` that is nearest to v, of those between low and high. */
const nearest = (v, step, low, high) =>
  clamp(Math.round(v / step), Math.ceil(low / step), Math.floor(high / step)) * step;

/** The nearest point of the grid from which a box of these distances stays on the image. */
export const snap = ([x, y], [l, t, r, b], stride, [width, height]) => [
  nearest(x, stride, l, width - r),
  nearest(y, stride, t, height - b),
];

/** The same box, seen from the nearest point of a stride's grid inside it; without one it grows to reach a point. */
export function toGrid([px, py], [l, t, r, b], stride) {
  const x = nearest(px, stride, px - l, px + r);
  const y = nearest(py, stride, py - t, py + b);
  return [[x, y], [l + x - px, t + y - py, r + px - x, b + py - y].map((d) => Math.max(d, 0))];
}

/** IoU of the box around a point with a true box [x1, y1, x2, y2]. */
export function fit([px, py], [l, t, r, b], [x1, y1, x2, y2]) {
  const wide = Math.min(px + r, x2) - Math.max(px - l, x1);
  const high = Math.min(py + b, y2) - Math.max(py - t, y1);
  const shared = Math.max(wide, 0) * Math.max(high, 0);
  const covered = (l + r) * (t + b) + (x2 - x1) * (y2 - y1) - shared;
  return covered > 0 ? shared / covered : 0;
}

/** A toy score: 1 minus the mean difference between what is read and what is wanted, both nine colours up to 255. */
export function likeness(read, wanted) {
  const differences = read.flatMap((colour, k) => colour.map((c, i) => Math.abs(c - wanted[k][i])));
  return 1 - differences.reduce((a, b) => a + b, 0) / differences.length / 255;
}

/** The true box seen from a point: what the star of a perfect box would reach. */
const trueReach = ([px, py], [x1, y1, x2, y2]) => [px - x1, py - y1, x2 - px, y2 - py];

const short = (x) => String(Number(x.toFixed(2))).replace("-", "−");

/** What the state means, in words. */
export function words(point, ltrb, stride, truth = []) {
  const overlap = truth.length ? `IoU with the dashed box ${number(fit(point, ltrb, truth))}. ` : "";
  return overlap + reaches(point, ltrb, stride);
}

function reaches(point, ltrb, stride) {
  const [l, t, r, b] = ltrb;
  const reach = Math.max(...ltrb);
  const way = ["left", "up", "right", "down"][ltrb.indexOf(reach)];
  const box = `Box ${short(l + r)} × ${short(t + b)} px around the point (${point.join(", ")}), stride ${stride}: `;
  if (ltrb.every((d) => d === stride))
    return `${box}every side is one cell away. Star and 3x3 grid are the same, all offsets are 0.`;
  const [dy, dx] = starOffsets(ltrb, stride);
  const cells = `${short(reach / stride)} ${reach === stride ? "cell" : "cells"}`;
  return (
    `${box}the star reaches ${cells} ${way}; the 3x3 grid reaches 1. ` +
    `Tap 1 (top left) is offset by (${short(dy)}, ${short(dx)}) cells.`
  );
}

/** Pixels of an image given as a data URL, RGBA. */
async function decode(url, [width, height]) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const context = html("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

// On the photograph colours are the same in light and dark; a dark rim keeps them visible on any ground.
const STAR = "#ffd54f";
const GRID = "#8fd3ff";
const RIM = "#101010";

const STATE = ["point", "ltrb", "stride"];

/** The photograph with the box, its star and the grid beside it; the point and four taps can be dragged. */
function photograph(model, stops) {
  const [width, height] = model.get("size");
  const art = svg("svg", {
    viewBox: `0 0 ${width} ${height}`,
    style: `width:${width}px`,
    role: "group",
    "aria-label": "Photograph with a box and its star",
  });
  const frame = (stroke, w, opacity) => svg("rect", { fill: "none", stroke, opacity, "stroke-width": w });
  const outline = [frame(RIM, 5, 0.6), frame(STAR, 2.2, 1)];
  const truth = model.get("truth").length ? [frame(RIM, 4, 0.6), frame("#fff", 2, 1)] : [];
  if (truth.length) set(truth[1], { "stroke-dasharray": "7 5" });
  const [x1, y1, x2, y2] = model.get("truth");
  for (const rect of truth) set(rect, { x: x1, y: y1, width: x2 - x1, height: y2 - y1 });
  const taps = WAYS.flatMap(() => WAYS).map((_, k) => tap(k));
  const ink = { fill: GRID, stroke: RIM, "stroke-width": 1, "pointer-events": "none" };
  const squares = taps.map(() => svg("rect", { x: -2.6, y: -2.6, width: 5.2, height: 5.2, ...ink }));
  movePoint(model, art, taps[4]);
  const sides = moveSides(model, art, taps);
  const above = [0, 2, 6, 8, 4, 3, 1, 5, 7].map((k) => taps[k]); // what can be grabbed is on top
  art.append(svg("image", { href: model.get("image"), width, height }), ...truth, ...outline, ...above, ...squares);

  const regrid = () => {
    const [point, ltrb, stride] = STATE.map((key) => model.get(key));
    const [near, distances] = toGrid(point, ltrb, stride); // the box stays, its point goes to the nearest cell inside
    if (near.every((v, i) => v === point[i])) return;
    model.set("point", near);
    model.set("ltrb", distances);
    model.save_changes();
  };
  const draw = () => {
    const [[x, y], ltrb, stride] = STATE.map((key) => model.get(key));
    const [l, t, r, b] = ltrb;
    const at = ([row, column]) => `translate(${column * stride} ${row * stride})`;
    const star = starCells([x, y], ltrb, stride);
    const grid = gridCells([x, y], stride);
    const visibility = model.get("grid") ? "visible" : "hidden";
    for (const rect of outline) set(rect, { x: x - l, y: y - t, width: l + r, height: t + b });
    taps.forEach((one, k) => set(one, { transform: at(star[k]) }));
    squares.forEach((one, k) => set(one, { transform: at(grid[k]), visibility }));
    const room = [x, y, width - x, height - y];
    sides.forEach((side, i) => {
      const text = `${short(ltrb[i])} pixels from the point`;
      set(side, { "aria-valuenow": ltrb[i], "aria-valuemax": room[i], "aria-valuetext": text });
    });
    set(taps[4], { "aria-valuenow": x, "aria-valuetext": `x ${x}, y ${y}` });
  };
  stops.push(follow(model, ["stride"], regrid), follow(model, [...STATE, "grid"], draw));
  return html("div", { style: `flex:1 1 300px;max-width:${width}px` }, art);
}

/** A tap with its number; the point in the middle is small and has none. */
function tap(k) {
  const dot = svg("circle", { r: k === 4 ? 3.5 : 8.5, fill: STAR, stroke: RIM, "stroke-width": 1.2 });
  const style = `fill:${RIM};font-size:11px;font-weight:700`;
  return svg("g", {}, dot, svg("text", { y: 4, "text-anchor": "middle", style }, k === 4 ? "" : k + 1));
}

/** What can be grabbed: a white ring, and around it room for a finger. */
const ring = (r, reach) => [
  svg("circle", { r, fill: "none", stroke: RIM, "stroke-width": 4, opacity: 0.6 }),
  svg("circle", { r, fill: "none", stroke: "#fff", "stroke-width": 2 }),
  svg("circle", { r: reach, fill: "transparent" }),
];

/** The tap in the middle moves the box. */
function movePoint(model, art, middle) {
  const size = model.get("size");
  const go = (x, y) => write(model, "point", snap([x, y], model.get("ltrb"), model.get("stride"), size));
  const nudge = (dx, dy) => {
    const [[x, y], stride] = [model.get("point"), model.get("stride")];
    go(x + dx * stride, y + dy * stride);
  };
  middle.append(...ring(14, 16));
  draggable(middle, art, { label: "point: moves the whole box, cell by cell", drag: go, nudge });
  set(middle, { "aria-valuemin": 0, "aria-valuemax": size[0] });
}

/** Tap of each side, and which way is outward. */
const OUTWARD = [
  [3, -1, 0],
  [1, 0, -1],
  [5, 1, 0],
  [7, 0, 1],
];

/** Four taps move a side of the box each; returns them in the order left, top, right, bottom. */
function moveSides(model, art, taps) {
  const [width, height] = model.get("size");
  const put = (i, distance) => {
    const [x, y] = model.get("point");
    const ltrb = [...model.get("ltrb")];
    ltrb[i] = clamp(Math.round(distance), 0, [x, y, width - x, height - y][i]);
    write(model, "ltrb", ltrb);
  };
  return OUTWARD.map(([k, wx, wy], i) => {
    taps[k].append(...ring(11, 17));
    draggable(taps[k], art, {
      label: `${SIDES[i]} side of the box`,
      drag: (x, y) => put(i, wx * (x - model.get("point")[0]) + wy * (y - model.get("point")[1])),
      nudge: (dx, dy) => put(i, model.get("ltrb")[i] + wx * dx + wy * dy),
    });
    set(taps[k], { "aria-valuemin": 0, "aria-orientation": wx ? "horizontal" : "vertical" });
    return taps[k];
  });
}

function table(model, stops) {
  const pairs = Array.from({ length: 9 }, () => html("span"));
  const widths = ["36%", "28%", "36%"]; // fixed, so that nothing jumps while a side is dragged; dx is 0 in the middle
  const cell = (k) => {
    const style = `width:${widths[k % 3]};padding:2px 1px;white-space:nowrap`;
    return html("td", { style }, html("b", { style: "color:var(--ve-soft)" }, k + 1), html("br"), pairs[k]);
  };
  const rows = WAYS.map((_, i) => html("tr", {}, ...WAYS.map((_, j) => cell(3 * i + j))));
  const draw = () => {
    const offsets = starOffsets(model.get("ltrb"), model.get("stride"));
    pairs.forEach((pair, k) => {
      pair.textContent = `(${short(offsets[2 * k])}, ${short(offsets[2 * k + 1])})`;
    });
  };
  stops.push(follow(model, ["ltrb", "stride"], draw));
  const caption = html(
    "caption",
    { style: "text-align:left;color:inherit;font-size:14px" },
    html("b", {}, "Offsets"),
    " (dy, dx) of taps 1 to 9, in cells",
  );
  const style = "margin:0;width:100%;max-width:330px;table-layout:fixed;font-size:12px";
  return html("table", { style }, caption, html("tbody", {}, ...rows));
}

/** Nine squares in the colours that were read, each with its brightness from 0 to 255. */
function swatches(title, mark) {
  const side = 36;
  const art = svg("svg", { viewBox: `0 0 ${3 * side} ${3 * side}`, style: "width:108px", role: "img" });
  const squares = Array.from({ length: 9 }, (_, k) => {
    const [x, y] = [(k % 3) * side, Math.floor(k / 3) * side];
    const rect = svg("rect", { x, y, width: side, height: side, stroke: "var(--ve-ground)", "stroke-width": 2 });
    const text = svg("text", { x: x + side / 2, y: y + side / 2 + 4, "text-anchor": "middle" });
    art.append(rect, text);
    return [rect, text];
  });
  const paint = (colours) => {
    const light = colours.map(([r, g, b]) => Math.round(0.299 * r + 0.587 * g + 0.114 * b));
    squares.forEach(([rect, text], k) => {
      rect.setAttribute("fill", `rgb(${colours[k].map(Math.round).join(",")})`);
      text.textContent = light[k];
      text.style.fill = light[k] > 115 ? "#000" : "#fff";
    });
    art.setAttribute("aria-label", `${title}: brightness of taps 1 to 9: ${light.join(", ")}`);
  };
  const style = "display:inline-block;width:14px;vertical-align:-2px";
  const sign = svg("svg", { viewBox: "-7 -7 14 14", style, "aria-hidden": "true" }, mark);
  const heading = html("div", {}, sign, " ", html("b", {}, title));
  const score = html("output", { style: "display:block" });
  return { paint, score, element: html("div", { style: "flex:0 0 auto" }, heading, art, score) };
}

function readings(model, stops) {
  const star = swatches("Star reads", svg("circle", { r: 6, fill: STAR, stroke: RIM }));
  const grid = swatches("Grid reads", svg("rect", { x: -5, y: -5, width: 10, height: 10, fill: GRID, stroke: RIM }));
  const maps = {};
  const home = model.get("point"); // the cell that is asked about the true box
  let pixels = null;
  const draw = () => {
    if (!pixels) return; // the photograph is still being decoded
    const [point, ltrb, stride] = STATE.map((key) => model.get(key));
    maps[stride] ??= colourMap(pixels, model.get("size"), stride);
    const read = (cells) => cells.map((cell) => bilinear(maps[stride], cell));
    const seen = [read(starCells(point, ltrb, stride)), read(gridCells(point, stride))];
    star.paint(seen[0]);
    grid.paint(seen[1]);
    const truth = model.get("truth");
    if (truth.length) {
      const [start, reach] = toGrid(home, trueReach(home, truth), stride);
      const wanted = [read(starCells(start, reach, stride)), read(gridCells(start, stride))];
      [star, grid].forEach(({ score }, i) => {
        score.textContent = `score ${number(likeness(seen[i], wanted[i]))}`;
      });
    }
    grid.element.style.display = model.get("grid") ? "" : "none";
  };
  stops.push(follow(model, [...STATE, "grid"], draw));
  decode(model.get("image"), model.get("size")).then((decoded) => {
    pixels = decoded;
    draw();
  });
  return html("div", { style: "display:flex;flex-wrap:wrap;gap:8px 14px;margin-top:8px" }, star.element, grid.element);
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Star explorer");
  const sizes = STRIDES.map((stride) => [stride, `${stride} px`]);
  const shown = [true, false].map((value) => [value, value ? "shown" : "hidden"]);
  const controls = html(
    "div",
    { class: "ve-controls" },
    choice(model, "stride", { label: "stride", options: sizes, stops }),
    choice(model, "grid", { label: "3x3 grid", options: shown, stops }),
  );
  const numbers = html("div", { style: "flex:1 1 272px" }, table(model, stops), readings(model, stops));
  root.append(controls, html("div", { class: "ve-row" }, photograph(model, stops), numbers), says);
  const draw = () => {
    says.textContent = words(...STATE.map((key) => model.get(key)), model.get("truth"));
  };
  stops.push(follow(model, STATE, draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
