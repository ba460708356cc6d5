// Chapter 0: compose a scene, and a VarifocalNet looks at it while you drag. The network is vfnet.js; scenes are
// composed and judged as in vfnet_edu/widgets/detector.py, in the same order of operations.
// An item is [sprite, x, y, degrees, size, z]: what lies where, in pixels; the higher z is in front.

const NEAR = 0.1; // least IoU with an object for a box to be about it
const LEAST_AREA = 0.002; // part of the picture that must be in sight of an object for it to count
const MOST = 8; // objects

// ---- The scene ------------------------------------------------------------------------------------------------------

/** RGBA pixels of a scene, and whose each of them is: the number of an item, or -1. */
export function compose({ size, grounds, sprites }, bytes, ground, items) {
  const canvas = Float64Array.from(bytes.subarray(grounds[ground], grounds[ground] + 3 * size * size));
  const owner = new Int8Array(size * size).fill(-1);
  const order = items.map((_, k) => k).sort((a, b) => items[a][5] - items[b][5]);
  for (const k of order) lay(canvas, owner, size, sprites[items[k][0]], bytes, items[k], k);
  const pixels = new Uint8ClampedArray(4 * size * size).fill(255);
  canvas.forEach((value, i) => {
    pixels[4 * Math.floor(i / 3) + (i % 3)] = Math.floor(clamp(value, 0, 255) + 0.5);
  });
  return { pixels, owner };
}

/** An object turns what is under it into light + through * canvas, its shadow included. */
function lay(canvas, owner, size, sprite, bytes, [, x, y, turn, scale], k) {
  const { h, w } = sprite;
  const [cos, sin] = [Math.cos, Math.sin].map((f) => f((turn * Math.PI) / 180) / scale);
  const reach = Math.ceil((Math.hypot(w, h) / 2 + 2) * scale);
  const range = (middle) => [Math.max(Math.floor(middle) - reach, 0), Math.min(Math.ceil(middle) + reach, size - 1)];
  const [[left, right], [top, bottom]] = [range(x), range(y)];
  const seen = new Float64Array(7);
  for (let row = top; row <= bottom; row++)
    for (let column = left; column <= right; column++) {
      const [dx, dy] = [column - x, row - y];
      const [u, v] = [dx * cos + dy * sin + (w >> 1), dy * cos - dx * sin + (h >> 1)];
      if (u <= -1 || v <= -1 || u >= w || v >= h) continue;
      between(sprite, bytes, u, v, seen);
      const at = row * size + column;
      for (let c = 0; c < 3; c++) canvas[3 * at + c] = seen[c] + (seen[3 + c] * canvas[3 * at + c]) / 255;
      if (seen[6] > 0.5) owner[at] = k;
    }
}

/** A sprite at column u and row v, between its pixels: light (3), through (3), inside. Beside it all is through. */
function between({ h, w, starts: [light, through, inside] }, bytes, u, v, seen) {
  seen.fill(0);
  const [top, left] = [Math.floor(v), Math.floor(u)];
  for (let row = top; row <= top + 1; row++)
    for (let column = left; column <= left + 1; column++) {
      const weight = (1 - Math.abs(v - row)) * (1 - Math.abs(u - column));
      const out = row < 0 || column < 0 || row >= h || column >= w;
      const at = row * w + column;
      for (let c = 0; c < 3; c++) {
        seen[c] += weight * (out ? 0 : bytes[light + 3 * at + c]);
        seen[3 + c] += weight * (out ? 255 : bytes[through + 3 * at + c]);
      }
      seen[6] += weight * (out ? 0 : bytes[inside + at]);
    }
}

/** Tight around what is in sight of each object; null where hardly anything is. */
export function trueBoxes(owner, size, count) {
  const boxes = Array.from({ length: count }, () => [size, size, 0, 0]);
  const areas = new Array(count).fill(0);
  owner.forEach((k, at) => {
    if (k < 0) return;
    const [x, y] = [at % size, Math.floor(at / size)];
    const [x1, y1, x2, y2] = boxes[k];
    boxes[k] = [Math.min(x1, x), Math.min(y1, y), Math.max(x2, x + 1), Math.max(y2, y + 1)];
    areas[k] += 1;
  });
  return boxes.map((box, k) => (areas[k] >= LEAST_AREA * size * size ? box : null));
}

