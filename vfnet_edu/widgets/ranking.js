// Chapter 9: the rivals of one object in the order of a score, or of their true IoU ("iou").

/** Indices of the rivals, highest value first; equal values keep their order. */
export const order = (values) =>
  values
    .map((v, i) => [v, i])
    .sort((a, b) => b[0] - a[0] || a[1] - b[1])
    .map(([, i]) => i);

/** The rivals as `ranker` ranks them: their indices, the rank of the best box, and the IoU of the first. */
export function ranking(scene, ranker) {
  const indices = order(ranker === "iou" ? scene.ious : scene.scores[ranker]);
  const best = indices.indexOf(order(scene.ious)[0]) + 1;
  return { indices, best, first: scene.ious[indices[0]] };
}

/** The square of the image that shows the object with some of its surroundings: [x, y, side]. */
export function view({ truth: [x1, y1, x2, y2], size }) {
  const side = Math.min(Math.max(2 * Math.max(x2 - x1, y2 - y1), 40), ...size);
  const from = (low, high, length) => clamp((low + high - side) / 2, 0, length - side);
  return [from(x1, x2, size[0]), from(y1, y2, size[1]), side];
}

/** "the true IoU", "the focal score" */
const called = (ranker) => (ranker === "iou" ? "the true IoU" : `the ${ranker} score`);

/** What the state means, in words. */
export function words(scene, ranker, rank) {
  const { indices, best, first } = ranking(scene, ranker);
  const mine = indices[rank - 1];
  const top = Math.max(...scene.ious);
  const verdict =
    best === 1
      ? `number 1 is the best box, IoU ${number(first)}.`
      : `number 1 has IoU ${number(first)}; the best box, IoU ${number(top)}, is number ${best}.`;
  const here = rank === 1 ? "" : ` You see number ${rank}: IoU ${number(scene.ious[mine])}.`;
  return `Ranked by ${called(ranker)}, ${verdict} NMS keeps number 1.${here}`;
}

const STATE = ["scene", "ranker", "rank"];

function picture(model, state, stops) {
  const art = svg("svg", { role: "img", style: "width:100%;border:1px solid var(--ve-line);overflow:hidden" });
  const photo = svg("image", { preserveAspectRatio: "none" });
  const outline = (stroke, width, more) =>
    svg("rect", { fill: "none", stroke, "stroke-width": width, "vector-effect": "non-scaling-stroke", ...more });
  const box = (ink, width, dash) => [
    outline("#000", width + 2.5, { "stroke-opacity": 0.65 }),
    outline(ink, width, { "stroke-dasharray": dash }),
  ];
  const truth = box("#7ee0c0", 2, "6 4");
  const mine = box("#ffb000", 3, null); // on a photograph: the same in light and dark
  art.append(photo, ...truth, ...mine);
  const place = (rects, [x1, y1, x2, y2]) => {
    for (const rect of rects) set(rect, { x: x1, y: y1, width: x2 - x1, height: y2 - y1 });
  };
  const draw = () => {
    const { scene, rank, indices } = state();
    const rival = indices[rank - 1];
    const [x, y, side] = view(scene);
    const numbers = `rival number ${rank}, IoU ${number(scene.ious[rival])}`;
    set(photo, { href: scene.image, width: scene.size[0], height: scene.size[1] });
    place(truth, scene.truth);
    place(mine, scene.boxes[rival]);
    set(art, {
      viewBox: `${x} ${y} ${side} ${side}`,
      "aria-label": `A ${scene.what}: the true box, dashed, and ${numbers}`,
    });
  };
  stops.push(follow(model, STATE, draw));
  return art;
}

