// Chapter 18: what a training run will do, by the arithmetic of plan.js, and the command that starts it. `recipe` is one
// entry of the trait `recipes`.

/** The rate of a step of the whole run, averaging included. */
export function rateAt(recipe, plan, step) {
  const epoch = Math.floor(step / plan.steps);
  if (epoch >= recipe.epochs) return swaRate(recipe, plan.scale, (step % plan.steps) / plan.steps);
  return learningRate(recipe, plan.rate, step, epoch, plan.total);
}

/** Machines of at most eight GPUs, all with the same number: [machines, GPUs of each]. */
export function machines(gpus) {
  let count = Math.ceil(gpus / 8);
  while (gpus % count) count++;
  return [count, gpus / count];
}

/** What to type, on every machine. */
export function command(recipe, gpus, imagesPerGpu, batchSize) {
  const [count, each] = machines(gpus);
  const meeting = "--rdzv-backend c10d --rdzv-id coco --rdzv-endpoint FIRST_MACHINE:29500";
  let start = `torchrun --nnodes ${count} --nproc-per-node ${each} ${meeting}`;
  if (count === 1) start = `torchrun --nproc-per-node ${each}`;
  if (gpus === 1) start = "python";
  const options = [
    imagesPerGpu === recipe.images_per_gpu ? "" : ` --data.images-per-gpu ${imagesPerGpu}`,
    batchSize === recipe.batch_size ? "" : ` --data.batch-size ${batchSize}`,
  ];
  return `${start} -m vfnet_edu.train ${recipe.name} --data coco/${options.join("")}`;
}

/** The plan in words. */
export function words(recipe, plan, gpus, batchSize, speed, step) {
  const batch = count(batchSize, "image");
  if (!plan.perGpu) {
    const share = count(plan.multiple / gpus, "image");
    return (
      `A batch of ${batch} does not divide into ${count(gpus, "GPU")} × ${share}: training would refuse to start. ` +
      `Set the images per step to a multiple of ${plan.multiple}.`
    );
  }
  const passes = plan.passes === 1 ? "" : ` × ${plan.passes} passes`;
  const each = `${number(speed, speed < 10 ? 1 : 0)} images/s per GPU`;
  const epoch = Math.floor(step / plan.steps) + 1;
  return (
    `${count(gpus, "GPU")} × ${count(plan.perGpu, "image")}${passes} = ${batch} a step, ` +
    `learning rate ${rateText(plan.rate)}; ${count(plan.steps, "step")} an epoch, ${number(plan.all, 0)} in all; ` +
    `at ${each} that takes ${timeText(plan.hours)}. ` +
    `At the cursor ${count(step, "step")} are done, in epoch ${epoch} of ${plan.epochs}: ` +
    `the rate is ${rateText(rateAt(recipe, plan, step))}.`
  );
}

/** A whole number to type in. Half typed or out of range, it is ignored. */
function typed(model, key, { label, min, max, stops }) {
  const input = html("input", { type: "number", min, max, step: 1, "aria-label": label });
  const show = () => (input.value = model.get(key));
  input.addEventListener("input", () => {
    const value = Number(input.value);
    if (input.value !== "" && Number.isInteger(value) && value >= min && value <= max) write(model, key, value);
  });
  input.addEventListener("blur", show);
  const draw = () => Number(input.value) !== model.get(key) && show(); // what is being typed stays as it is
  stops.push(follow(model, [key], draw));
  return html("div", { class: "ve-control" }, html("span", {}, label), input);
}

function recipeChoice(model, stops) {
  const select = html("select", { "aria-label": "recipe" });
  for (const r of model.get("recipes")) select.append(html("option", { value: r.name }, `${r.name}: ${r.ap} AP`));
  select.addEventListener("change", () => {
    const chosen = model.get("recipes").find((r) => r.name === select.value);
    model.set("images_per_gpu", chosen.images_per_gpu);
    model.set("batch_size", chosen.batch_size);
    write(model, "recipe", chosen.name);
  });
  stops.push(follow(model, ["recipe"], () => (select.value = model.get("recipe"))));
  const style = "flex:2 1 250px;max-width:none";
  return html("div", { class: "ve-control", style }, html("span", {}, "recipe"), select);
}

/** Two ways to set the batch: as published, or what all GPUs hold in one pass. */
function batchButtons(model, current, stops) {
  const asPublished = html("button", { type: "button" });
  const onePass = html("button", { type: "button" });
  asPublished.addEventListener("click", () => write(model, "batch_size", current().batch_size));
  onePass.addEventListener("click", () => write(model, "batch_size", model.get("gpus") * model.get("images_per_gpu")));
  const draw = () => {
    const [gpus, each] = [model.get("gpus"), model.get("images_per_gpu")];
    asPublished.textContent = `${current().batch_size}, as published`;
    onePass.textContent = `one pass: ${gpus} × ${each} = ${gpus * each}`;
  };
  stops.push(follow(model, ["recipe", "gpus", "images_per_gpu"], draw));
  const row = html("div", { style: "display:flex;flex-wrap:wrap;gap:6px" }, asPublished, onePass);
  const style = "flex:2 1 290px;max-width:none";
  return html("div", { class: "ve-control", style }, html("span", {}, "set images per step to"), row);
}