/** Of nine places the one that is farthest from all objects. */
export function freePlace(items, size) {
  const ticks = [0.25, 0.5, 0.75].map((part) => part * size);
  const room = ([x, y]) => Math.min(...items.map(([, left, top]) => Math.hypot(left - x, top - y)));
  const places = ticks.flatMap((y) => ticks.map((x) => [x, y]));
  return places.reduce((a, b) => (room(b) > room(a) ? b : a));
}

// ---- The verdict ----------------------------------------------------------------------------------------------------

/** For every object: its box, the box that is kept for it, the best of its class, and one that calls it another. */
export const judge = ({ kept, candidates }, boxes, labels) =>
  boxes.map((box, k) => ({
    box,
    kept: first(kept, k, boxes, labels, ({ score }) => score),
    best: first(candidates, k, boxes, labels, ({ fit }) => fit),
    other: kept.find((one) => box && one.label !== labels[k] && overlap(one.box, box) >= 0.5) ?? null,
  }));

/** Of the boxes about object k, the one that ranks highest: {score, fit, box, ...}, or null. */
function first(found, k, boxes, labels, rank) {
  if (!boxes[k]) return null;
  const rivals = boxes.filter((box, n) => box && n !== k && labels[n] === labels[k]);
  const about = found
    .filter(({ label }) => label === labels[k])
    .map((one) => ({ ...one, fit: overlap(one.box, boxes[k]) }))
    .filter(({ fit, box }) => fit >= NEAR && rivals.every((rival) => overlap(box, rival) <= fit));
  return about.reduce((a, b) => (a && rank(a) >= rank(b) ? a : b), null);
}

const ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"];

/** Names that tell objects apart: "star", or "first star" and "second star". */
export const namesOf = (labels, classes) =>
  labels.map((label, k) => {
    const same = labels.filter((other) => other === label).length;
    const before = labels.slice(0, k).filter((other) => other === label).length;
    return same > 1 ? `${ORDINALS[before]} ${classes[label]}` : classes[label];
  });

/** What became of one object, in words. */
export function tell(name, { box, kept, best, other }, least, classes) {
  if (!box) return `The ${name} is out of sight.`;
  if (!best) {
    const another = other && classes[other.label];
    const article = /^[aeiou]/.test(another) ? "an" : "a";
    const called = other ? `, but one with score ${number(other.score)} calls it ${article} ${another}` : "";
    return `No box around it says ${name}${called}.`;
  }
  const fits = `another box fits better (IoU ${number(best.fit)}), but scores only ${number(best.score)}`;
  if (!kept) {
    const gone = `a box with score ${number(best.score)} fits it with IoU ${number(best.fit)}`;
    return `No box is kept for the ${name}: ${gone}, but NMS took it for a copy of a better one.`;
  }
  const low = kept.score < least ? ", too low to be shown" : "";
  const says = `The box kept for the ${name} scores ${number(kept.score)}${low}, and its IoU is ${number(kept.fit)}`;
  if (best.fit - kept.fit < 0.005) return `${says}: no other box fits better.`;
  return best.score > kept.score ? `${says}: a better one was lost to NMS.` : `${says}: ${fits}.`;
}

/** What one cell says, in words; `objects` are {name, box} of those in sight. */
export function tellCell({ level, row, column, scores, classes, initial, refined, fate }, objects) {
  const score = Math.max(...scores);
  const near = objects
    .map(({ name, box }) => ({ name, fit: overlap(refined, box), before: overlap(initial, box) }))
    .reduce((a, b) => (b.fit > a.fit ? b : a), { fit: 0 });
  const fit = near.fit
    ? `Its first box has IoU ${number(near.before)} with the ${near.name}, its refined box ${number(near.fit)}.`
    : "Its box touches no object.";
  const place = `P${level + 3}, row ${row}, column ${column}`;
  return `${place}: ${classes[scores.indexOf(score)]}, score ${number(score)}. ${fit} ${fate}`;
}

