// Chapter 17: parameters, FLOPs, memory and time of a VFNet. Backbones were counted in Python (recipe_calculator.py);
// neck and head are formulas in their channels C, those of vfnet_edu/models/necks.py and heads/vfnet.py.

const INPUTS = [512, 1024, 2048]; // channels of C3, C4, C5
const CLASSES = 80;
const sum = (values) => values.reduce((total, v) => total + v, 0);

/** Cells of P3 to P7 for an image of so many pixels, multiples of 32. */
export const cellsOf = (width, height) =>
  [8, 16, 32, 64, 128].map((stride) => Math.ceil(width / stride) * Math.ceil(height / stride));

/** Weights of a neck. In the FPN a convolution has a bias, in the PAFPN a GroupNorm and, at the end, a DCNv2. */
export function neckParameters(neck, c) {
  const lateral = sum(INPUTS) * c + 3 * c;
  const plain = 9 * c * c;
  if (neck === "fpn") return lateral + 5 * (plain + c);
  const predictor = 27 * 9 * c + 27;
  return lateral + 10 * (plain + 2 * c) + 3 * predictor;
}

/** Multiply-adds of a neck, twice. */
export function neckFlops(neck, c, cells) {
  const [c3, c4, c5, c6, c7] = cells;
  const levels = c3 + c4 + c5;
  const lateral = c * (INPUTS[0] * c3 + INPUTS[1] * c4 + INPUTS[2] * c5);
  let madds = lateral + 9 * c * c * (levels + c6 + c7);
  if (neck === "pafpn") madds += 9 * c * c * (c4 + c5) + (9 * c * c + 27 * 9 * c) * levels;
  return 2 * madds;
}

/** Weights of the head: two towers, one convolution for the first box, two stars, three outputs, ten gains. */
export function headParameters(c, depth, dcn) {
  const withNorm = 9 * c * c + 2 * c;
  const predictor = 27 * 9 * c + 27;
  const outputs = 2 * (36 * c + 4) + CLASSES * (9 * c + 1);
  return (2 * depth + 1) * withNorm + 2 * 9 * c * c + outputs + 10 + (dcn ? 2 * predictor : 0);
}

/** FLOPs of the head for one cell; all cells of all levels cost the same. */
export const headFlops = (c, depth, dcn) =>
  2 * ((2 * depth + 3) * 9 * c * c + 2 * 36 * c + 9 * CLASSES * c + (dcn ? 2 * 27 * 9 * c : 0));

/** Everything that can be said about a choice without training it. `what` holds the tables of the traits. */
export function calculate(choice, what) {
  const { backbone, dcn, neck, channels } = choice;
  const kind = dcn ? "dcn" : "plain";
  const base = what.counts.backbones[backbone][kind];
  const [, , width, height] = what.sizes.find(([, short]) => short === choice.size);
  const cells = cellsOf(width, height);
  const blocks = (width * height) / 32 ** 2;
  const depth = what.depths[neck];
  const parts = [
    ["backbone", base.parameters, base.flops * blocks],
    ["neck", neckParameters(neck, channels), neckFlops(neck, channels, cells)],
    ["head", headParameters(channels, depth, dcn), headFlops(channels, depth, dcn) * sum(cells)],
  ].map(([name, parameters, flops]) => ({ name, parameters, flops }));
  const parameters = sum(parts.map((part) => part.parameters));
  const flops = sum(parts.map((part) => part.flops));
  const trained = parameters - base.parameters + base.trained;
  const [a, b] = what.counts.kept[neck][kind];
  const kept = (base.kept * blocks + (a + b * channels) * sum(cells)) * choice.images_per_gpu;
  return {
    parts: [...parts, { name: "all", parameters, flops }],
    parameters,
    flops,
    kept,
    state: 4 * parameters + 8 * trained,
  };
}

/** The published row that this is, or undefined. */
export const rowOf = (choice, rows) =>
  rows.find((row) =>
    ["backbone", "dcn", "neck", "channels", "size", "schedule"].every((key) => row[key] === choice[key]),
  );

/** The training of a choice: one pass of all GPUs is a step. */
export const planOf = (choice, what) =>
  makePlan(
    what.schedules[choice.schedule],
    choice.gpus,
    choice.images_per_gpu,
    choice.gpus * choice.images_per_gpu,
    what.images,
    choice.speed,
  );

const million = (n) => `${number(n / 1e6, 1)} M`;
const giga = (n) => number(n / 1e9, 0);

/** What was published about it, in words. */
export function published(choice, row) {
  if (!row) return "No AP was published for this one.";
  const batch = choice.gpus * choice.images_per_gpu;
  const as = batch === 16 ? "" : ", with 16 images a step";
  return `The authors' ${row.name}: ${number(row.ap, 1)} AP on val2017, ${number(row.test, 1)} on test-dev${as}.`;
}

/** The choice and all that follows, in words. */
export function words(choice, what) {
  const sums = calculate(choice, what);
  const plan = planOf(choice, what);
  const [width, height] = what.sizes.find(([, short]) => short === choice.size);
  const batch = choice.gpus * choice.images_per_gpu;
  return (
    `${million(sums.parameters)} parameters and ${giga(sums.flops)} GFLOP for an image of ${width} × ${height}; ` +
    `at least ${number((sums.kept + sums.state) / 1e9, 1)} GB on each GPU while training. ` +
    `${count(choice.gpus, "GPU")} × ${count(choice.images_per_gpu, "image")} = ${batch} a step, ` +
    `learning rate ${rateText(plan.rate)}; ${number(plan.all, 0)} steps take ${timeText(plan.hours)}. ` +
    published(choice, rowOf(choice, what.rows))
  );
}

