// Chapter 8: the switches on a scene that the reader composes. vfnet.js predicts, scene.js composes, switches.js
// replaces; here a scene becomes what the switches take, and the two answers stand side by side.

const OWN = { score: "own", label: "own", box: "own", center: "none" };

/** How near to the middle of a box a point lies: 1 in the middle, 0 at a side and outside. */
export function centerness([x, y], [x1, y1, x2, y2]) {
  const [l, t, r, b] = [x - x1, y - y1, x2 - x, y2 - y];
  if (Math.min(l, t, r, b) <= 0) return 0;
  return Math.sqrt((Math.min(l, r) / Math.max(l, r)) * (Math.min(t, b) / Math.max(t, b)));
}

/** Every prediction that any switch could bring to the surface, as oracle_scene in oracle.py has it. */
export function sceneOf({ minScore, nmsIou, strides }, { scores, refined }, objects, size) {
  const rows = { boxes: [], scores: [], owners: [], ious: [], centers: [] };
  scores.forEach(({ h, w, c, data }, level) => {
    for (let cell = 0; cell < h * w; cell++) {
      const own = Array.from(data.subarray(cell * c, (cell + 1) * c));
      const box = Array.from(refined[level].data.subarray(cell * 4, cell * 4 + 4));
      const overlaps = objects.map((object) => iou(box, object));
      const most = Math.max(0, ...overlaps);
      if (most === 0 && Math.max(...own) <= minScore) continue;
      const owner = most > 0 ? overlaps.indexOf(most) : -1;
      const point = [cell % w, Math.floor(cell / w)].map((place) => place * strides[level]);
      rows.boxes.push(box.map((side) => clamp(side, 0, size)));
      rows.scores.push(own);
      rows.owners.push(owner);
      rows.ious.push(most);
      rows.centers.push(owner < 0 ? 0 : centerness(point, objects[owner]));
    }
  });
  return { ...rows, objects, size: [size, size], min_score: minScore, nms_iou: nmsIou };
}

/** AP of what is reported in one scene, 0 to 100: the mean over its classes and over ten thresholds. */
export function apOf(list, objects) {
  const classes = [...new Set(objects.map((object) => object[4]))];
  const thresholds = Array.from({ length: 10 }, (_, n) => 0.5 + n * 0.05);
  const aps = classes.flatMap((label) => {
    const mine = objects.filter((object) => object[4] === label);
    const entries = list
      .filter((one) => one.label === label)
      .map(({ box }) => ({ scene: 0, ious: mine.map((object) => iou(box, object)) }));
    const order = entries.map((_, n) => n);
    return thresholds.map((least) => {
      const hits = verdicts(entries, order, least).map((verdict) => verdict === "right");
      return curve(hits, mine.length).ap;
    });
  });
  return (100 * aps.reduce((a, b) => a + b, 0)) / Math.max(aps.length, 1);
}

/** One answer of the detector: its AP, its length, and what it found of each object. */
function answer(scene, state) {
  const list = judged(scene, reported(scene, state));
  const found = scene.objects.map((_, g) => list.find(({ object }) => object === g) ?? null);
  return { found, count: list.length, ap: apOf(list, scene.objects) };
}

/** Both answers, with nothing replaced and with the switches; `best` is the IoU of the best box offered. */
export function compared(scene, state) {
  const best = scene.objects.map((_, g) => Math.max(0, ...scene.ious.filter((_, i) => scene.owners[i] === g)));
  return { own: answer(scene, OWN), told: answer(scene, state), best };
}

/** What the state means, in words; `name` is that of the chosen object, `g` its number among those in sight. */
export function words({ own, told, best }, name, g) {
  const counts = `${number(told.ap, 1)} with your switches, from ${told.count} reported boxes`;
  const start = `AP of this scene: ${number(own.ap, 1)} with nothing replaced, ${counts}.`;
  if (g < 0) return `${start} The ${name} is out of sight.`;
  const says = (one) => (one ? `IoU ${number(one.iou)}` : "nothing that finds it");
  const offer = `the best box on offer has ${number(best[g])}`;
  return `${start} The ${name}: ${says(own.found[g])} is reported by itself, ${says(told.found[g])} with your switches; ${offer}.`;
}