// ---- Labels ---------------------------------------------------------------------------------------------------------

const meet = (a, b) => a[0] < b[0] + b[2] && b[0] < a[0] + a[2] && a[1] < b[1] + b[3] && b[1] < a[1] + a[3];

/** Where labels go, [x, y, width, height] each: at their box if there is room, and never on each other. */
export function placeLabels(boxes, sizes, side) {
  const placed = [];
  boxes.forEach(([x1, y1, x2, y2], k) => {
    const [w, h] = sizes[k];
    const near = [y1 - h, y2, y1, y2 - h].flatMap((y) => [x1, x2 - w].map((x) => [x, y]));
    const rows = Array.from({ length: Math.floor(side / h) }, (_, n) => n * h);
    const far = rows
      .sort((a, b) => Math.abs(a - y1) - Math.abs(b - y1))
      .flatMap((y) => [0, side - w].map((x) => [x, y]));
    const inside = ([x, y]) => [clamp(x, 0, side - w), clamp(y, 0, side - h), w, h];
    const free = (one) => !placed.some((other) => meet(one, other));
    const places = [...near, ...far].map(inside);
    placed.push(places.find(free) ?? places[0]);
  });
  return placed;
}

// ---- The picture ----------------------------------------------------------------------------------------------------

const ZOOM = 3; // units of the drawing to a pixel of the scene
const RIM = "#101010"; // on the scene colours are the same in light and dark
const KEPT = "#0b62b8";
const BEST = "#ffd54f";
const TRUE = "#0b3d2e";
const LABEL = 19; // height of a label

const outline = ([x1, y1, x2, y2], look) =>
  svg("rect", { x: x1 * ZOOM, y: y1 * ZOOM, width: (x2 - x1) * ZOOM, height: (y2 - y1) * ZOOM, fill: "none", ...look });

/** Twice the same outline: a wide one below, so that the upper one is seen on any ground. */
const rimmed = (box, stroke, look = {}, rim = RIM) => [
  outline(box, { stroke: rim, "stroke-width": 4.5, opacity: 0.55 }),
  outline(box, { stroke, "stroke-width": 2.2, ...look }),
];

/** Labels of boxes, none on another. */
function labels(marks, side) {
  const sizes = marks.map(({ text }) => [text.length * 7.3 + 8, LABEL]);
  const places = placeLabels(
    marks.map(({ box }) => box.map((v) => v * ZOOM)),
    sizes,
    side,
  );
  return marks.flatMap(({ text, fill, ink }, k) => {
    const [x, y, width, height] = places[k];
    const style = `font-size:13px;font-weight:600;fill:${ink}`;
    return [
      svg("rect", { x, y, width, height, rx: 3, fill, stroke: RIM, "stroke-width": 0.7 }),
      svg("text", { x: x + width / 2, y: y + 14, "text-anchor": "middle", style }, text),
    ];
  });
}

/** The scene in pixels, over it the boxes, over them what can be grabbed. */
function scenery(model, stage) {
  const { size } = model.get("sheet");
  const side = size * ZOOM;
  const canvas = html("canvas", { width: size, height: size, style: "width:100%;display:block;border-radius:4px" });
  const still = svg("g", { "pointer-events": "none" });
  const handles = svg("g");
  const art = svg(
    "svg",
    { viewBox: `0 0 ${side} ${side}`, role: "group", "aria-label": "the scene and its boxes" },
    ...[still, handles],
  );
  art.style.cssText = "position:absolute;inset:0;width:100%;overflow:hidden";
  const context = canvas.getContext("2d");
  let grips = [];

  const draw = () => {
    const items = model.get("items");
    if (grips.length !== items.length) {
      grips = items.map((_, k) => grip(model, art, k));
      handles.replaceChildren(...grips);
    }
    grips.forEach((one, k) => drawGrip(model, one, k));
    restack(model, handles, grips);
    context.putImageData(new ImageData(stage.picture.pixels, size, size), 0, 0);
    still.replaceChildren(...(model.get("view") === "cell" ? cellBoxes(stage, side) : boxes(model, stage, side)));
  };
  return { element: html("div", { style: "position:relative;flex:1 1 300px;max-width:400px" }, canvas, art), draw };
}

