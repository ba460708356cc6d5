// Chapter 16: what fixing each kind of error would add to AP50; a bar opens its crops, worst first.

/** The open bar of the chosen detector. */
export const opened = (detectors, which, kind) => detectors[which].kinds.find((one) => one.kind === kind);

/** "a heart", "an ellipse" */
export const a = (noun) => `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}`;

const REASONS = {
  class: "The box would do; the class is wrong.",
  place: "The class is right; the box is too far off, for a hit takes 0.50.",
  both: "Wrong class, and too far off for any.",
  duplicate: "A box with a higher score has found this object already.",
  background: "No object is touched by more than 0.10.",
};

/** One error in words. */
export function story(kind, { says, wanted, iou }) {
  if (kind === "missed") return `It is ${a(wanted)}. No box with its class, or on its place, was reported.`;
  const truth = wanted ? `it is ${a(wanted)}, IoU ${number(iou)}` : "there is nothing";
  return `The detector says ${says}; ${truth}. ${REASONS[kind]}`;
}

/** What the state means, in words. */
export function words(detectors, which, kind, rank) {
  const { count, gain, crops } = opened(detectors, which, kind);
  const { name, ap50 } = detectors[which];
  const start = `${name}, AP50 ${number(ap50, 1)}: to fix ${number(count, 0)} × ${kind} would add ${number(gain)}.`;
  if (!crops.length) return `${start} There is none to be seen.`;
  const place = clamp(rank, 1, crops.length);
  return `${start} Number ${place}: ${story(kind, crops[place - 1])}`;
}

/** The longest bar of all detectors, so that their bars can be compared. */
export const longest = (detectors) => Math.max(0.01, ...detectors.flatMap(({ kinds }) => kinds.map((k) => k.gain)));

const STATE = ["which", "kind", "rank"];
const BUTTON = "font:inherit;color:inherit;cursor:pointer;border-radius:6px;text-align:left;";

/** A button that says whether it is the chosen one. */
function pressed(button, is) {
  button.setAttribute("aria-pressed", is);
  button.style.border = `2px solid var(--ve-${is ? "blue" : "line"})`;
  button.style.background = is ? "var(--ve-panel)" : "var(--ve-ground)";
}

function bars(model, stops) {
  const detectors = model.get("detectors");
  const root = html("div", { role: "group", "aria-label": "Kinds of errors", style: "flex:1 1 270px;max-width:380px" });
  const buttons = detectors[0].kinds.map(({ kind }) => {
    const name = html("span", { style: "flex:0 0 88px" }, kind);
    const bar = html("span", { style: "display:block;height:16px;background:var(--ve-blue);border-radius:2px" });
    const track = html("span", { style: "flex:1 1 auto" }, bar);
    const gain = html("span", { style: "flex:0 0 50px;text-align:right;font-weight:600;white-space:nowrap" });
    const style = `${BUTTON}display:flex;gap:6px;align-items:center;width:100%;min-height:36px;padding:3px 8px;margin:3px 0`;
    const button = html("button", { type: "button", style }, name, track, gain);
    button.addEventListener("click", () => {
      write(model, "kind", kind);
      write(model, "rank", 1);
    });
    root.append(button);
    return { kind, bar, gain, button };
  });
  const most = longest(detectors);
  const draw = () => {
    for (const { kind, bar, gain, button } of buttons) {
      const one = opened(detectors, model.get("which"), kind);
      bar.style.width = `${Math.max(1, (100 * one.gain) / most)}%`;
      gain.textContent = `+${number(one.gain)}`;
      button.setAttribute(
        "aria-label",
        `${kind}: ${number(one.count, 0)} errors, fixing them adds ${number(one.gain)}`,
      );
      pressed(button, model.get("kind") === kind);
    }
  };
  stops.push(follow(model, STATE, draw));
  root.append(html("div", { style: "color:var(--ve-soft)" }, "AP50 that fixing one kind alone would add"));
  return root;
}

const INKS = [
  ["true", "#7fd6ff", "5 3"],
  ["predicted", "#ffd54f", null],
];

/** One crop with its two frames: the same colours in light and dark, for they lie on a photograph. */
function picture(sheet, columns, rows, one, side) {
  const art = svg("svg", { viewBox: `0 0 ${side} ${side}`, width: "100%", "aria-hidden": "true" });
  art.style.overflow = "hidden";
  const [x, y] = [-(one.tile % columns) * side, -Math.floor(one.tile / columns) * side];
  art.append(svg("image", { href: sheet, x, y, width: columns * side, height: rows * side }));
  for (const [key, ink, dashes] of INKS) {
    if (!one[key]) continue;
    const [x1, y1, x2, y2] = one[key].map((v) => v * side);
    const frame = { x: x1, y: y1, width: x2 - x1, height: y2 - y1, fill: "none" };
    art.append(svg("rect", { ...frame, stroke: "#101010", "stroke-width": 4 }));
    art.append(svg("rect", { ...frame, stroke: ink, "stroke-width": 2, "stroke-dasharray": dashes }));
  }
  return art;
}

function gallery(model, stops) {
  const grid = "display:grid;grid-template-columns:repeat(auto-fill,minmax(96px,1fr));gap:6px";
  const root = html("div", { role: "group", style: grid });
  let shown = "";
  const draw = () => {
    const [detectors, columns, which, kind, rank] = ["detectors", "columns", ...STATE].map((key) => model.get(key));
    const { sheet, kinds } = detectors[which];
    const { crops } = opened(detectors, which, kind);
    if (shown !== `${which} ${kind}`) {
      shown = `${which} ${kind}`;
      const rows = Math.ceil(kinds.reduce((sum, one) => sum + one.crops.length, 0) / columns);
      set(root, { "aria-label": `${kind}: the worst, and the next` });
      root.replaceChildren(
        ...crops.map((one, n) => {
          const said = html("span", { style: "display:block;font-size:12px" }, one.says || `no ${one.wanted}`);
          const style = `${BUTTON}padding:3px`;
          const label = `Number ${n + 1}. ${story(kind, one)}`;
          const button = html("button", { type: "button", style, "aria-label": label });
          button.append(picture(sheet, columns, rows, one, 96), said);
          button.addEventListener("click", () => write(model, "rank", n + 1));
          return button;
        }),
      );
    }
    [...root.children].forEach((button, n) => pressed(button, n + 1 === clamp(rank, 1, crops.length)));
  };
  stops.push(follow(model, STATE, draw));
  const key = html("div", { style: "color:var(--ve-soft)" }, "solid, yellow: predicted; dashed, blue: true");
  return html("div", { style: "flex:2 1 300px" }, root, key);
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Error explorer");
  const detectors = model.get("detectors");
  const most = Math.max(1, ...detectors.flatMap(({ kinds }) => kinds.map(({ crops }) => crops.length)));
  const options = detectors.map(({ name }, n) => [n, name]);
  const show = (v) => `number ${v}`;
  const controls = html(
    "div",
    { class: "ve-controls" },
    choice(model, "which", { label: "Trained with", options, stops }),
    slider(model, "rank", { label: "Which error, worst first", min: 1, max: most, step: 1, show, stops }),
  );
  root.append(controls, html("div", { class: "ve-row" }, bars(model, stops), gallery(model, stops)), says);
  const draw = () => {
    says.textContent = words(...["detectors", ...STATE].map((key) => model.get(key)));
  };
  stops.push(follow(model, ["detectors", ...STATE], draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
