// Chapter 18: what a training run will do. The arithmetic is that of training/schedule.py, training/averaging.py and
// data/loader.py; `recipe` is one entry of the trait `recipes`.

/** [images per process and pass, passes per step], or null where the batch does not divide. */
export function batchShape(imagesPerGpu, batchSize, world) {
  const perGpu = Math.max(Math.min(imagesPerGpu, Math.floor(batchSize / world)), 1);
  const passes = Math.floor(batchSize / (perGpu * world));
  return batchSize % (perGpu * world) || !passes ? null : [perGpu, passes];
}

/** Steps of an epoch: images fill up whole batches, batches whole steps. */
export const stepsPerEpoch = (images, perGpu, world, passes) => Math.ceil(Math.ceil(images / perGpu) / (world * passes));

export const warmupSteps = (recipe, total) => Math.min(recipe.warmup_steps, Math.floor(total / 5));

/** The rate of one step; `base`: the rate for the batch at hand; `epoch`: epochs done; `total`: steps of the run. */
export function learningRate(recipe, base, step, epoch, total) {
  let rate = recipe.schedule === "cosine"
    ? base * 0.5 * (1 + Math.cos(Math.PI * Math.min(step / total, 1)))
    : base * 0.1 ** recipe.drop_at.filter((e) => epoch >= e).length;
  const warmup = warmupSteps(recipe, total);
  if (step < warmup) rate *= 1 - (1 - step / warmup) * (1 - recipe.warmup_start);
  return rate;
}

/** The rate at a fraction of an epoch of weight averaging. */
export const swaRate = (recipe, scale, fraction) =>
  scale * (recipe.swa_lr_end + 0.5 * (recipe.swa_lr - recipe.swa_lr_end) * (1 + Math.cos(Math.PI * fraction)));

/** All that follows from a choice; `perGpu` is 0 where the batch does not divide. */
export function makePlan(recipe, gpus, imagesPerGpu, batchSize, images, speed) {
  const shape = batchShape(imagesPerGpu, batchSize, gpus);
  if (!shape) return { perGpu: 0, passes: 0, multiple: gpus * Math.max(Math.min(imagesPerGpu, Math.floor(batchSize / gpus)), 1) };
  const [perGpu, passes] = shape, scale = batchSize / recipe.lr_batch;
  const steps = stepsPerEpoch(images, perGpu, gpus, passes), epochs = recipe.epochs + recipe.swa_epochs;
  const total = steps * recipe.epochs, all = steps * epochs;
  return { perGpu, passes, scale, steps, epochs, total, all, rate: recipe.lr * scale, warmup: warmupSteps(recipe, total),
    hours: (all * batchSize) / (speed * gpus) / 3600 };
}

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
  const start = gpus === 1 ? "python"
    : count === 1 ? `torchrun --nproc-per-node ${each}`
    : `torchrun --nnodes ${count} --nproc-per-node ${each} --rdzv-backend c10d --rdzv-id coco --rdzv-endpoint FIRST_MACHINE:29500`;
  const options = [
    imagesPerGpu === recipe.images_per_gpu ? "" : ` --data.images-per-gpu ${imagesPerGpu}`,
    batchSize === recipe.batch_size ? "" : ` --data.batch-size ${batchSize}`,
  ];
  return `${start} -m vfnet_edu.train ${recipe.name} --data coco/${options.join("")}`;
}

const count = (n, one) => `${number(n, 0)} ${one}${n === 1 ? "" : "s"}`;
const rateText = (rate) => String(rate.toPrecision(3));
const timeText = (hours) => hours < 1 ? `${number(hours * 60, 0)} minutes` : hours < 72 ? `${number(hours, 1)} hours` : `${number(hours / 24, 1)} days`;

/** The plan in words. */
export function words(recipe, plan, gpus, batchSize, speed, step) {
  if (!plan.perGpu) return `A batch of ${count(batchSize, "image")} does not divide into ${count(gpus, "GPU")} × ${count(plan.multiple / gpus, "image")}: training would refuse to start. Set the images per step to a multiple of ${plan.multiple}.`;
  const passes = plan.passes === 1 ? "" : ` × ${plan.passes} passes`;
  return `${count(gpus, "GPU")} × ${count(plan.perGpu, "image")}${passes} = ${count(batchSize, "image")} a step, learning rate ${rateText(plan.rate)}; ` +
    `${count(plan.steps, "step")} an epoch, ${number(plan.all, 0)} in all; at ${number(speed, speed < 10 ? 1 : 0)} images/s per GPU that takes ${timeText(plan.hours)}. ` +
    `At the cursor ${count(step, "step")} are done, in epoch ${Math.floor(step / plan.steps) + 1} of ${plan.epochs}: the rate is ${rateText(rateAt(recipe, plan, step))}.`;
}