/** The kept boxes above the threshold, before them what NMS took away, and the box that would have fitted best. */
function boxes(model, stage, side) {
  const least = model.get("least");
  const { kept, candidates } = stage.seen;
  const shown = kept.filter(({ score }) => score >= least);
  const taken = model.get("view") === "all" ? candidates.filter(({ score, by }) => by && score >= least) : [];
  const { box, kept: mine, best } = stage.verdicts[model.get("chosen")] ?? {};
  const better = best && (!mine || best.fit - mine.fit >= 0.005) ? [best] : [];
  const marks = shown.map((one) => {
    const text = `${stage.classes[one.label]} ${number(one.score)}`;
    return { box: one.box, text, fill: KEPT, ink: "#fff" };
  });
  for (const one of better)
    marks.push({ box: one.box, text: `fits best ${number(one.score)}`, fill: BEST, ink: "#000" });
  return [
    ...taken.map((one) => outline(one.box, { stroke: RIM, "stroke-width": 1, opacity: 0.7 })),
    ...better.flatMap((one) => rimmed(one.box, BEST)),
    ...(box ? [outline(box, { stroke: TRUE, "stroke-width": 2.4, "stroke-dasharray": "5 8" })] : []),
    ...shown.flatMap((one) => rimmed(one.box, KEPT, {}, "#fff")),
    ...labels(marks, side),
  ];
}

/** What one cell says: its point, its first box with the star that looks again, and the refined box. */
function cellBoxes({ cell }, side) {
  const [x, y] = cell.point.map((v) => v * ZOOM);
  const marks = [
    { box: cell.initial, text: "first box", fill: BEST, ink: "#000" },
    { box: cell.refined, text: "refined box", fill: KEPT, ink: "#fff" },
  ];
  const star = cell.star.map(([px, py]) =>
    svg("circle", { cx: px * ZOOM, cy: py * ZOOM, r: 4.5, fill: BEST, stroke: RIM, "stroke-width": 1.2 }),
  );
  return [
    ...rimmed(cell.initial, BEST, { "stroke-dasharray": "6 5" }),
    ...rimmed(cell.refined, KEPT, {}, "#fff"),
    ...star,
    svg("circle", { cx: x, cy: y, r: 4, fill: "#fff", stroke: RIM, "stroke-width": 2 }),
    ...labels(marks, side),
  ];
}

// ---- What can be grabbed --------------------------------------------------------------------------------------------

function change(model, k, make) {
  const items = model.get("items").map((item, n) => (n === k ? make([...item]) : item));
  write(model, "items", items);
}

const top = (model) => Math.max(...model.get("items").map((item) => item[5])) + 1;

function grip(model, art, k) {
  const { size } = model.get("sheet");
  const put = (x, y) =>
    change(model, k, ([sprite, , , ...rest]) => [
      sprite,
      clamp(Math.round(x), 0, size),
      clamp(Math.round(y), 0, size),
      ...rest,
    ]);
  const raise = () => {
    write(model, "chosen", k);
    if (model.get("items")[k][5] < top(model) - 1) change(model, k, (item) => [...item.slice(0, 5), top(model)]);
  };
  const one = svg(
    "g",
    {},
    svg("circle", { fill: "transparent" }),
    svg("circle", { r: 7, fill: "none", stroke: RIM, "stroke-width": 4, opacity: 0.6 }),
    svg("circle", { r: 7, fill: "none", stroke: "#fff", "stroke-width": 2.2 }),
  );
  draggable(one, art, {
    label: "object",
    drag: (x, y) => put(x / ZOOM, y / ZOOM),
    nudge: (dx, dy) => {
      raise();
      const [, x, y] = model.get("items")[k];
      put(x + dx, y + dy);
    },
  });
  one.addEventListener("pointerdown", raise);
  one.addEventListener("focus", () => write(model, "chosen", k));
  return set(one, { "aria-valuemin": 0, "aria-valuemax": size });
}

