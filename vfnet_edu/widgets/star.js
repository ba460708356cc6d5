// Chapter 11: the nine samples of a star on a photograph, beside those of a 3x3 convolution at the same cell.
// Taps go row by row: top left, top, top right, left, the point itself, right, bottom left, bottom, bottom right.
// The arithmetic is that of vfnet_edu/ops/star/operator.py and star_reference.py; coordinates are (y, x) in cells.

const WAYS = [-1, 0, 1];
const SIDES = ["left", "top", "right", "bottom"];
const STRIDES = [8, 16, 32];

/** Nine (y, x) in cells that the star of a box reads. point, ltrb in pixels. */
export function starCells([px, py], ltrb, stride) {
  const x = px / stride, y = py / stride, [l, t, r, b] = ltrb.map((d) => d / stride);
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
  for (let i = 0; i < map.height; i++)
    for (let j = 0; j < map.width; j++) {
      const sum = [0, 0, 0];
      let count = 0;
      for (let y = Math.max(i * stride - stride / 2, 0); y < Math.min(i * stride + stride / 2, height); y++)
        for (let x = Math.max(j * stride - stride / 2, 0); x < Math.min(j * stride + stride / 2, width); x++, count++)
          for (let c = 0; c < 3; c++) sum[c] += pixels[4 * (y * width + x) + c];
      map.cells.push(sum.map((s) => s / count));
    }
  return map;
}

/** The map between its cells: four neighbours, weighted by nearness; a neighbour outside counts as 0. */
export function bilinear(map, [y, x]) {
  const top = Math.floor(y), left = Math.floor(x), value = [0, 0, 0];
  for (const [row, wy] of [[top, top + 1 - y], [top + 1, y - top]])
    for (const [column, wx] of [[left, left + 1 - x], [left + 1, x - left]])
      if (row >= 0 && row < map.height && column >= 0 && column < map.width)
        map.cells[row * map.width + column].forEach((v, c) => (value[c] += wy * wx * v));
  return value;
}

/** The multiple of `step` that is nearest to v, of those between low and high. */
const nearest = (v, step, low, high) => clamp(Math.round(v / step), Math.ceil(low / step), Math.floor(high / step)) * step;

/** The nearest point of the grid from which a box of these distances stays on the image. */
export const snap = ([x, y], [l, t, r, b], stride, [width, height]) =>
  [nearest(x, stride, l, width - r), nearest(y, stride, t, height - b)];

/** The same box from the nearest point inside it that the grid of a stride has; without one it grows to reach a point. */
export function toGrid([px, py], [l, t, r, b], stride) {
  const x = nearest(px, stride, px - l, px + r), y = nearest(py, stride, py - t, py + b);
  return [[x, y], [l + x - px, t + y - py, r + px - x, b + py - y].map((d) => Math.max(d, 0))];
}

const short = (x) => String(Number(x.toFixed(2))).replace("-", "−");

