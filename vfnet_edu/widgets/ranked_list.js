// Chapter 3: a ranked list that is reordered by hand, with its precision-recall curve and AP.
// The arithmetic is in average_precision.js.

/** The list with one entry at another place, counted from 0; the others keep their order. */
export function moved(order, entry, place) {
  const others = order.filter((n) => n !== entry);
  return [...others.slice(0, place), entry, ...others.slice(place)];
}

const isRight = (verdict) => verdict === "right";
const byScore = (entries) => entries.map((_, n) => n);

/** Everything that follows from an order. */
export function judged({ entries, objects }, order, threshold) {
  const found = verdicts(entries, order, threshold);
  return { found, ...curve(found.map(isRight), objects) };
}

/** What the state means, in words. */
export function words(ranking, order, threshold) {
  const { found, ap } = judged(ranking, order, threshold);
  const own = judged(ranking, byScore(ranking.entries), threshold).ap;
  const right = found.filter(isRight).length;
  const start = `AP ${number(ap)}: of ${found.length} boxes ${right} are right, and there are ${ranking.objects} objects.`;
  const elsewhere = order.filter((n, place) => n !== place).length;
  if (!elsewhere) return `${start} This is the detector's own order.`;
  const places = `${elsewhere} boxes stand at other places than the detector put them`;
  if (Math.abs(ap - own) < 1e-9) return `${start} ${places}, and AP is the same as before.`;
  return `${start} ${places}; AP was ${number(own)}. No box has moved in its picture.`;
}

const STATE = ["order", "threshold"];
const ROW = 42;
const WIDE = 330;
const SIGNS = { right: "✓ right", taken: "✗ found above", wrong: "✗ wrong" };

/** One box of the list: its picture, score, IoU and verdict. */
function entryRow({ image, box: [x1, y1, x2, y2], scene, score, ious }) {
  const side = ROW - 6;
  const at = { x: 36 + x1 * side, y: 3 + y1 * side, width: (x2 - x1) * side, height: (y2 - y1) * side };
  const outline = (stroke, width) => svg("rect", { ...at, fill: "none", stroke, "stroke-width": width });
  const verdict = svg("text", { x: WIDE - 10, y: 26, "text-anchor": "end", style: "font-weight:600" });
  const iou = number(Math.max(0, ...ious));
  const ground = { x: 28, y: 1, width: WIDE - 30, height: ROW - 2, rx: 5 };
  const panel = svg("rect", { ...ground, fill: "var(--ve-panel)", stroke: "var(--ve-line)" });
  const row = svg(
    "g",
    {},
    panel,
    svg("image", { href: image, x: 36, y: 3, width: side, height: side }),
    outline("#101010", 3.5), // on a photograph: the same in light and dark
    outline("#ffd54f", 1.8),
    svg("text", { x: 82, y: 18 }, `score ${number(score)}`),
    svg("text", { x: 82, y: 34 }, `IoU ${iou}, scene ${scene + 1}`),
    verdict,
  );
  return { row, verdict, label: `box of score ${number(score)}, IoU ${iou}` };
}

function list(model, stops) {
  const { entries, what } = model.get("ranking");
  const height = ROW * entries.length;
  const art = svg("svg", {
    viewBox: `0 0 ${WIDE} ${height}`,
    role: "group",
    "aria-label": `Ranked list of boxes, class ${what}`,
  });
  const go = (n, place) => write(model, "order", moved(model.get("order"), n, clamp(place, 0, entries.length - 1)));
  const rows = entries.map((entry, n) => {
    const made = entryRow(entry);
    draggable(made.row, art, {
      label: made.label,
      drag: (_, y) => go(n, Math.round(y / ROW - 0.5)),
      nudge: (dx, dy) => go(n, model.get("order").indexOf(n) + dx + dy),
    });
    set(made.row, { "aria-valuemin": 1, "aria-valuemax": entries.length, "aria-orientation": "vertical" });
    return made;
  });
  const places = entries.map((_, i) =>
    svg("text", { x: 20, y: i * ROW + 26, "text-anchor": "end", style: "fill:var(--ve-soft)" }, i + 1),
  );
  art.append(...places, ...rows.map(({ row }) => row));
  const draw = () => {
    const order = model.get("order");
    const { found } = judged(model.get("ranking"), order, model.get("threshold"));
    order.forEach((n, place) => {
      const { row, verdict } = rows[n];
      const text = SIGNS[found[place]];
      verdict.textContent = text;
      verdict.style.fill = `var(--ve-${isRight(found[place]) ? "green" : "orange"})`;
      const spoken = `place ${place + 1}, ${text.slice(2)}`;
      set(row, { transform: `translate(0 ${place * ROW})`, "aria-valuenow": place + 1, "aria-valuetext": spoken });
    });
  };
  stops.push(follow(model, STATE, draw));
  return html("div", { style: `flex:1 1 280px;max-width:${WIDE}px` }, art);
}