function drawGrip(model, one, k) {
  const [sprite, x, y, turn, size] = model.get("items")[k];
  const { h, w, label } = model.get("sheet").sprites[sprite];
  const chosen = model.get("chosen") === k;
  one.firstChild.setAttribute("r", Math.max(0.36 * Math.min(h, w) * size * ZOOM, 22));
  for (const ring of [...one.children].slice(1)) ring.setAttribute("r", chosen ? 8 : 4);
  set(one, {
    transform: `translate(${x * ZOOM} ${y * ZOOM})`,
    "aria-label": `${model.get("manifest").classes[label]}, object ${k + 1}`,
    "aria-valuenow": x,
    "aria-valuetext": `x ${x}, y ${y}, turned by ${turn} degrees, size ${number(size)}`,
  });
}

/** What is in front is grabbed first. The one that has the focus stays where it is: moving it would take the focus. */
function restack(model, handles, grips) {
  const items = model.get("items");
  const order = grips.map((_, k) => k).sort((a, b) => items[a][5] - items[b][5]);
  if (order.every((k, n) => handles.children[n] === grips[k])) return;
  const still = grips.find((one) => one.matches(":focus"));
  let passed = !still;
  for (const k of order) {
    if (grips[k] === still) passed = true;
    else if (passed) handles.append(grips[k]);
    else handles.insertBefore(grips[k], still);
  }
}

/** A slider of the chosen object: entry `i` of its item. */
function dial(model, i, options) {
  const part = {
    get: () => model.get("items")[model.get("chosen")]?.[i] ?? 0,
    set: (_, value) => change(model, model.get("chosen"), (item) => item.map((v, n) => (n === i ? value : v))),
    save_changes: () => {},
    on: (_, draw) => ["items", "chosen"].forEach((key) => model.on(`change:${key}`, draw)),
    off: (_, draw) => ["items", "chosen"].forEach((key) => model.off(`change:${key}`, draw)),
  };
  return slider(part, "value", options);
}

function tools(model) {
  const classes = model.get("manifest").classes;
  const looks =
    "font:inherit;min-height:30px;padding:2px 10px;border:1px solid var(--ve-line);border-radius:5px;" +
    "background:var(--ve-panel);color:var(--ve-ink);cursor:pointer";
  const button = (text, act) => {
    const one = html("button", { type: "button", style: looks }, text);
    one.addEventListener("click", act);
    return one;
  };
  const kinds = html("select", { style: looks, "aria-label": "object to add" });
  kinds.append(...classes.map((name, n) => html("option", { value: n }, name)));
  const put = (items, chosen) => {
    model.set("items", items);
    model.set("chosen", chosen);
    model.save_changes();
  };
  const adds = () => {
    const items = model.get("items");
    const place = freePlace(items, model.get("sheet").size);
    const sprite = model.get("sheet").sprites.findIndex(({ label }) => label === Number(kinds.value));
    if (items.length < MOST) put([...items, [sprite, ...place, 0, 1, top(model)]], items.length);
  };
  const removes = () => {
    const items = model.get("items").filter((_, k) => k !== model.get("chosen"));
    if (items.length) put(items, 0);
  };
  const again = () => put(model.get("scenes")[model.get("scene")].items, 0);
  const style = "display:flex;flex-wrap:wrap;gap:6px;align-items:center";
  return html("div", { style }, kinds, button("Add", adds), button("Remove", removes), button("Start again", again));
}

// ---- Maps and table -------------------------------------------------------------------------------------------------

