// Average precision of a ranked list: the arithmetic of vfnet_edu/evaluation/average_precision.py.

/** What each place of the list holds: "right", "taken" (its object was found further up) or "wrong". */
export function verdicts(entries, order, threshold) {
  const taken = new Set();
  return order.map((n) => {
    const { scene, ious } = entries[n];
    let best = -1; // of the objects that are still free
    ious.forEach((v, g) => {
      if (v >= threshold && !taken.has(`${scene} ${g}`) && (best < 0 || v >= ious[best])) best = g;
    });
    if (best >= 0) taken.add(`${scene} ${best}`);
    else return ious.some((v) => v >= threshold) ? "taken" : "wrong";
    return "right";
  });
}

/** Precision and recall at each place, the best precision from there on, and AP: the mean of that at 101 recalls. */
export function curve(hits, objects) {
  let found = 0;
  const precision = [];
  const recall = [];
  hits.forEach((hit, i) => {
    found += hit ? 1 : 0;
    precision.push(found / (i + 1));
    recall.push(found / objects);
  });
  const best = [...precision];
  for (let i = best.length - 2; i >= 0; i--) best[i] = Math.max(best[i], best[i + 1]);
  let sum = 0;
  for (let k = 0; k <= 100; k++) {
    const place = recall.findIndex((r) => r >= k * 0.01);
    sum += place < 0 ? 0 : best[place];
  }
  return { precision, recall, best, ap: sum / 101 };
}