/** The steps below which the area lies: to each recall the best precision from there on. */
export function outline({ recall, best }) {
  const points = [[0, best[0]]];
  best.forEach((height, i) => {
    const before = i ? recall[i - 1] : 0;
    if (recall[i] > before) points.push([before, height], [recall[i], height]);
  });
  const last = recall.at(-1);
  return last ? [...points, [last, 0]] : [[0, 0]];
}

function graph(model, stops) {
  const [width, height] = [380, 300];
  const show = (v) => number(v, 1);
  const ticks = [0, 0.2, 0.4, 0.6, 0.8, 1];
  const { group, X, Y } = plot({
    width,
    height,
    x: { range: [0, 1], ticks, show, label: "recall: share of the objects found" },
    y: { range: [0, 1], ticks, show, label: "precision: share of right boxes" },
  });
  const art = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const area = svg("path", { fill: "var(--ve-blue)", opacity: 0.22 });
  const own = svg("path", { fill: "none", stroke: "var(--ve-soft)", "stroke-width": 1.6, "stroke-dasharray": "5 4" });
  const line = svg("path", { fill: "none", stroke: "var(--ve-blue)", "stroke-width": 2.2 });
  const dots = model.get("order").map(() => svg("circle", { r: 4, stroke: "var(--ve-ground)" }));
  const title = svg("text", { "text-anchor": "middle", style: "font-size:20px;font-weight:700" });
  set(title, { x: X(0.32), y: Y(0.3) });
  art.append(group, area, own, line, ...dots, title);
  const steps = (result) => path(outline(result).map(([x, y]) => [X(x), Y(y)]));
  const draw = () => {
    const [ranking, order, threshold] = ["ranking", ...STATE].map((key) => model.get(key));
    const now = judged(ranking, order, threshold);
    set(own, { d: steps(judged(ranking, byScore(ranking.entries), threshold)) });
    set(line, { d: steps(now) });
    set(area, { d: `${steps(now)}L${X(0)} ${Y(0)}Z` });
    dots.forEach((dot, i) => {
      const fill = `var(--ve-${isRight(now.found[i]) ? "green" : "orange"})`;
      set(dot, { cx: X(now.recall[i]), cy: Y(now.precision[i]), fill });
    });
    title.textContent = `AP ${number(now.ap)}`;
    const said = now.precision.map((p, i) => `${number(now.recall[i])}: ${number(p)}`);
    set(art, { "aria-label": `Precision by recall, place by place: ${said.join(", ")}` });
  };
  stops.push(follow(model, ["ranking", ...STATE], draw));
  const note = html("div", {}, "A dot for each place; blue area: AP; dashed: the detector's own order.");
  return html("div", { style: "flex:1 1 280px;max-width:420px" }, art, note);
}

function reset(model) {
  const style =
    "font:inherit;color:inherit;background:var(--ve-panel);border:1px solid var(--ve-soft);border-radius:6px;" +
    "padding:4px 12px;min-height:32px;cursor:pointer";
  const button = html("button", { type: "button", style }, "Back to the detector's order");
  button.addEventListener("click", () => write(model, "order", byScore(model.get("ranking").entries)));
  return button;
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Ranked list explorer");
  const options = [0.5, 0.75, 0.9].map((value) => [value, String(value)]);
  const controls = html(
    "div",
    { class: "ve-controls" },
    choice(model, "threshold", { label: "A right box has an IoU of at least", options, stops }),
    reset(model),
  );
  root.append(controls, html("div", { class: "ve-row" }, list(model, stops), graph(model, stops)), says);
  const draw = () => {
    says.textContent = words(...["ranking", ...STATE].map((key) => model.get(key)));
  };
  stops.push(follow(model, ["ranking", ...STATE], draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