function commandLine(text) {
  const copy = html("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    getSelection().selectAllChildren(text); // where the clipboard is out of reach, Ctrl+C is one key away
    try {
      await navigator.clipboard.writeText(text.textContent);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Selected: press Ctrl+C";
    }
  });
  const style = "display:flex;gap:10px;align-items:center;justify-content:space-between";
  const heading = html("div", { style }, html("b", {}, "The command"), copy);
  return html("div", { style: "margin-top:10px" }, heading, text);
}

const KEYS = ["recipe", "gpus", "images_per_gpu", "batch_size", "images", "speed", "at"];
const WIDE = 400;
const HIGH = 220;
const LEFT = 56;
const line = (x1, y1, x2, y2, more = {}) => svg("line", { x1, y1, x2, y2, stroke: "var(--ve-soft)", ...more });
const decade = (t) => (10 ** t).toFixed(Math.max(0, -t));

/** Steps at which the rate of the whole run is drawn: straight pieces by their ends, curved ones by twelve parts. */
function stepsToDraw(recipe, plan) {
  const steps = [];
  for (let e = 0; e < plan.epochs; e++) {
    const [first, last] = [e * plan.steps, (e + 1) * plan.steps - 1];
    const parts = e >= recipe.epochs || recipe.schedule !== "step" ? 12 : 1;
    for (let i = 0; i <= parts; i++) steps.push(Math.round(first + ((last - first) * i) / parts));
  }
  for (let i = 0; i <= 20; i++) steps.push(Math.min(Math.round((plan.warmup * i) / 20), plan.all - 1));
  return [...new Set(steps)].sort((a, b) => a - b);
}

/** Axes and curve of the whole run, and the scales X and Y. */
function rateOverRun(recipe, plan) {
  const steps = stepsToDraw(recipe, plan);
  const logs = steps.map((s) => Math.log10(rateAt(recipe, plan, s)));
  const [low, high] = [Math.min(...logs) - 0.15, Math.max(...logs) + 0.15];
  const every = plan.epochs <= 12 ? 2 : plan.epochs <= 24 ? 4 : 10;
  const decades = [];
  const epochs = [];
  for (let t = Math.ceil(low); t <= high; t++) decades.push(t);
  for (let e = 0; e <= plan.epochs; e += every) epochs.push(e);
  const { group, X, Y } = plot({
    width: WIDE,
    height: HIGH,
    left: LEFT,
    x: { range: [0, plan.epochs], ticks: epochs, label: "epochs done" },
    y: { range: [low, high + 0.2], ticks: decades, show: decade },
  });
  const drops = recipe.schedule === "step" ? recipe.drop_at : [];
  const marks = drops.flatMap((e, i) => [
    line(X(e), 10, X(e), Y(low), { "stroke-dasharray": "2 3" }),
    svg("text", { x: X(e) + (i ? 4 : -4), y: 20, "text-anchor": i ? "start" : "end" }, "÷10"),
  ]);
  if (recipe.swa_epochs) marks.push(svg("text", { x: X(plan.epochs), y: 20, "text-anchor": "end" }, "averaging"));
  const points = steps.map((s, i) => [X(s / plan.steps), Y(logs[i])]);
  return { drawn: [group, ...marks, curve(points)], X, Y };
}

const curve = (points) => svg("path", { d: path(points), fill: "none", stroke: "var(--ve-blue)", "stroke-width": 2.5 });

