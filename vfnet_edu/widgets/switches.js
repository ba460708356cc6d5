// Parts of a detector's answer replaced by the truth, for one scene: the arithmetic of vfnet_edu/evaluation/oracle.py
// (switched) and postprocess.py (select), and the four switches. A scene is what oracle_scene in oracle.py describes.

const HIT = 0.5;
const EPS = 1e-6;

/** Intersection over union of two boxes. */
export function iou([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) {
  const shared =
    Math.max(Math.min(ax2, bx2) - Math.max(ax1, bx1), 0) * Math.max(Math.min(ay2, by2) - Math.max(ay1, by1), 0);
  const union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared;
  return shared / Math.max(union, EPS);
}

/** Indices, highest value first; equal values keep their order. */
export const order = (values) => values.map((_, i) => i).sort((a, b) => values[b] - values[a] || a - b);

/** The same values, dealt out anew among the rivals of each object: the highest to the best box. */
export function sortWithin(values, owners, ious, objects) {
  const dealt = [...values];
  for (let g = 0; g < objects; g++) {
    const rivals = owners.map((_, i) => i).filter((i) => owners[i] === g && ious[i] >= HIT);
    const high = rivals.map((i) => values[i]).sort((a, b) => b - a);
    order(rivals.map((i) => ious[i])).forEach((place, n) => {
      dealt[rivals[place]] = high[n];
    });
  }
  return dealt;
}

/** What the detector would have answered: {scores, boxes, factor} of every row of a scene. */
export function switched(scene, { score, label, box, center }) {
  const { owners, objects } = scene;
  const told = owners.map((g) => g >= 0);
  const truth = owners.map((g) => (g >= 0 ? objects[g][4] : 0));
  const boxes = scene.boxes.map((own, i) => (box === "true" && told[i] ? objects[owners[i]].slice(0, 4) : own));
  const ious = box === "true" ? told.map(Number) : scene.ious;
  let values = scene.scores.map((own, i) => own[truth[i]]);
  if (score === "sorted") values = sortWithin(values, owners, ious, objects.length);
  if (score === "iou") values = ious;
  if (score === "one") values = ious.map((v) => Number(v >= HIT));
  const keeps = score === "own" || score === "sorted"; // the scores of other classes, unless the class is told
  const scores = scene.scores.map((own, i) => {
    if (!told[i]) return keeps ? own : own.map(() => 0);
    const place = keeps || label === "true" ? truth[i] : order(own)[0];
    return own.map((s, k) => (k === place ? values[i] : keeps && label === "own" ? s : 0));
  });
  return { scores, boxes, factor: center === "true" ? scene.centers : owners.map(() => 1) };
}

/** What is reported, best first, after threshold and non-maximum suppression: [{row, label, score}]. */
export function reported(scene, state) {
  const { scores, boxes, factor } = switched(scene, state);
  const all = scores.flatMap((own, row) =>
    own.flatMap((s, label) => (s > scene.min_score ? [{ row, label, score: s * factor[row] }] : [])),
  );
  const kept = [];
  for (const i of order(all.map((one) => one.score))) {
    const mine = all[i];
    const covered = (other) => other.label === mine.label && iou(boxes[other.row], boxes[mine.row]) > scene.nms_iou;
    if (!kept.some(covered)) kept.push({ ...mine, box: boxes[mine.row] });
    if (kept.length === 100) break;
  }
  return kept;
}

/** Adds to each reported box its IoU with the object it overlaps most, what COCO says of it at an IoU of 0.5, and
 * the number of the object that it has found, or -1. */
export function judged(scene, kept) {
  const found = new Set();
  return kept.map((one) => {
    const overlaps = scene.objects.map((object) => iou(one.box, object));
    const same = overlaps.map((v, g) => (scene.objects[g][4] === one.label && v >= HIT ? v : 0));
    const free = same.map((v, g) => (found.has(g) ? 0 : v));
    const best = Math.max(0, ...overlaps);
    let verdict = best >= HIT ? "wrong class" : "too loose";
    let object = -1;
    if (Math.max(0, ...same) > 0) verdict = "a second one";
    if (Math.max(0, ...free) > 0) {
      object = order(free)[0];
      found.add(object);
      verdict = "found";
    }
    return { ...one, iou: best, verdict, object };
  });
}

export const SWITCHES = {
  score: { own: "its own", sorted: "its own, re-sorted", iou: "true IoU", one: "1 for every hit" },
  label: { own: "its own", true: "true" },
  box: { own: "its own", true: "true" },
  center: { none: "no", true: "yes" },
};
const LEGENDS = { score: "Score:", label: "Class:", box: "Boxes:", center: "Times true centerness:" };

/** The four switches, bound to the model. */
export const switchboard = (model, stops) =>
  html(
    "div",
    { class: "ve-controls", style: "gap:2px 22px" },
    ...Object.entries(SWITCHES).map(([key, names]) =>
      choice(model, key, { label: LEGENDS[key], options: Object.entries(names), stops }),
    ),
  );
