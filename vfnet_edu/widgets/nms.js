// Chapter 15: non-maximum suppression, one decision after the other, on a scene that the reader composes. vfnet.js
// predicts, scene.js composes; here the boxes of one class become a list, and the list is worked off.

const FLOOR = 0.001; // soft: what decays to this or below is gone
const SIGMA = 0.5; // gaussian: width of the decay
const ROWS = 12; // of the list that are shown at once
const GONE = "#b3261e";

/** What a score is multiplied by, next to a better box: 0 where it is suppressed. */
export function decay(overlap, { way, limit }) {
  if (way === "gaussian") return Math.exp(-(overlap ** 2) / SIGMA);
  if (!(overlap > limit)) return 1;
  return way === "hard" ? 0 : 1 - overlap;
}

/**
 * Every decision on boxes of one class: [{taken, score, changed: [{i, overlap, before, after, gone}]}, ...].
 * Among equal scores the box that comes first is taken first.
 */
export function decisions(boxes, scores, state) {
  const now = [...scores];
  const least = state.way === "hard" ? 0 : FLOOR;
  const waiting = new Set(now.map((_, i) => i).filter((i) => now[i] > least));
  const steps = [];
  while (waiting.size) {
    const taken = [...waiting].reduce((best, i) => (now[i] > now[best] ? i : best));
    waiting.delete(taken);
    const changed = [];
    for (const i of [...waiting]) {
      const shared = overlap(boxes[taken], boxes[i]);
      const [before, factor] = [now[i], decay(shared, state)];
      if (factor === 1) continue;
      now[i] *= factor;
      const gone = now[i] <= least;
      if (gone) waiting.delete(i);
      changed.push({ i, overlap: shared, before, after: now[i], gone });
    }
    steps.push({ taken, score: now[taken], changed });
  }
  return steps;
}

/** How things stand after some steps: of each box its score by now and its fate. */
export function standing(scores, steps, count) {
  const now = scores.map((score) => ({ score, fate: "waits", by: null, overlap: 0, fresh: false }));
  steps.slice(0, count).forEach(({ taken, changed }, n) => {
    now[taken] = { ...now[taken], fate: "stays", by: n + 1, overlap: 0, fresh: n === count - 1 };
    for (const { i, overlap: shared, after, gone } of changed)
      now[i] = { score: after, fate: gone ? "goes" : "waits", by: n + 1, overlap: shared, fresh: n === count - 1 };
  });
  return now;
}

/** What is told of each object in the end: the first free box of at least 0.5 IoU, best score first, or null. */
export function told(boxes, steps, objects) {
  const found = objects.map(() => null);
  for (const { taken, score } of steps) {
    const fits = objects.map((object, g) => (found[g] ? 0 : overlap(boxes[taken], object)));
    const most = Math.max(0, ...fits);
    if (most >= 0.5) found[fits.indexOf(most)] = { score, iou: most };
  }
  return found;
}

const boxesOf = (n) => `${n} box${n === 1 ? "" : "es"}`;

/** Which object a box fits best, {g, iou}; g is -1 below an IoU of 0.5. */
function belongs(box, objects) {
  const fits = objects.map((object) => overlap(box, object));
  const iou = Math.max(0, ...fits);
  return { g: iou >= 0.5 ? fits.indexOf(iou) : -1, iou };
}

/** Of the boxes that a decision touches, the one that had the highest score, in words: one of another object first. */
function victim({ boxes, objects, names }, { taken, changed }) {
  const own = belongs(boxes[taken], objects).g;
  const highest = (list) => list.reduce((a, b) => (b.before > a.before ? b : a));
  const others = changed.filter(({ i }) => ![own, -1].includes(belongs(boxes[i], objects).g));
  const one = highest(others.length ? others : changed);
  const { g, iou } = belongs(boxes[one.i], objects);
  const who = others.length ? `Among them is a box of the ${names[g]} with` : "The highest of them has";
  return { one, text: `${who} score ${number(one.before)}${g < 0 ? "" : ` and IoU ${number(iou)}`}` };
}

/** What the last decision was, in words. */
function decision(stage, { step, way, limit }) {
  const { steps, rank } = stage;
  const { taken, score, changed } = steps[step - 1];
  const start = `Step ${step} of ${steps.length}: number ${rank[taken]} has the highest score, ${number(score)}, and stays.`;
  if (!changed.length) return `${start} No box that waits overlaps it enough to be touched.`;
  const [one, gone] = [changed.length === 1, way === "hard"];
  const reach = way === "gaussian" ? "" : ` by more than ${number(limit)}`;
  const end = gone ? (one ? "goes" : "go") : one ? "loses score" : "lose score";
  const most = victim(stage, steps[step - 1]);
  const left = gone ? "" : `, which is ${number(most.one.after)} now`;
  return `${start} ${boxesOf(changed.length)} overlap${one ? "s" : ""} it${reach} and ${end}. ${most.text}${left}.`;
}