/** Of the chosen object: its true box dashed, the box that the detector reports, and the one that the switches bring. */
function marks(stage, side) {
  const { scene, own, told, chosen } = stage;
  const [before, after] = [own.found[chosen], told.found[chosen]];
  const same = before && after && before.box.every((v, i) => Math.abs(v - after.box[i]) < 1e-6);
  const text = [
    before && {
      box: before.box,
      text: same ? `both ${number(before.iou)}` : `own ${number(before.iou)}`,
      fill: KEPT,
      ink: "#fff",
    },
    after && !same && { box: after.box, text: `switched ${number(after.iou)}`, fill: BEST, ink: "#000" },
  ].filter(Boolean);
  const truths = scene.objects.map((box) =>
    outline(box, { stroke: TRUE, "stroke-width": 2.4, "stroke-dasharray": "5 8" }),
  );
  return [
    ...truths,
    ...(before ? rimmed(before.box, KEPT, {}, "#fff") : []),
    ...(after && !same ? rimmed(after.box, BEST) : []),
    ...labels(text, side),
  ];
}

/** A line for every object: the IoU of what is reported, by the detector itself and with the switches. */
function table(model, stage) {
  const narrow = "padding:3px 5px;overflow-wrap:normal";
  const body = html("tbody");
  const title = (text) => html("th", { scope: "col", style: `${narrow};vertical-align:bottom` }, text);
  const head = html("tr", {}, ...["object", "own IoU", "switched IoU", "best on offer"].map(title));
  head.firstChild.style.textAlign = "left";
  const draw = () => {
    const rows = stage.names.map((name, k) => {
      const g = stage.places[k];
      const weight = model.get("chosen") === k ? 700 : 400;
      const first = html(
        "th",
        { scope: "row", style: `${narrow};text-align:left;font-weight:${weight};color:inherit` },
        name,
      );
      const values = [stage.own.found[g]?.iou, stage.told.found[g]?.iou, stage.best[g]];
      const cells = values.map((v) => html("td", { style: narrow }, v === undefined ? "–" : number(v)));
      return html("tr", {}, first, ...cells);
    });
    body.replaceChildren(...rows);
  };
  return { element: html("table", { style: "width:100%;margin:8px 0" }, html("thead", {}, head), body), draw };
}

/** Compose, predict, bring into the form of the switches. Written into `stage`. */
function look(model, detector, bytes, stage) {
  Object.assign(stage, composed(model, bytes));
  const { size } = model.get("sheet");
  const seen = detector.run(stage.picture.pixels, size, size);
  let objects = 0;
  stage.places = stage.boxes.map((box) => (box ? objects++ : -1)); // of each item among the objects in sight
  const inSight = stage.boxes.flatMap((box, k) => (box ? [[...box, stage.labels[k]]] : []));
  stage.scene = sceneOf(detector, seen, inSight, size);
}

/** What the switches make of it. Written into `stage`. */
function replace(model, stage) {
  const state = Object.fromEntries(Object.keys(SWITCHES).map((key) => [key, model.get(key)]));
  const item = clamp(model.get("chosen"), 0, stage.names.length - 1);
  Object.assign(stage, compared(stage.scene, state), { chosen: stage.places[item], name: stage.names[item] });
}

async function render({ model, el }) {
  const { root, says } = panel(el, "Oracle switchboard on your own scene");
  const lacks = missing();
  if (lacks) return apologize(model, root, says, ["Your own scene", lacks]);
  const [weights, pictures] = await Promise.all(["weights", "pictures"].map((key) => inflate(model.get(key))));
  const detector = new Vfnet(model.get("manifest"), weights);
  const [bytes, stage, stops] = [new Uint8Array(pictures), {}, []];

  const scenes = model.get("scenes").map(({ name }, n) => [n, name]);
  const parts = [scenery(model, stage, (side) => marks(stage, side)), table(model, stage)];
  const key =
    "Dashed: what is in sight. Blue: the box reported for the chosen object. Yellow: the one with your switches.";
  root.append(
    switchboard(model, stops),
    choice(model, "scene", { label: "Scene:", options: scenes, stops }),
    html(
      "div",
      { class: "ve-row" },
      parts[0].element,
      html(
        "div",
        { style: "flex:1 1 260px" },
        parts[1].element,
        html("p", { style: "color:var(--ve-soft);font-size:13px" }, key),
        dial(model, 3, { label: "Turn", min: -180, max: 180, step: 5, show: (v) => `${v}°`, stops }),
        dial(model, 4, { label: "Size", min: 0.4, max: 1.8, step: 0.05, stops }),
        tools(model),
      ),
    ),
    says,
  );
  const redraw = () => {
    replace(model, stage);
    parts.forEach((part) => part.draw());
    says.textContent = words(stage, stage.name, stage.chosen);
  };
  const see = () => {
    look(model, detector, bytes, stage);
    redraw();
  };
  look(model, detector, bytes, stage);
  const waiting = onScene(model, see, stops);
  stops.push(follow(model, ["chosen", ...Object.keys(SWITCHES)], () => waiting() || redraw()));
  return () => stops.forEach((stop) => stop());
}

export default { render };