const KEYS = ["backbone", "dcn", "neck", "channels", "size", "schedule", "gpus", "images_per_gpu", "speed"];
const TABLES = ["counts", "rows", "schedules", "depths", "sizes", "images"];
const NAMES = { fpn: "FPN, towers of 3", pafpn: "PAFPN, towers of 4" };

/** Parameters and FLOPs, part by part. */
function table(model, state, stops) {
  const body = html("tbody");
  const heads = ["part", "parameters", "GFLOP"].map((text) => html("th", { scope: "col" }, text));
  const art = html("table", {}, html("thead", {}, html("tr", {}, ...heads)), body);
  const draw = () => {
    const rows = calculate(...state()).parts.map(({ name, parameters, flops }) => {
      const head = html("th", { scope: "row" }, name);
      return html("tr", {}, head, html("td", {}, number(parameters, 0)), html("td", {}, giga(flops)));
    });
    body.replaceChildren(...rows);
  };
  stops.push(follow(model, KEYS, draw));
  return html("div", {}, html("b", {}, "What it weighs and computes"), art);
}

const [WIDE, HIGH, LEFT] = [400, 240, 40];

/** AP of the published ones over their FLOPs, and where this one stands. */
function ladder(model, state, stops) {
  const art = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img" });
  const log = Math.log10;
  const { group, X, Y } = plot({
    width: WIDE,
    height: HIGH,
    left: LEFT,
    x: {
      range: [log(60), log(5000)],
      ticks: [100, 300, 1000, 3000].map(log),
      show: (v) => number(10 ** v, 0),
      label: "GFLOP for one image",
    },
    y: { range: [40, 56], ticks: [40, 44, 48, 52, 56] },
  });
  const [, what] = state();
  const at = (row) => [X(log(calculate({ ...row, images_per_gpu: 1 }, what).flops / 1e9)), Y(row.ap)];
  const dots = what.rows.map((row) => {
    const [cx, cy] = at(row);
    const look = { fill: "var(--ve-ground)", stroke: "var(--ve-blue)", "stroke-width": 2 };
    return svg("circle", { cx, cy, r: 4, ...look }, svg("title", {}, `${row.name}: ${row.ap} AP`));
  });
  const needle = svg("line", {
    y1: Y(40),
    y2: Y(56),
    stroke: "var(--ve-orange)",
    "stroke-width": 2,
    "stroke-dasharray": "4 3",
  });
  const here = svg("circle", { r: 7, fill: "var(--ve-orange)", stroke: "var(--ve-ground)", "stroke-width": 2 });
  art.append(group, ...dots, needle, here);
  const draw = () => {
    const [choice] = state();
    const { flops } = calculate(choice, what);
    const x = clamp(X(log(flops / 1e9)), LEFT, WIDE - 10);
    const row = rowOf(choice, what.rows);
    set(needle, { x1: x, x2: x });
    set(here, { cx: x, cy: row ? Y(row.ap) : 0, visibility: row ? "visible" : "hidden" });
    set(art, {
      "aria-label": `${what.rows.length} published systems; this one: ${giga(flops)} GFLOP, ${row ? `${row.ap} AP` : "not published"}`,
    });
  };
  stops.push(follow(model, KEYS, draw));
  return html("div", {}, html("b", {}, "The authors' AP"), " on val2017, over FLOPs; dashed: yours", art);
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Recipe calculator");
  const what = Object.fromEntries(TABLES.map((key) => [key, model.get(key)]));
  const state = () => [Object.fromEntries(KEYS.map((key) => [key, model.get(key)])), what];
  const options = (values, show = String) => values.map((value) => [value, show(value)]);
  const whole = (v) => number(v, 0);
  const sizes = what.sizes.map(([width, height]) => [height, `${width} × ${height}`]);
  const choices = html(
    "div",
    { style: "display:grid;gap:2px;margin:0 0 8px" },
    choice(model, "backbone", { label: "backbone", options: options(Object.keys(what.counts.backbones)), stops }),
    choice(model, "dcn", { label: "DCNv2", options: options([false, true], (v) => (v ? "yes" : "no")), stops }),
    choice(model, "neck", {
      label: "neck and head",
      options: options(Object.keys(what.depths), (v) => NAMES[v]),
      stops,
    }),
    choice(model, "size", { label: "image", options: sizes, stops }),
    choice(model, "schedule", { label: "epochs", options: options(Object.keys(what.schedules)), stops }),
  );
  const controls = html(
    "div",
    { class: "ve-controls" },
    slider(model, "channels", { label: "channels", min: 128, max: 512, step: 32, show: whole, stops }),
    slider(model, "gpus", { label: "GPUs", min: 1, max: 64, step: 1, show: whole, stops }),
    slider(model, "images_per_gpu", { label: "images per GPU", min: 1, max: 16, step: 1, show: whole, stops }),
    slider(model, "speed", { label: "images/s per GPU", min: 1, max: 100, step: 1, show: whole, stops }),
  );
  root.append(
    choices,
    controls,
    html("div", { class: "ve-row" }, table(model, state, stops), ladder(model, state, stops)),
    says,
  );
  stops.push(follow(model, KEYS, () => (says.textContent = words(...state()))));
  return () => stops.forEach((stop) => stop());
}

export default { render };