/** Where the maps of the levels go, in units; all cells have one size. */
const SIDE = 12;
const CORNERS = [
  [0, 22],
  [206, 22],
  [206, 146],
];

function scoreMaps(model, stage) {
  const art = svg("svg", { viewBox: "-2 0 306 220", role: "group", "aria-label": "best score of every cell" });
  art.style.cssText = "width:100%;max-width:380px";
  const ink = { width: SIDE, height: SIDE, fill: "var(--ve-blue)", stroke: "var(--ve-line)", "stroke-width": 0.5 };
  const sides = model.get("manifest").strides.map((stride) => model.get("sheet").size / stride);
  const cells = sides.map((n, level) => {
    const [left, above] = CORNERS[level];
    art.append(svg("text", { x: left, y: above - 6, style: "font-size:14px" }, `P${level + 3}: ${n} × ${n}`));
    return Array.from({ length: n * n }, (_, i) => {
      const [x, y] = [left + (i % n) * SIDE, above + Math.floor(i / n) * SIDE];
      return art.appendChild(svg("rect", { x, y, ...ink }));
    });
  });
  const winners = svg("g", { "pointer-events": "none" });
  const look = { fill: "none", stroke: "var(--ve-orange)", "stroke-width": 3 };
  const cursor = svg("g", {}, svg("rect", { width: SIDE, height: SIDE, ...look }));
  const go = (level, row, column) => {
    const n = sides[level];
    model.set("view", "cell");
    model.set("cell", [level, clamp(row, 0, n - 1), clamp(column, 0, n - 1)]);
    model.save_changes();
  };
  draggable(cursor, art, {
    label: "cell",
    drag: () => {}, // the whole map follows the pointer
    nudge: (dx, dy) => go(stage.cell.level, stage.cell.row + dy, stage.cell.column + dx),
  });
  art.append(winners, cursor);
  const point = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const [x, y] = position(art, event);
    const inside = ([left, above], n) => x >= left && x < left + n * SIDE && y >= above && y < above + n * SIDE;
    const level = sides.findIndex((n, i) => inside(CORNERS[i], n));
    if (level < 0) return;
    go(level, ...[y - CORNERS[level][1], x - CORNERS[level][0]].map((v) => Math.floor(v / SIDE)));
  };
  for (const kind of ["pointerdown", "pointermove"]) art.addEventListener(kind, point);
  const draw = () => drawMaps(model, stage, { cells, winners, cursor });
  return { element: html("div", {}, art), draw };
}

function drawMaps(model, { seen, cell }, { cells, winners, cursor }) {
  seen.scores.forEach(({ c, data }, level) => {
    cells[level].forEach((rect, i) => {
      rect.setAttribute("fill-opacity", Math.max(...data.subarray(i * c, (i + 1) * c)).toFixed(3));
    });
  });
  const least = model.get("least");
  const ink = { r: 3.2, fill: "#ffb000", stroke: "#000", "stroke-width": 0.8 };
  const dots = seen.kept.filter(({ score }) => score >= least);
  winners.replaceChildren(
    ...dots.map(({ level, cell: at }) => {
      const n = seen.scores[level].w;
      const [x, y] = [(at % n) + 0.5, Math.floor(at / n) + 0.5];
      return svg("circle", { cx: CORNERS[level][0] + x * SIDE, cy: CORNERS[level][1] + y * SIDE, ...ink });
    }),
  );
  const { level, row, column } = cell;
  const n = seen.scores[level].w;
  set(cursor, {
    transform: `translate(${CORNERS[level][0] + column * SIDE} ${CORNERS[level][1] + row * SIDE})`,
    "aria-valuemin": 0,
    "aria-valuemax": n * n - 1,
    "aria-valuenow": row * n + column,
    "aria-valuetext": `P${level + 3}, row ${row}, column ${column}`,
  });
}

