// Chapter 10: four losses teach a linear scorer in the page, on the same frozen features, step by step side by side.
// The arithmetic is that of vfnet_edu/evaluation/linear.py and vfnet_edu/losses.py; p is a score, z its logit.

const DIMS = 64;
const LIMIT = 4; // the byte 127 stands for 4 standard deviations
const PRIOR = 0.1; // every score starts here: at step 0 nothing is ranked
const RATE = 1;

const softplus = (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))); // log(1 + e^z)
const sigmoid = (z) => 1 / (1 + Math.exp(-z));
const background = (z, p) => 0.75 * p * p * (p + 2 * (1 - p) * softplus(z)); // the same in FL and in both VFLs

/** dL/dz of one score whose target is q; q > 0 is a positive, q = 0 background. */
export const GRADIENTS = {
  FL: (z, p, q) => (q > 0 ? 0.25 * (1 - p) ** 2 * (-2 * p * softplus(-z) - (1 - p)) : background(z, p)),
  "VFL 0/1": (z, p, q) => (q > 0 ? p - 1 : background(z, p)),
  QFL: (z, p, q) => (p - q) * (2 * p * (1 - p) * (softplus(z) - q * z) + (p - q) ** 2),
  VFL: (z, p, q) => (q > 0 ? q * (p - q) : background(z, p)),
};

/** 64 weights and a bias, taught by gradient descent on all lessons at once. lessons: {x, q, weight}. */
export class Scorer {
  constructor(lessons, loss) {
    this.lessons = lessons;
    this.push = GRADIENTS[loss];
    this.positives = lessons.q.reduce((n, q) => n + (q > 0), 0);
    this.w = new Float64Array(DIMS + 1);
    this.w[DIMS] = Math.log(PRIOR / (1 - PRIOR));
  }

  logit(x, start) {
    let z = this.w[DIMS];
    for (let d = 0; d < DIMS; d++) z += this.w[d] * x[start + d];
    return z;
  }

  /** The logits of all cells of x: they rank as the scores do. */
  rank(x) {
    return Float64Array.from({ length: x.length / DIMS }, (_, n) => this.logit(x, n * DIMS));
  }

  step() {
    const { x, q, weight } = this.lessons;
    const gradient = new Float64Array(DIMS + 1);
    for (let n = 0, start = 0; n < q.length; n++, start += DIMS) {
      const z = this.logit(x, start);
      const g = (this.push(z, sigmoid(z), q[n]) * weight[n]) / this.positives;
      for (let d = 0; d < DIMS; d++) gradient[d] += g * x[start + d];
      gradient[DIMS] += g;
    }
    for (let d = 0; d <= DIMS; d++) this.w[d] -= RATE * gradient[d];
  }
}

/** Rank of each value from 0; equal values share their mean rank. */
export function ranks(values) {
  const order = Uint32Array.from(values, (_, n) => n).sort((a, b) => values[a] - values[b]);
  const rank = new Float64Array(values.length);
  let next = 0;
  for (let first = 0; first < order.length; first = next) {
    next = first + 1;
    while (next < order.length && values[order[next]] === values[order[first]]) next++;
    for (let i = first; i < next; i++) rank[order[i]] = (first + next - 1) / 2;
  }
  return rank;
}

/** Spearman's rank correlation, in [-1, 1]; NaN where one side is constant, as all scores are at step 0. */
export function spearman(x, y) {
  const a = ranks(x);
  const b = ranks(y);
  const middle = (a.length - 1) / 2;
  let ab = 0;
  let aa = 0;
  let bb = 0;
  for (let n = 0; n < a.length; n++) {
    ab += (a[n] - middle) * (b[n] - middle);
    aa += (a[n] - middle) ** 2;
    bb += (b[n] - middle) ** 2;
  }
  return aa && bb ? ab / Math.sqrt(aa * bb) : Number.NaN;
}