function strip(model, state, go, stops) {
  const width = 400;
  const height = 260;
  const most = Math.max(...model.get("scenes").map((s) => s.boxes.length));
  const { group, X, Y } = plot({
    width,
    height,
    top: 16,
    x: {
      range: [0.3, most + 0.7],
      ticks: [1, 5, 10, 15, 20, 25, 30].filter((t) => t <= most),
      label: "rank: 1 is kept by NMS",
    },
    y: {
      range: [0.4, 1],
      ticks: [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1],
      label: "IoU with the true box",
      show: (v) => number(v, 1),
    },
  });
  const art = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const step = X(2) - X(1);
  const dots = Array.from({ length: most }, (_, i) => svg("circle", { cx: X(i + 1), stroke: "var(--ve-ground)" }));
  const star = svg("text", { "text-anchor": "middle" }, "best");
  const pointer = svg("path", { stroke: "var(--ve-orange)", "stroke-width": 2 });
  const catcher = svg("rect", {
    x: X(0.5),
    width: X(most + 0.5) - X(0.5),
    y: 0,
    height: height - 20,
    fill: "transparent",
    style: "cursor:pointer",
  });
  const pick = (event) => go(Math.round(1 + (position(art, event)[0] - X(1)) / step));
  catcher.addEventListener("pointerdown", (event) => {
    catcher.setPointerCapture(event.pointerId);
    pick(event);
  });
  catcher.addEventListener("pointermove", (event) => catcher.hasPointerCapture(event.pointerId) && pick(event));
  art.append(group, ...dots, star, pointer, catcher);
  const draw = () => {
    const { scene, rank, indices, best } = state();
    const heightOf = (n) => Y(scene.ious[indices[n - 1]]); // of the rival of a rank
    dots.forEach((dot, i) => {
      const here = i + 1;
      dot.style.display = i < indices.length ? "" : "none";
      if (i >= indices.length) return;
      const colour = here === rank ? "orange" : here === best ? "green" : "blue";
      set(dot, { cy: heightOf(here), r: here === rank ? 7 : 4.5, fill: `var(--ve-${colour})` });
    });
    set(star, { x: X(best), y: heightOf(best) - 9 });
    set(pointer, { d: `M${X(rank)} ${Y(0.4)}V${heightOf(rank) + 7}` });
    set(art, { "aria-label": `IoU by rank: ${indices.map((i) => number(scene.ious[i])).join(", ")}` });
  };
  stops.push(follow(model, STATE, draw));
  return art;
}

function render({ model, el }) {
  const stops = [];
  const scenes = model.get("scenes");
  const { root, says } = panel(el, "Ranking explorer");
  const state = () => {
    const scene = scenes[clamp(model.get("scene"), 0, scenes.length - 1)];
    const found = ranking(scene, model.get("ranker"));
    return { scene, ...found, rank: clamp(model.get("rank"), 1, found.indices.length) };
  };
  const go = (rank) => write(model, "rank", clamp(rank, 1, state().indices.length));
  const ofAll = (rank) => `${Math.min(rank, state().indices.length)} of ${state().indices.length}`;
  const steps = slider(model, "rank", { label: "rank", min: 1, max: 2, step: 1, show: ofAll, stops });
  const input = steps.querySelector("input");
  const output = steps.querySelector("output");
  const fit = () => {
    const { rank, indices } = state(); // another object has another number of rivals
    input.max = indices.length;
    if (model.get("rank") > indices.length) go(indices.length);
    input.value = rank;
    output.textContent = ofAll(rank);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  stops.push(follow(model, ["scene"], fit));
  const objects = scenes.map((scene, i) => [i, scene.name]);
  const rankers = [...Object.keys(scenes[0].scores).map((name) => [name, `${name} score`]), ["iou", "true IoU"]];
  const controls = html(
    "div",
    { class: "ve-controls" },
    choice(model, "scene", { label: "Object:", options: objects, stops }),
    choice(model, "ranker", { label: "Who ranks:", options: rankers, stops }),
    steps,
  );
  const note = html("div", {}, "dashed: true box; solid: the rival");
  const row = html(
    "div",
    { class: "ve-row" },
    html("div", { style: "flex:1 1 200px;max-width:300px" }, picture(model, state, stops), note),
    html("div", { style: "flex:2 1 280px" }, strip(model, state, go, stops)),
  );
  root.append(controls, row, says);
  const draw = () => {
    const { scene, rank } = state();
    says.textContent = words(scene, model.get("ranker"), rank);
  };
  stops.push(follow(model, STATE, draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
