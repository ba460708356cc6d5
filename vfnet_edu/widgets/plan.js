// What a training run of chapters 17 and 18 will do: the arithmetic of training/schedule.py, training/averaging.py and
// data/loader.py. `recipe` is one entry of the trait `recipes` of planner.py, or says the same about a schedule.

/** [images per process and pass, passes per step], or null where the batch does not divide. */
export function batchShape(imagesPerGpu, batchSize, world) {
  const perGpu = Math.max(Math.min(imagesPerGpu, Math.floor(batchSize / world)), 1);
  const passes = Math.floor(batchSize / (perGpu * world));
  return batchSize % (perGpu * world) || !passes ? null : [perGpu, passes];
}

/** Steps of an epoch: images fill up whole batches, batches whole steps. */
export const stepsPerEpoch = (images, perGpu, world, passes) =>
  Math.ceil(Math.ceil(images / perGpu) / (world * passes));

export const warmupSteps = (recipe, total) => Math.min(recipe.warmup_steps, Math.floor(total / 5));

/** The rate of one step; `base`: the rate for the batch at hand; `epoch`: epochs done; `total`: steps of the run. */
export function learningRate(recipe, base, step, epoch, total) {
  const done = Math.min(step / total, 1);
  let rate = base;
  if (recipe.schedule === "cosine") rate *= 0.5 * (1 + Math.cos(Math.PI * done));
  else if (recipe.schedule === "linear") rate *= 1 - done;
  else rate *= 0.1 ** recipe.drop_at.filter((e) => epoch >= e).length;
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
  if (!shape) {
    const share = Math.max(Math.min(imagesPerGpu, Math.floor(batchSize / gpus)), 1);
    return { perGpu: 0, passes: 0, multiple: gpus * share };
  }
  const [perGpu, passes] = shape;
  const scale = batchSize / recipe.lr_batch;
  const steps = stepsPerEpoch(images, perGpu, gpus, passes);
  const epochs = recipe.epochs + recipe.swa_epochs;
  const total = steps * recipe.epochs;
  const all = steps * epochs;
  return {
    perGpu,
    passes,
    scale,
    steps,
    epochs,
    total,
    all,
    rate: recipe.lr * scale,
    warmup: warmupSteps(recipe, total),
    hours: (all * batchSize) / (speed * gpus) / 3600,
  };
}

/** 1 -> "1 step", 2000 -> "2,000 steps" */
export const count = (n, one) => `${number(n, 0)} ${one}${n === 1 ? "" : "s"}`;
export const rateText = (rate) => String(rate.toPrecision(3));
/** Hours in the unit that people say. */
export const timeText = (hours) => {
  if (hours < 1) return `${number(hours * 60, 0)} minutes`;
  return hours < 72 ? `${number(hours, 1)} hours` : `${number(hours / 24, 1)} days`;
};