/** The bytes of the page -> lessons {x, q, weight} and exam {x, q}; x of cell n starts at 64 n, in deviations. */
export function unpack(view, [lessons, exams]) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice(); // aligned
  let at = 0;
  const take = (Kind, count) => {
    const part = new Kind(bytes.buffer, at, count);
    at += part.byteLength;
    return part;
  };
  const real = (count) => Float64Array.from(take(Int8Array, DIMS * count), (v) => (v * LIMIT) / 127);
  const x = real(lessons);
  const seen = real(exams);
  const floats = [lessons, lessons, exams].map((count) => take(Float32Array, count));
  return { lessons: { x, q: floats[0], weight: floats[1] }, exam: { x: seen, q: floats[2] } };
}

/** One scorer for each loss, taught in step; marks[i] holds the rank correlation on the exam after steps 1, 2, ... */
export class Class {
  constructor({ lessons, exam }) {
    this.exam = exam;
    this.pupils = NAMES.map((name) => new Scorer(lessons, name));
    this.marks = NAMES.map(() => []);
  }

  get taught() {
    return this.marks[0].length;
  }

  teach() {
    this.pupils.forEach((pupil, i) => {
      pupil.step();
      this.marks[i].push(spearman(pupil.rank(this.exam.x), this.exam.q));
    });
  }

  /** The four marks after `step` steps, undefined where it has not been taught or nothing is ranked. */
  at(step) {
    return this.marks.map((line) => line[step - 1]);
  }
}

const NAMES = Object.keys(GRADIENTS);
const ASKED = { FL: "1", "VFL 0/1": "1", QFL: "q", VFL: "q" };

/** What the marks at a step say, in one sentence. */
export function words(step, taught, marks) {
  if (step === 0) return "Step 0: every score is 0.10. No box is ranked yet. Press Teach.";
  if (step > taught) return `The four are being taught, up to step ${step}.`;
  const [fl, plain, qfl, vfl] = marks;
  const asked = [
    `asked for 1, FL ranks with ${number(fl)} and VFL 0/1 with ${number(plain)}`,
    `asked for q, QFL with ${number(qfl)} and VFL with ${number(vfl)}`,
  ];
  const lead = Math.min(qfl, vfl) - Math.max(fl, plain);
  const verdict =
    lead > 0.005 ? `Both that are asked for q lead, by ${number(lead)} or more.` : "The two pairs do not part here.";
  return `Step ${step}: ${asked.join("; ")}. ${verdict}`;
}

/** The curves of rank correlation over steps, with a line and four dots at the step that is looked at. */
function curves(most) {
  const width = 350;
  const height = 260;
  const label = "Rank correlation on unseen boxes over steps, for four losses";
  const art = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const { group, X, Y } = plot({
    width,
    height,
    x: { range: [0, most], ticks: [0, 1, 2, 3].map((part) => (part * most) / 3), label: "steps" },
    y: { range: [0.1, 0.5], ticks: [0.1, 0.2, 0.3, 0.4, 0.5], label: "rank correlation" },
  });
  const needle = svg("line", { y1: Y(0.1), y2: Y(0.5), stroke: "currentColor", "stroke-dasharray": "3 3" });
  const lines = NAMES.map((name) => svg("path", { fill: "none", ...LOOK[name] }));
  const dots = NAMES.map((name) => svg("circle", { r: 4.5, fill: LOOK[name].stroke, stroke: "var(--ve-ground)" }));
  art.append(group, needle, ...lines, ...dots);
  const draw = (step, school) => {
    const marks = school.at(step);
    set(needle, { x1: X(step), x2: X(step) });
    NAMES.forEach((_, i) => {
      const points = school.marks[i].map((value, n) => [X(n + 1), Y(clamp(value, 0.1, 0.5))]);
      lines[i].setAttribute("d", path(points));
      const opacity = marks[i] === undefined ? 0 : 1;
      set(dots[i], { cx: X(step), cy: Y(clamp(marks[i] ?? 0.1, 0.1, 0.5)), opacity });
    });
  };
  return { draw, element: html("div", { style: "flex:2 1 300px;max-width:470px" }, art) };
}

