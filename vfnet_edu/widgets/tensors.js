// Chapter 14: the shapes of everything that an image becomes on its way through VarifocalNet.
// The arithmetic is that of `tensors` in tensors.py; `model` is one entry of the trait `models`.

/** [[part, name, sizes], ...] of all tensors of one image; height and width are multiples of 32. */
export function tensors(model, height, width) {
  const cells = [4, 8, 16, 32].map((stride) => [height / stride, width / stride]);
  const levels = cells.slice(1);
  while (levels.length < model.levels) levels.push(levels.at(-1).map((n) => Math.ceil(n / 2)));
  const rows = countRows(levels);
  const c = model.channels;
  return [
    ["image", "pixels", [3, height, width]],
    ...model.maps.map((channels, i) => ["ResNet", `C${i + 2}`, [channels, ...cells[i]]]),
    ...levels.map((level, i) => ["pyramid", `P${i + 3}`, [c, ...level]]),
    ["head", "two towers", [2, c, rows]],
    ["head", "first boxes", [rows, 4]],
    ["head", "star samples", [2, c, 9, rows]],
    ["head", "refined boxes", [rows, 4]],
    ["head", "scores", [rows, model.classes]],
  ];
}

const countRows = (levels) => levels.reduce((sum, [h, w]) => sum + h * w, 0);

/** How many numbers a tensor of these sizes holds. */
export const count = (sizes) => sizes.reduce((product, n) => product * n, 1);

const brief = (n) => {
  if (n < 1e4) return number(n, 0);
  return n < 1e6 ? `${number(n / 1e3, 0)} thousand` : `${number(n / 1e6, 1)} million`;
};

/** What the shapes mean, in words. */
export function words(model, height, width) {
  const all = tensors(model, height, width);
  const rows = all.at(-1)[2][0];
  const [, h3, w3] = all.find(([, name]) => name === "P3")[2];
  const [, largest, sizes] = all.reduce((a, b) => (count(b[2]) > count(a[2]) ? b : a));
  const times = count(sizes) / (3 * height * width);
  return (
    `An image of ${height} × ${width} pixels makes ${number(rows, 0)} rows, ${number(h3 * w3, 0)} of them on P3. ` +
    `Each has two boxes and ${model.classes} scores. The largest tensor is “${largest}”: ` +
    `${brief(count(sizes))} numbers, ${number(times, times < 10 ? 1 : 0)} times as many as the image has.`
  );
}

const KEYS = ["model", "height", "width"];
const INKS = { image: "--ve-soft", ResNet: "--ve-blue", pyramid: "--ve-green", head: "--ve-orange" };
const TITLES = {
  image: "The image",
  ResNet: "ResNet: channels × height × width",
  pyramid: "Pyramid: channels × height × width",
  head: "Head: all levels together, one row per cell",
};

function row(part, name, sizes, most) {
  const share = (100 * count(sizes)) / most;
  const bar = html("i", { style: `width:${share.toFixed(2)}%;background:var(${INKS[part]})` });
  const shape = sizes.map((n) => number(n, 0)).join(" × ");
  return html(
    "tr",
    {},
    html("th", { scope: "row" }, name),
    html("td", {}, shape),
    html("td", {}, brief(count(sizes)), bar),
  );
}

/** One body per part of the network. */
function bodies(all) {
  const most = Math.max(...all.map(([, , sizes]) => count(sizes)));
  return Object.keys(TITLES).map((part) => {
    const title = html("tr", {}, html("th", { scope: "rowgroup", colspan: 3 }, TITLES[part]));
    return html("tbody", {}, title, ...all.filter(([p]) => p === part).map(([, name, s]) => row(part, name, s, most)));
  });
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Tensor explorer");
  const current = () => model.get("models").find((m) => m.name === model.get("model"));
  const names = model.get("models").map(({ name }) => [name, name]);
  const side = { min: 64, max: 1344, step: 32, show: (v) => `${v} px`, stops };
  const controls = html(
    "div",
    { class: "ve-controls" },
    choice(model, "model", { label: "model", options: names, stops }),
    slider(model, "height", { label: "height", ...side }),
    slider(model, "width", { label: "width", ...side }),
  );
  const heads = ["tensor", "shape", "numbers"].map((text) => html("th", { scope: "col" }, text));
  const head = html("thead", {}, html("tr", {}, ...heads));
  const columns = ["28%", "42%", "30%"].map((width) => html("col", { style: `width:${width}` }));
  const table = html("table", { class: "ve-tensors" });
  root.append(controls, table, says);
  const draw = () => {
    const [height, width] = [model.get("height"), model.get("width")];
    table.replaceChildren(html("colgroup", {}, ...columns), head, ...bodies(tensors(current(), height, width)));
    says.textContent = words(current(), height, width);
  };
  stops.push(follow(model, KEYS, draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