/** What the state means, in words. */
export function words(stage, state) {
  const { boxes, steps, objects, names, kind } = stage;
  if (!boxes.length) return `No box scores enough as ${kind}: there is nothing to suppress.`;
  const now = state.step
    ? decision(stage, state)
    : `${boxesOf(boxes.length)} may be ${kind}, sorted by score. Nothing is decided yet: press Next.`;
  const list = told(boxes, steps, objects).map((one, g) =>
    one ? `${names[g]} with score ${number(one.score)} and IoU ${number(one.iou)}` : `no box for the ${names[g]}`,
  );
  return `${now} In the end ${steps.length === 1 ? "1 stays" : `${steps.length} stay`} of ${boxes.length}: ${list.join(", ")}.`;
}

// ---- The picture ----------------------------------------------------------------------------------------------------

function marks(stage, side) {
  const { boxes, standings, rank, objects } = stage;
  const where = (fate, fresh) =>
    boxes.map((_, i) => i).filter((i) => standings[i].fate === fate && standings[i].fresh === fresh);
  const truths = objects.map((box) => outline(box, { stroke: TRUE, "stroke-width": 2.4, "stroke-dasharray": "5 8" }));
  const thin = (look) => (i) =>
    outline(boxes[i], { "stroke-width": 1.4, opacity: 0.2 + 0.8 * stage.scores[i], ...look });
  const [stay, now] = [where("stays", false), where("stays", true)];
  const strong = [...stay, ...now].filter((i) => standings[i].score >= 0.1 || now.includes(i));
  const text = strong.map((i) => ({
    box: boxes[i],
    text: `${rank[i]}: ${number(standings[i].score)}`,
    fill: now.includes(i) ? BEST : KEPT,
    ink: now.includes(i) ? "#000" : "#fff",
  }));
  return [
    ...where("waits", false).map(thin({ stroke: RIM })),
    ...where("waits", true).map(thin({ stroke: GONE })),
    ...where("goes", true).map(thin({ stroke: GONE, "stroke-width": 1.8, "stroke-dasharray": "5 3" })),
    ...truths,
    ...strong.flatMap((i) => (now.includes(i) ? rimmed(boxes[i], BEST) : rimmed(boxes[i], KEPT, {}, "#fff"))),
    ...labels(text, side),
  ];
}

// ---- The list -------------------------------------------------------------------------------------------------------

const NARROW = "padding:2px 5px;overflow-wrap:normal;white-space:nowrap";

/** What becomes of a box, in a few words. */
export function fate({ fate: what, by, overlap: shared, fresh }) {
  if (what === "stays") return fresh ? "stays, now" : "stays";
  if (what === "goes") return `goes, IoU ${number(shared)}`;
  return fresh ? `fades, IoU ${number(shared)}` : by ? "faded, waits" : "waits";
}

function list(stage) {
  const title = (text) => html("th", { scope: "col", style: NARROW }, text);
  const head = html("tr", {}, ...["number", "score", "now", "fate"].map(title));
  const body = html("tbody");
  const note = html("p", { style: "color:var(--ve-soft);font-size:13px;margin:2px 0 8px" });
  const row = (i, place) => {
    const one = stage.standings[i];
    const ink = one.fate === "goes" ? "var(--ve-soft)" : "var(--ve-ink)";
    const weight = one.fresh && one.fate === "stays" ? 700 : 400;
    const ground = one.fresh ? "background:var(--ve-panel);" : "";
    const now = one.fate === "goes" && stage.way === "hard" ? "–" : number(one.score);
    const cells = [place + 1, number(stage.scores[i]), now, fate(one)];
    const style = `${NARROW};color:${ink};font-weight:${weight}`;
    return html("tr", { style: ground }, ...cells.map((text) => html("td", { style }, text)));
  };
  const draw = () => {
    const at = stage.taken < 0 ? 0 : stage.sorted.indexOf(stage.taken);
    const from = clamp(at - 1, 0, Math.max(stage.sorted.length - ROWS, 0));
    const shown = stage.sorted.slice(from, from + ROWS);
    body.replaceChildren(...shown.map((i, n) => row(i, from + n)));
    const rest = stage.sorted.length - shown.length;
    note.textContent = rest ? `${rest} more are not shown: the list follows the step.` : "";
  };
  return {
    element: html("div", {}, html("table", { style: "width:100%" }, html("thead", {}, head), body), note),
    draw,
  };
}

// ---- In step with the model -----------------------------------------------------------------------------------------

/** Compose, predict, and take the boxes of the chosen object's class, best first. Written into `stage`. */
function look(model, detector, bytes, stage) {
  const made = composed(model, bytes);
  const { size } = model.get("sheet");
  const { candidates } = detector.run(made.picture.pixels, size, size);
  const chosen = clamp(model.get("chosen"), 0, made.names.length - 1);
  Object.assign(stage, { picture: made.picture, made, candidates, chosen });
  pick(model, stage);
}