/** Which line is which, what its positives are asked for, and its mark at this step. */
function legend() {
  const cells = NAMES.map(() => html("td"));
  const rows = NAMES.map((name, i) => {
    const sample = svg("svg", { width: 34, height: 10, "aria-hidden": "true", style: "display:inline-block" });
    sample.append(svg("line", { x1: 0, y1: 5, x2: 34, y2: 5, ...LOOK[name] }));
    const style = "text-align:left;white-space:nowrap;color:inherit";
    return html(
      "tr",
      {},
      html("th", { style, scope: "row" }, sample, ` ${name}`),
      html("td", {}, ASKED[name]),
      cells[i],
    );
  });
  const titles = ["loss", "asked for", "rank corr."].map((title) => html("th", { scope: "col" }, title));
  const table = html("table", {}, html("thead", {}, html("tr", {}, ...titles)), html("tbody", {}, ...rows));
  const draw = (step, school) => {
    const marks = school.at(step);
    cells.forEach((cell, i) => {
      cell.textContent = marks[i] === undefined ? "–" : number(marks[i], 3);
    });
  };
  return { draw, element: html("div", { style: "flex:1 1 190px" }, table) };
}

/** Teaches in slices of a frame until `until()`; `seen` is called after each slice. */
function lessonHours(school, until, seen) {
  let frame = 0;
  const slice = () => {
    frame = 0;
    const end = performance.now() + 14;
    while (school.now.taught < until() && performance.now() < end) school.now.teach();
    seen();
    go();
  };
  const go = () => {
    if (!frame && school.now.taught < until()) frame = requestAnimationFrame(slice);
  };
  return { go, stop: () => cancelAnimationFrame(frame) };
}

function button(text, press) {
  const style =
    "font:inherit;min-height:34px;padding:4px 16px;border-radius:6px;border:1px solid var(--ve-ink);" +
    "background:var(--ve-panel);color:var(--ve-ink);cursor:pointer";
  const element = html("button", { type: "button", style }, text);
  element.addEventListener("click", press);
  return element;
}

/** The panel, once the lessons are there. */
function classroom(model, root, says, data, stops) {
  const most = model.get("most");
  const school = { now: new Class(data), running: false };
  const parts = [curves(most), legend()];
  const step = () => model.get("step");
  const draw = () => {
    for (const part of parts) part.draw(step(), school.now);
    const text = words(step(), school.now.taught, school.now.at(step()));
    const said = school.running && step() > 0 ? "The four are being taught, side by side." : text;
    if (says.textContent !== said) says.textContent = said;
    press.textContent = school.running ? "Pause" : "Teach";
  };
  const until = () => (school.running ? most : Math.min(step(), most));
  const seen = () => {
    if (school.running) {
      if (school.now.taught >= most) school.running = false;
      write(model, "step", school.now.taught);
    }
    draw();
  };
  const hours = lessonHours(school, until, seen);
  const press = button("Teach", () => {
    school.running = !school.running;
    if (school.running && school.now.taught >= most) restart(true);
    hours.go();
    draw();
  });
  const restart = (running) => {
    school.now = new Class(data);
    school.running = running;
    write(model, "step", 0);
    draw();
  };
  const show = (v) => number(v, 0);
  const steps = slider(model, "step", { label: "look at step", min: 0, max: most, step: 1, show, stops });
  const controls = html(
    "div",
    { class: "ve-controls" },
    press,
    button("Start again", () => restart(false)),
    steps,
  );
  root.append(controls, html("div", { class: "ve-row" }, ...parts.map((part) => part.element)), says);
  const moved = () => {
    if (school.running && step() !== school.now.taught) school.running = false; // the reader has taken the slider
    hours.go();
    draw();
  };
  stops.push(follow(model, ["step"], moved), hours.stop);
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Training explorer");
  let data;
  try {
    data = unpack(model.get("data"), model.get("counts"));
  } catch {
    root.append(says);
    says.textContent = "This browser cannot read the lessons. The figure below shows what they teach.";
    return;
  }
  classroom(model, root, says, data, stops);
  return () => stops.forEach((stop) => stop());
}

export default { render };