/** What the state means, in words. */
export function words(point, ltrb, stride) {
  const [l, t, r, b] = ltrb, reach = Math.max(...ltrb), way = ["left", "up", "right", "down"][ltrb.indexOf(reach)];
  const box = `Box ${short(l + r)} × ${short(t + b)} px around the point (${point.join(", ")}), stride ${stride}: `;
  if (ltrb.every((d) => d === stride)) return box + "every side is one cell away. Star and 3x3 grid are the same, all offsets are 0.";
  const [dy, dx] = starOffsets(ltrb, stride);
  return box + `the star reaches ${short(reach / stride)} ${reach === stride ? "cell" : "cells"} ${way}; the 3x3 grid reaches 1. Tap 1 (top left) is offset by (${short(dy)}, ${short(dx)}) cells.`;
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
const STAR = "#ffd54f", GRID = "#8fd3ff", RIM = "#101010";

function photograph(model, stops) {
  const size = model.get("size"), [width, height] = size;
  const art = svg("svg", { viewBox: `0 0 ${width} ${height}`, style: `width:${width}px`, role: "group", "aria-label": "Photograph with a box and its star" });
  art.append(svg("image", { href: model.get("image"), width, height }));
  const outline = [[RIM, 5, 0.6], [STAR, 2.2, 1]].map(([stroke, w, opacity]) => svg("rect", { fill: "none", stroke, opacity, "stroke-width": w }));
  const taps = Array.from({ length: 9 }, (_, k) => {
    const centre = k === 4;
    const dot = svg("circle", { r: centre ? 3.5 : 8.5, fill: STAR, stroke: RIM, "stroke-width": 1.2 });
    const name = svg("text", { y: 4, "text-anchor": "middle", style: `fill:${RIM};font-size:11px;font-weight:700` }, centre ? "" : k + 1);
    return svg("g", {}, dot, name);
  });
  const squares = Array.from({ length: 9 }, () => svg("rect", { x: -2.6, y: -2.6, width: 5.2, height: 5.2, fill: GRID, stroke: RIM, "stroke-width": 1, "pointer-events": "none" }));

  const state = () => ["point", "ltrb", "stride"].map((key) => model.get(key));
  const side = (i, distance) => {
    const [point, ltrb] = state(), room = [point[0], point[1], width - point[0], height - point[1]][i];
    write(model, "ltrb", ltrb.map((d, k) => (k === i ? clamp(Math.round(distance), 0, room) : d)));
  };
  const go = (x, y) => write(model, "point", snap([x, y], model.get("ltrb"), model.get("stride"), size));
  const ring = (tap, r, reach) => { // what can be held: a white ring, and around it room for a finger
    tap.append(svg("circle", { r, fill: "none", stroke: RIM, "stroke-width": 4, opacity: 0.6 }));
    tap.append(svg("circle", { r, fill: "none", stroke: "#fff", "stroke-width": 2 }), svg("circle", { r: reach, fill: "transparent" }));
  };
  ring(taps[4], 14, 16);
  draggable(taps[4], art, {
    label: "point: moves the whole box, cell by cell",
    drag: go,
    nudge: (dx, dy) => go(model.get("point")[0] + dx * model.get("stride"), model.get("point")[1] + dy * model.get("stride")),
  });
  const handles = [[3, -1, 0], [1, 0, -1], [5, 1, 0], [7, 0, 1]].map(([k, wx, wy], i) => { // tap, outward direction
    ring(taps[k], 11, 17);
    draggable(taps[k], art, {
      label: `${SIDES[i]} side of the box`,
      drag: (x, y) => side(i, wx * (x - model.get("point")[0]) + wy * (y - model.get("point")[1])),
      nudge: (dx, dy) => side(i, model.get("ltrb")[i] + wx * dx + wy * dy),
    });
    set(taps[k], { "aria-valuemin": 0, "aria-orientation": wx ? "horizontal" : "vertical" });
    return taps[k];
  });
  art.append(...outline, ...[0, 2, 6, 8, 4, 3, 1, 5, 7].map((k) => taps[k]), ...squares);

  stops.push(follow(model, ["stride"], () => { // another grid: the box stays, its point goes to the nearest cell inside
    const [point, ltrb, stride] = state(), [near, sides] = toGrid(point, ltrb, stride);
    if (near.every((v, i) => v === point[i])) return;
    model.set("point", near);
    model.set("ltrb", sides);
    model.save_changes();
  }));
  stops.push(follow(model, ["point", "ltrb", "stride", "grid"], () => {
    const [[x, y], ltrb, stride] = state(), [l, t, r, b] = ltrb;
    for (const rect of outline) set(rect, { x: x - l, y: y - t, width: l + r, height: t + b });
    starCells([x, y], ltrb, stride).forEach(([row, column], k) => set(taps[k], { transform: `translate(${column * stride} ${row * stride})` }));
    gridCells([x, y], stride).forEach(([row, column], k) => set(squares[k], { transform: `translate(${column * stride} ${row * stride})`, visibility: model.get("grid") ? "visible" : "hidden" }));
    const room = [x, y, width - x, height - y];
    handles.forEach((handle, i) => set(handle, { "aria-valuenow": ltrb[i], "aria-valuemax": room[i], "aria-valuetext": `${short(ltrb[i])} pixels from the point` }));
    set(taps[4], { "aria-valuemin": 0, "aria-valuemax": width, "aria-valuenow": x, "aria-valuetext": `x ${x}, y ${y}` });
  }));
  return html("div", { style: `flex:1 1 300px;max-width:${width}px` }, art);
}

function table(model, stops) {
  const pairs = Array.from({ length: 9 }, () => html("span"));
  const widths = ["36%", "28%", "36%"]; // dx is always 0 in the middle; fixed, so that nothing jumps while a side is dragged
  const cell = (k) => html("td", { style: `width:${widths[k % 3]};padding:2px 1px;white-space:nowrap` }, html("b", { style: "color:var(--ve-soft)" }, k + 1), html("br"), pairs[k]);
  const rows = WAYS.map((_, i) => html("tr", {}, ...WAYS.map((_, j) => cell(3 * i + j))));
  stops.push(follow(model, ["ltrb", "stride"], () => {
    const offsets = starOffsets(model.get("ltrb"), model.get("stride"));
    pairs.forEach((pair, k) => (pair.textContent = `(${short(offsets[2 * k])}, ${short(offsets[2 * k + 1])})`));
  }));
  const caption = html("caption", { style: "text-align:left;color:inherit;font-size:14px" }, html("b", {}, "Offsets"), " (dy, dx) of taps 1 to 9, in cells");
  return html("table", { style: "margin:0;width:100%;max-width:330px;table-layout:fixed;font-size:12px" }, caption, html("tbody", {}, ...rows));
}

/** Nine squares in the colours that were read, each with its brightness from 0 to 255. */
function swatches(title, mark) {
  const side = 36, art = svg("svg", { viewBox: `0 0 ${3 * side} ${3 * side}`, style: "width:108px", role: "img" });
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
  const sign = svg("svg", { viewBox: "-7 -7 14 14", style: "display:inline-block;width:14px;vertical-align:-2px", "aria-hidden": "true" }, mark);
  return { paint, element: html("div", { style: "flex:0 0 auto" }, html("div", {}, sign, " ", html("b", {}, title)), art) };
}

function readings(model, stops) {
  const star = swatches("Star reads", svg("circle", { r: 6, fill: STAR, stroke: RIM }));
  const grid = swatches("Grid reads", svg("rect", { x: -5, y: -5, width: 10, height: 10, fill: GRID, stroke: RIM }));
  const maps = {};
  let pixels = null;
  const draw = () => {
    if (!pixels) return; // the photograph is still being decoded
    const [point, ltrb, stride] = ["point", "ltrb", "stride"].map((key) => model.get(key));
    maps[stride] ??= colourMap(pixels, model.get("size"), stride);
    star.paint(starCells(point, ltrb, stride).map((cell) => bilinear(maps[stride], cell)));
    grid.paint(gridCells(point, stride).map((cell) => bilinear(maps[stride], cell)));
    grid.element.style.display = model.get("grid") ? "" : "none";
  };
  stops.push(follow(model, ["point", "ltrb", "stride", "grid"], draw));
  decode(model.get("image"), model.get("size")).then((decoded) => (pixels = decoded)).then(draw);
  return html("div", { style: "display:flex;flex-wrap:wrap;gap:8px 14px;margin-top:8px" }, star.element, grid.element);
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Star explorer");
  const controls = html(
    "div", { class: "ve-controls" },
    choice(model, "stride", { label: "stride", options: STRIDES.map((s) => [s, `${s} px`]), stops }),
    choice(model, "grid", { label: "3x3 grid", options: [[true, "shown"], [false, "hidden"]], stops }),
  );
  const numbers = html("div", { style: "flex:1 1 272px" }, table(model, stops), readings(model, stops));
  root.append(controls, html("div", { class: "ve-row" }, photograph(model, stops), numbers), says);
  stops.push(follow(model, ["point", "ltrb", "stride"], () => {
    says.textContent = words(...["point", "ltrb", "stride"].map((key) => model.get(key)));
  }));
  return () => stops.forEach((stop) => stop());
}

export default { render };