/** The rate over the whole run, on a logarithmic axis; the cursor reads it. */
function wholeRun(model, state, stops) {
  const art = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "group", "aria-label": "learning rate over epochs" });
  const ground = svg("g");
  const ink = { stroke: "var(--ve-orange)", "stroke-width": 1.5, "stroke-dasharray": "4 3" };
  const rule = line(0, 10, 0, HIGH - 38, ink);
  const knob = svg("circle", { r: 9, fill: "var(--ve-orange)", stroke: "var(--ve-ground)", "stroke-width": 2 });
  const move = (at) => write(model, "at", clamp(at, 0, 1));
  draggable(knob, art, {
    label: "cursor over the run",
    drag: (x) => move((x - LEFT) / (WIDE - LEFT - 10)),
    nudge: (dx, dy) => move(model.get("at") + 0.005 * (dx - dy)),
  });
  set(knob, { "aria-valuemin": 0, "aria-valuemax": 1 });
  art.append(ground, svg("g", {}, rule, knob));

  const draw = () => {
    const { recipe, plan, step } = state();
    const visibility = plan.perGpu ? "visible" : "hidden";
    set(art, { opacity: plan.perGpu ? 1 : 0.35 });
    set(knob, { visibility, "aria-valuenow": model.get("at") });
    set(rule, { visibility });
    if (!plan.perGpu) return;
    const { drawn, X, Y } = rateOverRun(recipe, plan);
    ground.replaceChildren(...drawn);
    const rate = rateAt(recipe, plan, step);
    const [x, y] = [X(step / plan.steps), Y(Math.log10(rate))];
    const text = `epoch ${number(step / plan.steps, 2)}, rate ${rateText(rate)}`;
    set(rule, { x1: x, x2: x });
    set(knob, { cx: x, cy: y, "aria-valuetext": text });
  };
  stops.push(follow(model, KEYS, draw));
  return html("div", {}, html("div", {}, html("b", {}, "Learning rate over the run"), ", log scale"), art);
}

/** The first steps, on a plain axis: too few to be seen in the whole run. */
function start(model, state, stops) {
  const art = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img" });
  const draw = () => {
    const { recipe, plan } = state();
    set(art, { opacity: plan.perGpu ? 1 : 0.35 });
    if (!plan.perGpu) return;
    const end = Math.min(Math.max(Math.ceil(plan.warmup * 1.6), 10), plan.all);
    const first = plan.rate * recipe.warmup_start;
    const ticks = [...new Set([0, plan.warmup, end])];
    const { group, X, Y } = plot({
      width: WIDE,
      height: HIGH,
      left: LEFT,
      x: { range: [0, end], ticks, label: "steps done", show: (v) => number(v, 0) },
      y: { range: [0, plan.rate * 1.15], ticks: [first, plan.rate], show: (v) => String(Number(v.toPrecision(3))) },
    });
    const steps = [plan.warmup];
    for (let i = 0; i <= 80; i++) steps.push(Math.min(Math.round((end * i) / 80), plan.all - 1));
    steps.sort((a, b) => a - b);
    art.replaceChildren(group, curve(steps.map((s) => [X(s), Y(rateAt(recipe, plan, s))])));
    const rise = `from ${rateText(first)} to ${rateText(plan.rate)} in ${plan.warmup} steps`;
    set(art, { "aria-label": `The rate rises ${rise}.` });
  };
  stops.push(follow(model, KEYS, draw));
  return html("div", {}, html("div", {}, html("b", {}, "Its first steps"), ": the warm-up"), art);
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Training planner");
  const current = () => model.get("recipes").find((r) => r.name === model.get("recipe"));
  const state = () => {
    const recipe = current();
    const [gpus, each, batch, images, speed] = KEYS.slice(1, 6).map((key) => model.get(key));
    const plan = makePlan(recipe, gpus, each, batch, images, speed);
    const step = plan.perGpu ? Math.min(Math.round(model.get("at") * plan.all), plan.all - 1) : 0;
    return { recipe, plan, step };
  };
  const whole = (v) => number(v, 0);
  const controls = html(
    "div",
    { class: "ve-controls" },
    recipeChoice(model, stops),
    slider(model, "gpus", { label: "GPUs", min: 1, max: 64, step: 1, show: whole, stops }),
    slider(model, "images_per_gpu", { label: "images per GPU", min: 1, max: 16, step: 1, show: whole, stops }),
    typed(model, "batch_size", { label: "images per step", min: 1, max: 1024, stops }),
    batchButtons(model, current, stops),
    slider(model, "speed", { label: "images/s per GPU, measured", min: 1, max: 100, step: 1, show: whole, stops }),
    typed(model, "images", { label: "training images", min: 1, max: 10000000, stops }),
  );
  const text = html("pre", {
    class: "ve-command",
    tabindex: 0,
    role: "textbox",
    "aria-readonly": "true",
    "aria-label": "command line",
  });
  const plots = html("div", { class: "ve-row" }, wholeRun(model, state, stops), start(model, state, stops));
  root.append(controls, plots, says, commandLine(text));
  const draw = () => {
    const { recipe, plan, step } = state();
    const [gpus, each, batch, , speed] = KEYS.slice(1, 6).map((key) => model.get(key));
    says.textContent = words(recipe, plan, gpus, batch, speed, step);
    const order = plan.perGpu ? command(recipe, gpus, each, batch) : "This would not start.";
    const piece = (word) => html("span", { style: "display: inline-block" }, word); // no line may end inside "--data"
    text.replaceChildren(...order.split(" ").flatMap((word, i) => (i ? [" ", piece(word)] : [piece(word)])));
  };
  stops.push(follow(model, KEYS, draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
