// A scene that the reader composes: its pixels, its true boxes, what can be grabbed, and the tools beside it.
// Chapters 0 and 8 look at it. Scenes are composed as in vfnet_edu/widgets/detector.py, in the same order of operations.
// An item is [sprite, x, y, degrees, size, z]: what lies where, in pixels; the higher z is in front.

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

const ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"];

/** Names that tell objects apart: "star", or "first star" and "second star". */
export const namesOf = (labels, classes) =>
  labels.map((label, k) => {
    const same = labels.filter((other) => other === label).length;
    const before = labels.slice(0, k).filter((other) => other === label).length;
    return same > 1 ? `${ORDINALS[before]} ${classes[label]}` : classes[label];
  });

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

export const ZOOM = 3; // units of the drawing to a pixel of the scene
export const RIM = "#101010"; // on the scene colours are the same in light and dark
export const KEPT = "#0b62b8";
export const BEST = "#ffd54f";
export const TRUE = "#0b3d2e";
const LABEL = 19; // height of a label

export const outline = ([x1, y1, x2, y2], look) =>
  svg("rect", { x: x1 * ZOOM, y: y1 * ZOOM, width: (x2 - x1) * ZOOM, height: (y2 - y1) * ZOOM, fill: "none", ...look });

/** Twice the same outline: a wide one below, so that the upper one is seen on any ground. */
export const rimmed = (box, stroke, look = {}, rim = RIM) => [
  outline(box, { stroke: rim, "stroke-width": 4.5, opacity: 0.55 }),
  outline(box, { stroke, "stroke-width": 2.2, ...look }),
];

/** Labels of boxes, none on another. */
export function labels(marks, side) {
  const sizes = marks.map(({ text }) => [text.length * 7.8 + 8, LABEL]);
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

/** The scene in pixels, over it what `over(side)` draws, over that what can be grabbed. */
export function scenery(model, stage, over) {
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
    still.replaceChildren(...over(side));
  };
  return { element: html("div", { style: "position:relative;flex:1 1 300px;max-width:400px" }, canvas, art), draw };
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
export function dial(model, i, options) {
  const part = {
    get: () => model.get("items")[model.get("chosen")]?.[i] ?? 0,
    set: (_, value) => change(model, model.get("chosen"), (item) => item.map((v, n) => (n === i ? value : v))),
    save_changes: () => {},
    on: (_, draw) => ["items", "chosen"].forEach((key) => model.on(`change:${key}`, draw)),
    off: (_, draw) => ["items", "chosen"].forEach((key) => model.off(`change:${key}`, draw)),
  };
  return slider(part, "value", options);
}

export function tools(model) {
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

// ---- In step with the model -----------------------------------------------------------------------------------------

/** Calls `see` after every change of the scene, once a frame however many events arrive. -> is one still to come? */
export function onScene(model, see, stops) {
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      see();
    });
  };
  const restart = () => {
    model.set("items", model.get("scenes")[model.get("scene")].items);
    model.set("chosen", 0);
    model.save_changes();
    soon(); // the ground may change alone
  };
  model.on("change:scene", restart);
  model.on("change:items", soon);
  stops.push(
    () => model.off("change:scene", restart),
    () => model.off("change:items", soon),
  );
  return () => waiting;
}

/** What lies in the scene now: its picture, and of each object the true box (null: out of sight), class and name. */
export function composed(model, bytes) {
  const [sheet, items, { classes }] = ["sheet", "items", "manifest"].map((key) => model.get(key));
  const { ground } = model.get("scenes")[model.get("scene")];
  const picture = compose(sheet, bytes, ground, items);
  const labels = items.map(([sprite]) => sheet.sprites[sprite].label);
  const boxes = trueBoxes(picture.owner, sheet.size, items.length);
  return { picture, boxes, labels, names: namesOf(labels, classes) };
}

/** What this browser lacks, or "". */
export function missing() {
  if (typeof DecompressionStream !== "function") return "DecompressionStream";
  return html("canvas").getContext?.("2d") ? "" : "a canvas";
}

/** The static figure and one line: better than an error. */
export function apologize(model, root, says, [who, what]) {
  const alt = "Drawn shapes, each in a box with the name of its class and a score";
  root.append(html("img", { src: model.get("still"), alt, style: "max-width:100%;display:block" }), says);
  says.textContent = `${who} needs ${what}, which this browser lacks: here is a picture of it.`;
}
