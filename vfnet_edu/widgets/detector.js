// Chapter 0: compose a scene, and a VarifocalNet looks at it while you drag. The network is vfnet.js, the scene and
// what can be grabbed in it scene.js; boxes are judged as in vfnet_edu/widgets/detector.py.

const NEAR = 0.1; // least IoU with an object for a box to be about it

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

// ---- The picture ----------------------------------------------------------------------------------------------------

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
  Object.assign(stage, composed(model, bytes), { classes: detector.classes });
  const { size } = model.get("sheet");
  stage.seen = detector.run(stage.picture.pixels, size, size);
  stage.verdicts = judge(stage.seen, stage.boxes, stage.labels);
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
  const over = (side) => (model.get("view") === "cell" ? cellBoxes(stage, side) : boxes(model, stage, side));
  const [left, maps, verdicts] = [scenery(model, stage, over), scoreMaps(model, stage), table(model, stage)];
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
  if (lacks) return apologize(model, root, says, ["The live detector", lacks]);
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
  const forget = () => model.set("cell", []); // before the scene starts again, which saves it
  model.on("change:scene", forget);
  const see = () => {
    look(model, detector, bytes, stage);
    redraw();
  };
  look(model, detector, bytes, stage);
  const waiting = onScene(model, see, stops);
  stops.push(follow(model, ["chosen", "view", "cell", "least"], () => waiting() || redraw()));
  stops.push(() => model.off("change:scene", forget));
  return () => stops.forEach((stop) => stop());
}

export default { render };
