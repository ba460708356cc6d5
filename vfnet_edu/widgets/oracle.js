// Chapter 8: parts of a detector's answer replaced by the truth. What they do in one scene is computed by switches.js;
// the APs come from Python.

const STATE = ["scene", ...Object.keys(SWITCHES)];

const RUNGS = [
  ["own/own/own/none", "nothing replaced"],
  ["iou/own/own/none", "IoU, own class"],
  ["own/true/own/none", "class told"],
  ["sorted/own/own/none", "re-sorted"],
  ["iou/true/own/none", "IoU, true class"],
  ["own/own/true/none", "true boxes"],
];

export const keyOf = ({ score, label, box, center }) => [score, label, box, center].join("/");

/** What the state means, in words. */
export function words(state, aps, classes, list) {
  const ap = aps[keyOf(state)];
  const gain = ap - aps[RUNGS[0][0]];
  const change =
    Math.abs(gain) < 0.05
      ? "as with nothing replaced"
      : `${number(Math.abs(gain), 1)} ${gain > 0 ? "more" : "less"} than with nothing replaced`;
  const here = list[state.rank - 1];
  if (!here) return `AP over all scenes: ${number(ap, 1)}, ${change}. In this scene nothing is reported.`;
  const box = `${classes[here.label]}, score ${number(here.score)}, IoU ${number(here.iou)}: ${here.verdict}`;
  return `AP over all scenes: ${number(ap, 1)}, ${change}. Number ${state.rank} of ${list.length} reported here: ${box}.`;
}

const rectangle = ([x1, y1, x2, y2]) => ({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 });

function picture(model, state, stops) {
  const art = svg("svg", { role: "img", style: "width:100%;border:1px solid var(--ve-line);overflow:hidden" });
  const photo = svg("image", { preserveAspectRatio: "none" });
  const group = svg("g");
  art.append(photo, group);
  const outline = (box, stroke, width, more = {}) =>
    svg("rect", {
      ...rectangle(box),
      fill: "none",
      stroke,
      "stroke-width": width,
      "vector-effect": "non-scaling-stroke",
      ...more,
    });
  const draw = () => {
    const { scene, list, rank } = state();
    const [width, height] = scene.size;
    set(art, {
      viewBox: `0 0 ${width} ${height}`,
      "aria-label": `Scene with ${scene.objects.length} objects, dashed, and reported box number ${rank}`,
    });
    set(photo, { href: scene.image, width, height });
    const truths = scene.objects.flatMap((box) => [
      outline(box, "#000", 4, { "stroke-opacity": 0.55 }),
      outline(box, "#7ee0c0", 2, { "stroke-dasharray": "6 4" }),
    ]);
    const mine = list[rank - 1];
    const chosen = mine
      ? [outline(mine.box, "#000", 5.5, { "stroke-opacity": 0.65 }), outline(mine.box, "#ffb000", 3)]
      : [];
    group.replaceChildren(...truths, ...chosen); // on a picture: the same colours in light and dark
  };
  stops.push(follow(model, [...STATE, "rank"], draw));
  return art;
}

function bars(model, state, stops) {
  const [width, left, row] = [400, 122, 23];
  const art = svg("svg", { viewBox: `0 0 ${width} ${row * (RUNGS.length + 1)}`, role: "img" });
  const lines = ["your switches", ...RUNGS.map(([, name]) => name)].map((name, i) => {
    const bar = svg("rect", { x: left, y: i * row + 4, height: row - 7, rx: 2 });
    const value = svg("text", { y: i * row + row / 2 + 4 });
    art.append(svg("text", { x: left - 6, y: i * row + row / 2 + 4, "text-anchor": "end" }, name), bar, value);
    return { name, bar, value };
  });
  const draw = () => {
    const [aps, key] = [model.get("aps"), keyOf(state())];
    const keys = [key, ...RUNGS.map(([k]) => k)];
    lines.forEach(({ bar, value }, i) => {
      const ap = aps[keys[i]];
      const length = (ap / 100) * (width - left - 40);
      set(bar, { width: length, fill: keys[i] === key ? "var(--ve-orange)" : "var(--ve-blue)" });
      set(value, { x: left + length + 5 });
      value.textContent = number(ap, 1);
    });
    const told = lines.map(({ name }, i) => `${name} ${number(aps[keys[i]], 1)}`);
    set(art, { "aria-label": `AP: ${told.join(", ")}` });
  };
  stops.push(follow(model, STATE, draw));
  return art;
}

function table(model, state, stops) {
  const body = html("tbody");
  const most = 8;
  const draw = () => {
    const { list, rank } = state();
    const from = clamp(rank - most, 0, Math.max(list.length - most, 0));
    const rows = list.slice(from, from + most).map((one, i) => {
      const here = from + i + 1;
      const cells = [here, model.get("classes")[one.label], number(one.score), number(one.iou), one.verdict];
      const style = here === rank ? "font-weight:700;background:var(--ve-panel)" : null;
      return html("tr", { style }, ...cells.map((text) => html("td", { style: "padding:2px 5px" }, text)));
    });
    body.replaceChildren(...rows);
  };
  stops.push(follow(model, [...STATE, "rank"], draw));
  const head = ["rank", "class", "score", "IoU", "verdict"].map((text) =>
    html("th", { style: "padding:2px 5px", scope: "col" }, text),
  );
  return html("table", { style: "width:100%;font-size:13px" }, html("thead", {}, html("tr", {}, ...head)), body);
}

function render({ model, el }) {
  const stops = [];
  const scenes = model.get("scenes");
  const { root, says } = panel(el, "Oracle switchboard");
  const state = () => {
    const at = Object.fromEntries(STATE.map((key) => [key, model.get(key)]));
    const scene = scenes[clamp(at.scene, 0, scenes.length - 1)];
    const list = judged(scene, reported(scene, at));
    return { ...at, scene, list, rank: clamp(model.get("rank"), 1, Math.max(list.length, 1)) };
  };
  const ofAll = (rank) => `${Math.min(rank, state().list.length)} of ${state().list.length}`;
  const steps = slider(model, "rank", { label: "reported box", min: 1, max: 2, step: 1, show: ofAll, stops });
  const [input, output] = [steps.querySelector("input"), steps.querySelector("output")];
  const fit = () => {
    const { list, rank } = state(); // another setting reports another number of boxes
    input.max = Math.max(list.length, 1);
    if (model.get("rank") !== rank) write(model, "rank", rank);
    input.value = rank;
    output.textContent = ofAll(rank);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  stops.push(follow(model, STATE, fit));
  const picked = scenes.map((scene, i) => [i, scene.name]);
  root.append(
    switchboard(model, stops),
    html("div", {}, html("b", {}, "AP over all scenes")),
    html("div", { style: "max-width:560px" }, bars(model, state, stops)),
    html(
      "div",
      { class: "ve-controls", style: "margin-top:8px" },
      choice(model, "scene", { label: "Scene:", options: picked, stops }),
      steps,
    ),
    html(
      "div",
      { class: "ve-row" },
      html(
        "div",
        { style: "flex:1 1 200px;max-width:290px" },
        picture(model, state, stops),
        html("div", {}, "dashed: true boxes; solid: the reported box"),
      ),
      html("div", { style: "flex:2 1 270px" }, table(model, state, stops)),
    ),
    says,
  );
  const draw = () => {
    const at = state();
    says.textContent = words(at, model.get("aps"), model.get("classes"), at.list);
  };
  stops.push(follow(model, [...STATE, "rank"], draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