/** A line for every object: what is kept for it, and what would have fitted best. */
function table(model, stage) {
  const body = html("tbody");
  const narrow = "padding:3px 5px;overflow-wrap:normal";
  const title = (text) => html("th", { scope: "col", style: `${narrow};vertical-align:bottom` }, text);
  const head = html("tr", {}, ...["object", "score kept", "IoU kept", "best IoU", "its score"].map(title));
  head.firstChild.style.textAlign = "left";
  const element = html("table", { style: "width:100%;margin:0 0 8px" }, html("thead", {}, head), body);
  const show = (one, key) => html("td", { style: `${narrow};white-space:nowrap` }, one ? number(one[key]) : "–");
  const draw = () => {
    const rows = stage.verdicts.map(({ kept, best }, k) => {
      const style = `${narrow};text-align:left;font-weight:${model.get("chosen") === k ? 700 : 400};color:inherit`;
      const name = html("th", { scope: "row", style }, stage.names[k]);
      return html("tr", {}, name, show(kept, "score"), show(kept, "fit"), show(best, "fit"), show(best, "score"));
    });
    body.replaceChildren(...rows);
  };
  return { element, draw };
}

// ---- All together ---------------------------------------------------------------------------------------------------

/** Compose, look, judge: everything that the pictures show. Written into `stage`. */
function look(model, detector, bytes, stage) {
  const [sheet, items] = [model.get("sheet"), model.get("items")];
  const { ground } = model.get("scenes")[model.get("scene")];
  stage.picture = compose(sheet, bytes, ground, items);
  stage.seen = detector.run(stage.picture.pixels, sheet.size, sheet.size);
  const labels = items.map(([sprite]) => sheet.sprites[sprite].label);
  stage.classes = detector.classes;
  stage.names = namesOf(labels, detector.classes);
  stage.verdicts = judge(stage.seen, trueBoxes(stage.picture.owner, sheet.size, items.length), labels);
}

/** [level, row, column] of the chosen cell; until one is chosen, that of the box kept for the chosen object. */
function cellAt(model, { seen, verdicts }) {
  if (model.get("cell").length) return model.get("cell");
  const { level, cell } = verdicts[model.get("chosen")]?.kept ?? seen.kept[0] ?? { level: 0, cell: 0 };
  const { w } = seen.scores[level];
  return [level, Math.floor(cell / w), cell % w];
}

/** Everything that the chosen cell says. */
function cellOf(model, stage) {
  const { seen, classes } = stage;
  const [level, row, column] = cellAt(model, stage);
  const stride = model.get("manifest").strides[level];
  const n = row * seen.scores[level].w + column;
  const part = ({ c, data }) => Array.from(data.subarray(n * c, (n + 1) * c));
  const star = Array.from({ length: 9 }, (_, k) =>
    Array.from(seen.stars[level].subarray(n * 18 + 2 * k, n * 18 + 2 * k + 2), (v) => v * stride),
  );
  const [initial, refined, scores] = [seen.initial, seen.refined, seen.scores].map((maps) => part(maps[level]));
  const label = scores.indexOf(Math.max(...scores));
  const same = (one) => one.level === level && one.cell === n && one.label === label;
  const one = seen.candidates.find(same);
  const fate = one
    ? seen.kept.some(same)
      ? "It is kept."
      : "NMS removes it: a box with a better score covers it."
    : "Its score is too low for a candidate.";
  return { level, row, column, point: [column * stride, row * stride], star, initial, refined, scores, classes, fate };
}

function summary(model, stage) {
  if (model.get("view") === "cell") {
    const objects = stage.verdicts.map(({ box }, k) => ({ name: stage.names[k], box })).filter(({ box }) => box);
    return tellCell(stage.cell, objects);
  }
  const { candidates, kept } = stage.seen;
  const shown = kept.filter(({ score }) => score >= model.get("least")).length;
  const counts = `${candidates.length} candidates, ${kept.length} after NMS, ${shown} shown.`;
  const k = clamp(model.get("chosen"), 0, stage.verdicts.length - 1);
  return `${counts} ${tell(stage.names[k], stage.verdicts[k], model.get("least"), stage.classes)}`;
}