/** The boxes and objects of one class. Written into `stage`. */
function pick(model, stage) {
  const { made, candidates } = stage;
  stage.chosen = clamp(model.get("chosen"), 0, made.names.length - 1);
  const label = made.labels[stage.chosen];
  const mine = candidates.filter((one) => one.label === label);
  const items = made.boxes.map((_, k) => k).filter((k) => made.boxes[k] && made.labels[k] === label);
  stage.kind = model.get("manifest").classes[label];
  stage.boxes = mine.map(({ box }) => box);
  stage.scores = mine.map(({ score }) => score);
  stage.objects = items.map((k) => made.boxes[k]);
  stage.names = items.map((k) => made.names[k]);
  stage.sorted = mine.map((_, i) => i).sort((a, b) => mine[b].score - mine[a].score || a - b);
  stage.rank = stage.sorted.reduce((rank, i, n) => Object.assign(rank, { [i]: n + 1 }), {});
}

/** Decide as the settings say. Written into `stage`; returns the state. */
function decide(model, stage) {
  const state = { way: model.get("way"), limit: model.get("limit") };
  stage.way = state.way;
  stage.steps = decisions(stage.boxes, stage.scores, state);
  state.step = clamp(model.get("step"), 0, stage.steps.length);
  stage.standings = standing(stage.scores, stage.steps, state.step);
  stage.taken = state.step ? stage.steps[state.step - 1].taken : -1;
  return state;
}

/** Back and Next, and the slider between them. */
function pace(model, stage, stops) {
  const last = () => stage.steps?.length ?? 1;
  const show = (v) => `${Math.min(v, last())} of ${last()}`;
  const control = slider(model, "step", { label: "Step", min: 0, max: 1, step: 1, show, stops });
  const [input, output] = [control.querySelector("input"), control.querySelector("output")];
  const looks =
    "font:inherit;min-height:32px;padding:2px 14px;border:1px solid var(--ve-line);border-radius:5px;" +
    "background:var(--ve-panel);color:var(--ve-ink);cursor:pointer";
  const button = (text, by) => {
    const one = html("button", { type: "button", style: looks }, text);
    one.addEventListener("click", () => write(model, "step", clamp(model.get("step") + by, 0, last())));
    return one;
  };
  const draw = () => {
    input.max = last();
    input.value = Math.min(model.get("step"), last());
    output.textContent = show(model.get("step"));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  const style = "display:flex;gap:8px;align-items:end;flex-wrap:wrap;flex:1 1 300px";
  const buttons = html("div", { style: "display:flex;gap:8px" }, button("Back", -1), button("Next", 1));
  return { element: html("div", { style }, control, buttons), draw };
}

const WAYS = [
  ["hard", "hard"],
  ["linear", "soft, linear"],
  ["gaussian", "soft, gaussian"],
];
const KEY =
  "Dashed green: the objects. Yellow: the box that is taken now. Red: what it touches. Blue: what stays. Black: what waits. Faint: a low score.";

async function render({ model, el }) {
  const { root, says } = panel(el, "Non-maximum suppression, step by step");
  const lacks = missing();
  if (lacks) return apologize(model, root, says, ["The network in the page", lacks]);
  const [weights, pictures] = await Promise.all(["weights", "pictures"].map((key) => inflate(model.get(key))));
  const detector = new Vfnet(model.get("manifest"), weights);
  const [bytes, stage, stops] = [new Uint8Array(pictures), {}, []];
  const scenes = model.get("scenes").map(({ name }, n) => [n, name]);
  const parts = [scenery(model, stage, (side) => marks(stage, side)), list(stage), pace(model, stage, stops)];
  const limit = { label: "Suppress above an IoU of", min: 0.05, max: 1, step: 0.05, stops };
  root.append(
    choice(model, "scene", { label: "Scene:", options: scenes, stops }),
    choice(model, "way", { label: "NMS:", options: WAYS, stops }),
    html("div", { class: "ve-controls" }, parts[2].element, slider(model, "limit", limit)),
    says,
    html(
      "div",
      { class: "ve-row", style: "margin-top:10px" },
      html(
        "div",
        {},
        parts[0].element,
        html("p", { style: "color:var(--ve-soft);font-size:13px;max-width:400px" }, KEY),
      ),
      html("div", { style: "flex:1 1 300px" }, parts[1].element),
    ),
    html(
      "div",
      { class: "ve-controls", style: "margin-top:6px" },
      dial(model, 3, { label: "Turn the object", min: -180, max: 180, step: 5, show: (v) => `${v}°`, stops }),
      dial(model, 4, { label: "Its size", min: 0.4, max: 1.8, step: 0.05, stops }),
      tools(model),
    ),
  );
  const redraw = () => {
    pick(model, stage);
    const state = decide(model, stage);
    parts.forEach((part) => part.draw());
    says.textContent = words(stage, state);
  };
  const see = () => {
    look(model, detector, bytes, stage);
    redraw();
  };
  look(model, detector, bytes, stage);
  const waiting = onScene(model, see, stops);
  stops.push(follow(model, ["chosen", "step", "limit", "way"], () => waiting() || redraw()));
  return () => stops.forEach((stop) => stop());
}

export default { render };