/** A whole number to type in. Half typed or out of range it is not taken. */
function typed(model, key, { label, min, max, stops }) {
  const input = html("input", { type: "number", min, max, step: 1, "aria-label": label });
  const show = () => (input.value = model.get(key));
  input.addEventListener("input", () => {
    const value = Number(input.value);
    if (input.value !== "" && Number.isInteger(value) && value >= min && value <= max) write(model, key, value);
  });
  input.addEventListener("blur", show);
  stops.push(follow(model, [key], () => Number(input.value) !== model.get(key) && show())); // what is being typed stays as it is
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
  return html("div", { class: "ve-control", style: "flex:2 1 250px;max-width:none" }, html("span", {}, "recipe"), select);
}

/** Two ways to set the batch: as published, or what all GPUs hold in one pass. */
function batchButtons(model, current, stops) {
  const asPublished = html("button", { type: "button" }), onePass = html("button", { type: "button" });
  asPublished.addEventListener("click", () => write(model, "batch_size", current().batch_size));
  onePass.addEventListener("click", () => write(model, "batch_size", model.get("gpus") * model.get("images_per_gpu")));
  stops.push(follow(model, ["recipe", "gpus", "images_per_gpu"], () => {
    asPublished.textContent = `${current().batch_size}, as published`;
    onePass.textContent = `one pass: ${model.get("gpus")} × ${model.get("images_per_gpu")} = ${model.get("gpus") * model.get("images_per_gpu")}`;
  }));
  const row = html("div", { style: "display:flex;flex-wrap:wrap;gap:6px" }, asPublished, onePass);
  return html("div", { class: "ve-control", style: "flex:2 1 290px;max-width:none" }, html("span", {}, "set images per step to"), row);
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
  return html("div", { style: "margin-top:10px" }, html("div", { style: "display:flex;gap:10px;align-items:center;justify-content:space-between" }, html("b", {}, "The command"), copy), text);
}

const WIDE = 400, HIGH = 220, LEFT = 56;
const line = (x1, y1, x2, y2, more = {}) => svg("line", { x1, y1, x2, y2, stroke: "var(--ve-soft)", ...more });
const decade = (t) => (10 ** t).toFixed(Math.max(0, -t));

/** The rate over the whole run, on a logarithmic axis; the cursor reads it. */
function wholeRun(model, state, stops) {
  const art = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "group", "aria-label": "learning rate over epochs" });
  const ground = svg("g"), cursor = svg("g");
  const rule = line(0, 10, 0, HIGH - 38, { stroke: "var(--ve-orange)", "stroke-width": 1.5, "stroke-dasharray": "4 3" });
  const knob = svg("circle", { r: 9, fill: "var(--ve-orange)", stroke: "var(--ve-ground)", "stroke-width": 2 });
  const move = (at) => write(model, "at", clamp(at, 0, 1));
  draggable(knob, art, {
    label: "cursor over the run",
    drag: (x) => move((x - LEFT) / (WIDE - LEFT - 10)),
    nudge: (dx, dy) => move(model.get("at") + 0.005 * (dx - dy)),
  });
  cursor.append(rule, knob);
  art.append(ground, cursor);
  stops.push(follow(model, KEYS, () => {
    const { recipe, plan, step } = state();
    set(art, { opacity: plan.perGpu ? 1 : 0.35 });
    set(knob, { visibility: plan.perGpu ? "visible" : "hidden", "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": model.get("at") });
    set(rule, { visibility: plan.perGpu ? "visible" : "hidden" });
    if (!plan.perGpu) return;
    const points = [];
    for (let e = 0; e < plan.epochs; e++) {
      const [first, last] = [e * plan.steps, (e + 1) * plan.steps - 1], inside = e >= recipe.epochs || recipe.schedule === "cosine" ? 12 : 1;
      for (let i = 0; i <= inside; i++) points.push(Math.round(first + ((last - first) * i) / inside));
    }
    for (let i = 0; i <= 20; i++) points.push(Math.min(Math.round((plan.warmup * i) / 20), plan.all - 1));
    const steps = [...new Set(points)].sort((a, b) => a - b), logs = steps.map((s) => Math.log10(rateAt(recipe, plan, s)));
    const [low, high] = [Math.min(...logs) - 0.15, Math.max(...logs) + 0.15];
    const every = plan.epochs <= 12 ? 2 : plan.epochs <= 24 ? 4 : 10;
    const ticks = [], epochs = [];
    for (let t = Math.ceil(low); t <= high; t++) ticks.push(t);
    for (let e = 0; e <= plan.epochs; e += every) epochs.push(e);
    const { group, X, Y } = plot({
      width: WIDE, height: HIGH, left: LEFT,
      x: { range: [0, plan.epochs], ticks: epochs, label: "epochs done" }, y: { range: [low, high + 0.2], ticks, show: decade },
    });
    const drops = recipe.schedule === "cosine" ? [] : recipe.drop_at;
    const marks = drops.flatMap((e, i) => [
      line(X(e), 10, X(e), Y(low), { "stroke-dasharray": "2 3" }),
      svg("text", { x: X(e) + (i ? 4 : -4), y: 20, "text-anchor": i ? "start" : "end" }, "÷10"),
    ]);
    if (recipe.swa_epochs) marks.push(svg("text", { x: X(plan.epochs), y: 20, "text-anchor": "end" }, "averaging"));
    const curve = svg("path", { d: path(steps.map((s, i) => [X(s / plan.steps), Y(logs[i])])), fill: "none", stroke: "var(--ve-blue)", "stroke-width": 2.5 });
    ground.replaceChildren(group, ...marks, curve);
    const rate = rateAt(recipe, plan, step), x = X(step / plan.steps), y = Y(Math.log10(rate));
    set(rule, { x1: x, x2: x });
    set(knob, { cx: x, cy: y, "aria-valuetext": `epoch ${number(step / plan.steps, 2)}, rate ${rateText(rate)}` });
  }));
  return html("div", {}, html("div", {}, html("b", {}, "Learning rate over the run"), ", log scale"), art);
}