/** What this browser lacks, or "". */
function missing() {
  if (typeof DecompressionStream !== "function") return "DecompressionStream";
  return html("canvas").getContext?.("2d") ? "" : "a canvas";
}

/** The static figure and one line: better than an error. */
function apologize(model, root, says, what) {
  const alt = "Drawn shapes, each in a box with the name of its class and a score";
  root.append(html("img", { src: model.get("still"), alt, style: "max-width:100%;display:block" }), says);
  says.textContent = `The live detector needs ${what}, which this browser lacks: here is a picture of it.`;
}

const KEYS = {
  kept: "Blue: kept. Yellow: the box that fits the chosen object best, with its score. Dashed: what is in sight of it.",
  all: "Blue: kept. Thin: taken away by NMS. Yellow: the box that fits the chosen object best. Dashed: what is in sight.",
  cell: "White: the point of the cell. Dashed: its first box, and on it the nine points where it looks again.",
};
const KEY_OF_MAPS =
  "Maps: the stronger the colour of a cell, the higher its best score; dots mark the cells whose boxes are kept.";

function panels(model, stage, stops) {
  const kinds = [
    ["kept", "kept boxes"],
    ["all", "before NMS, too"],
    ["cell", "one cell"],
  ];
  const scenes = model.get("scenes").map(({ name }, n) => [n, name]);
  const above = html(
    "div",
    { class: "ve-controls" },
    choice(model, "scene", { label: "Scene", options: scenes, stops }),
    choice(model, "view", { label: "Show", options: kinds, stops }),
  );
  const below = html(
    "div",
    { class: "ve-controls", style: "margin-top:10px" },
    dial(model, 3, { label: "Turn", min: -180, max: 180, step: 5, show: (v) => `${v}°`, stops }),
    dial(model, 4, { label: "Size", min: 0.4, max: 1.8, step: 0.05, stops }),
    slider(model, "least", { label: "Show scores from", min: 0.05, max: 0.95, step: 0.05, stops }),
    tools(model),
  );
  const [left, maps, verdicts] = [scenery(model, stage), scoreMaps(model, stage), table(model, stage)];
  const key = html("p", { style: "margin:6px 0 0;color:var(--ve-soft);font-size:13px" });
  const right = html("div", { style: "flex-basis:280px" }, verdicts.element, maps.element, key);
  const draw = () => {
    [left, maps, verdicts].forEach((one) => one.draw());
    key.textContent = `${KEYS[model.get("view")]} ${KEY_OF_MAPS}`;
  };
  return { elements: [above, html("div", { class: "ve-row" }, left.element, right), below], draw };
}

async function render({ model, el }) {
  const { root, says } = panel(el, "Live detector");
  const lacks = missing();
  if (lacks) return apologize(model, root, says, lacks);
  const [weights, pictures] = await Promise.all(["weights", "pictures"].map((key) => inflate(model.get(key))));
  const detector = new Vfnet(model.get("manifest"), weights);
  const [bytes, stage, stops] = [new Uint8Array(pictures), {}, []];

  const { elements, draw } = panels(model, stage, stops);
  root.append(...elements, says);
  const redraw = () => {
    stage.cell = cellOf(model, stage);
    draw();
    says.textContent = summary(model, stage);
  };
  let waiting = false;
  const soon = () => {
    if (waiting) return; // once per frame, however many events arrive
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      look(model, detector, bytes, stage);
      redraw();
    });
  };
  const restart = () => {
    model.set("items", model.get("scenes")[model.get("scene")].items);
    model.set("chosen", 0);
    model.set("cell", []);
    model.save_changes();
    soon(); // the ground may change alone
  };
  look(model, detector, bytes, stage);
  model.on("change:scene", restart);
  model.on("change:items", soon);
  stops.push(follow(model, ["chosen", "view", "cell", "least"], () => waiting || redraw()));
  stops.push(
    () => model.off("change:scene", restart),
    () => model.off("change:items", soon),
  );
  return () => stops.forEach((stop) => stop());
}

export default { render };