/** The first steps, on a plain axis: too few to be seen in the whole run. */
function start(model, state, stops) {
  const art = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img" });
  stops.push(follow(model, KEYS, () => {
    const { recipe, plan } = state();
    set(art, { opacity: plan.perGpu ? 1 : 0.35 });
    if (!plan.perGpu) return;
    const end = Math.min(Math.max(Math.ceil(plan.warmup * 1.6), 10), plan.all), top = plan.rate * 1.15;
    const { group, X, Y } = plot({
      width: WIDE, height: HIGH, left: LEFT,
      x: { range: [0, end], ticks: [...new Set([0, plan.warmup, end])], label: "steps done", show: (v) => number(v, 0) },
      y: { range: [0, top], ticks: [plan.rate * recipe.warmup_start, plan.rate], show: (v) => String(Number(v.toPrecision(3))) },
    });
    const points = [];
    for (let i = 0; i <= 80; i++) points.push(Math.min(Math.round((end * i) / 80), plan.all - 1));
    points.push(plan.warmup);
    points.sort((a, b) => a - b);
    const curve = svg("path", { d: path(points.map((s) => [X(s), Y(rateAt(recipe, plan, s))])), fill: "none", stroke: "var(--ve-blue)", "stroke-width": 2.5 });
    art.replaceChildren(group, curve);
    set(art, { "aria-label": `The rate rises from ${rateText(plan.rate * recipe.warmup_start)} to ${rateText(plan.rate)} in ${plan.warmup} steps.` });
  }));
  return html("div", {}, html("div", {}, html("b", {}, "Its first steps"), ": the warm-up"), art);
}

const KEYS = ["recipe", "gpus", "images_per_gpu", "batch_size", "images", "speed", "at"];

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Training planner");
  const current = () => model.get("recipes").find((r) => r.name === model.get("recipe"));
  const state = () => {
    const recipe = current(), [gpus, each, batch, images, speed] = KEYS.slice(1, 6).map((key) => model.get(key));
    const plan = makePlan(recipe, gpus, each, batch, images, speed);
    return { recipe, plan, step: plan.perGpu ? Math.min(Math.round(model.get("at") * plan.all), plan.all - 1) : 0 };
  };
  const whole = (v) => number(v, 0);
  const controls = html(
    "div", { class: "ve-controls" },
    recipeChoice(model, stops),
    slider(model, "gpus", { label: "GPUs", min: 1, max: 64, step: 1, show: whole, stops }),
    slider(model, "images_per_gpu", { label: "images per GPU", min: 1, max: 16, step: 1, show: whole, stops }),
    typed(model, "batch_size", { label: "images per step", min: 1, max: 1024, stops }),
    batchButtons(model, current, stops),
    slider(model, "speed", { label: "images/s per GPU, measured", min: 1, max: 100, step: 1, show: whole, stops }),
    typed(model, "images", { label: "training images", min: 1, max: 10000000, stops }),
  );
  const text = html("pre", { class: "ve-command", tabindex: 0, role: "textbox", "aria-readonly": "true", "aria-label": "command line" });
  root.append(controls, html("div", { class: "ve-row" }, wholeRun(model, state, stops), start(model, state, stops)), says, commandLine(text));
  stops.push(follow(model, KEYS, () => {
    const { recipe, plan, step } = state();
    const [gpus, each, batch, , speed] = KEYS.slice(1, 6).map((key) => model.get(key));
    says.textContent = words(recipe, plan, gpus, batch, speed, step);
    const order = plan.perGpu ? command(recipe, gpus, each, batch) : "This would not start.";
    const piece = (word) => html("span", { style: "display: inline-block" }, word); // no line may end inside "--data"
    text.replaceChildren(...order.split(" ").flatMap((word, i) => (i ? [" ", piece(word)] : [piece(word)])));
  }));
  return () => stops.forEach((stop) => stop());
}

export default { render };
