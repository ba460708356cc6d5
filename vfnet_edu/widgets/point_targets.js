// Chapter 5: which object a point learns, and why not another one.  The rule comes first, as pure functions; the tests
// compare them with torchvision's FCOS.  Boxes are [x1, y1, x2, y2], everything is in pixels unless it says strides.

/** Distances l, t, r, b from a point to the sides of a box; negative where the point lies outside that side. */
export const distances = ([x, y], [x1, y1, x2, y2]) => [x - x1, y - y1, x2 - x, y2 - y];

const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);

/** Between which limits the farthest side must lie, [low, high] of each level. */
export const limits = (strides, unit) =>
  strides.map((s, i) => [i ? (unit * s) / 2 : 0, i < strides.length - 1 ? unit * s : Infinity]);

/** The points of a level on an image of [height, width], row by row. */
export function pointsOf(stride, [height, width]) {
  const columns = Math.ceil(width / stride);
  const count = columns * Math.ceil(height / stride);
  return Array.from({ length: count }, (_, i) => [(i % columns) * stride, Math.floor(i / columns) * stride]);
}

/** The point of a level nearest to [x, y]. */
export function nearestPoint([x, y], stride, [height, width]) {
  const along = (v, length) => clamp(Math.round(v / stride), 0, Math.ceil(length / stride) - 1) * stride;
  return [along(x, width), along(y, height)];
}

/** How a point of a level sees a box: the three tests of FCOS, and what they look at. */
export function view(point, box, stride, [low, high], radius) {
  const ltrb = distances(point, box);
  const far = Math.max(...ltrb);
  const away = Math.max(Math.abs(ltrb[0] - ltrb[2]), Math.abs(ltrb[1] - ltrb[3])) / 2; // from the middle
  return { ltrb, far, inside: Math.min(...ltrb) > 0, central: away < radius * stride, fits: low < far && far < high };
}

/** What a point is told.  rule: {radius, central, bySize}  ->  {views, claims: [bool, ...], owner: index or -1} */
export function tell(point, stride, range, boxes, rule) {
  const views = boxes.map((box) => view(point, box, stride, range, rule.radius));
  const claims = views.map((v) => v.inside && (v.central || !rule.central) && (v.fits || !rule.bySize));
  let owner = -1;
  claims.forEach((claimed, i) => {
    if (claimed && (owner < 0 || area(boxes[i]) < area(boxes[owner]))) owner = i;
  });
  return { views, claims, owner };
}

const title = (stride) => `P${Math.log2(stride)}`;
const short = (v) => String(Number(v.toFixed(2)));
const list = (values) => values.map(short).join(", ");
const many = (n, one, more) => `${n} ${n === 1 ? one : more}`;

/** Why an object around the point does not get it, in words. */
function excuse(name, { central, fits, far }, stride, [low, high], rule) {
  if (rule.central && !central) return `${name}: the point is not within ${rule.radius} strides of its middle.`;
  if (rule.bySize && !fits) {
    const range = high === Infinity ? `more than ${low} px` : `${low} to ${high} px`;
    return `${name}: its farthest side is ${short(far)} px away, and ${title(stride)} learns ${range}.`;
  }
  return `${name} wants this point, too; the smaller object gets it.`;
}

/** The state in words.  names: of the objects, as the picture numbers them. */
export function words(point, stride, range, { views, owner }, names, rule) {
  const around = views.flatMap((v, i) => (v.inside ? [i] : []));
  const said = [`${title(stride)}, point (${point.join(", ")}): inside ${many(around.length, "object", "objects")}.`];
  if (owner < 0) said.push("It learns that it is background.");
  else {
    const { ltrb } = views[owner];
    const strides = list(ltrb.map((d) => d / stride));
    said.push(`It learns ${names[owner]}: l, t, r, b = ${list(ltrb)} px, which is ${strides} strides.`);
  }
  for (const i of around) if (i !== owner) said.push(excuse(names[i], views[i], stride, range, rule));
  return said.join(" ");
}

// ---- the picture

const WIDE = 400; // width of the picture in units of its viewBox
// on the picture, so the same in light and dark: light enough for a black number
const COLOURS = ["#ffb000", "#5bb4e9", "#35c79f", "#f3a6cf", "#ff8a50", "#f0e442", "#c9bcff"];
const colour = (i) => COLOURS[i % COLOURS.length];
const KEYS = ["level", "x", "y", "central", "by_size"];

/** Everything that the state points at. */
function chosen(model) {
  const [strides, size, boxes] = ["strides", "size", "objects"].map((key) => model.get(key));
  const level = clamp(model.get("level"), 0, strides.length - 1);
  const stride = strides[level];
  const ranges = limits(strides, model.get("unit"));
  const rule = { radius: model.get("radius"), central: model.get("central"), bySize: model.get("by_size") };
  const point = nearestPoint([model.get("x"), model.get("y")], stride, size);
  const told = tell(point, stride, ranges[level], boxes, rule);
  const names = model.get("names").map((name, i) => `${name} ${i + 1}`);
  return { strides, size, boxes, stride, ranges, range: ranges[level], rule, point, told, names };
}

/** How many points of all levels learn an object, and how many of these several objects want. */
function census(model) {
  const { strides, size, boxes, ranges, rule } = chosen(model);
  const claims = strides.flatMap((stride, i) =>
    pointsOf(stride, size).map((p) => tell(p, stride, ranges[i], boxes, rule).claims.filter(Boolean).length),
  );
  const [some, several] = [0, 1].map((least) => claims.filter((n) => n > least).length);
  return `On all levels ${some} points learn an object; ${several} of them are wanted by several objects.`;
}

/** Move to the nearest point of the level; silent where nothing changes. */
function moveTo(model, x, y) {
  const { stride, size, point } = chosen(model);
  const next = nearestPoint([x, y], stride, size);
  if (next[0] === point[0] && next[1] === point[1]) return;
  model.set("x", next[0]);
  model.set("y", next[1]);
  model.save_changes();
}

/** The same shape twice, a dark one below: seen on any picture. */
const twice = (make, stroke, width) => [
  make({ stroke: "#101010", "stroke-width": width + 2.4, "stroke-opacity": 0.6 }),
  make({ stroke, "stroke-width": width }),
];

/** The frame of an object and its number; thick if it is learned. */
function frame([x1, y1, x2, y2], i, owned, k) {
  const rect = (look) => ({ x: x1 * k, y: y1 * k, width: (x2 - x1) * k, height: (y2 - y1) * k, fill: "none", ...look });
  const corner = { x: clamp(x1 * k, 0, WIDE - 18), y: Math.max(y1 * k - 9, 0) };
  return [
    ...twice((look) => svg("rect", rect(look)), colour(i), owned ? 4 : 1.8),
    svg("rect", { ...corner, width: 18, height: 18, rx: 3, fill: colour(i), stroke: "#101010" }),
    svg(
      "text",
      { x: corner.x + 9, y: corner.y + 14, "text-anchor": "middle", style: "fill:#101010;font-weight:700" },
      i + 1,
    ),
  ];
}

/** The points of the level, each in the colour of the object that it learns. */
function dots(model, k) {
  const { stride, size, boxes, range, rule } = chosen(model);
  return pointsOf(stride, size).map((point) => {
    const { owner } = tell(point, stride, range, boxes, rule);
    const [cx, cy] = point.map((v) => v * k);
    if (owner < 0) return svg("circle", { cx, cy, r: 2.2, fill: "#fff", stroke: "#101010", "stroke-width": 1 });
    return svg("circle", { cx, cy, r: 5.5, fill: colour(owner), stroke: "#101010", "stroke-width": 1.4 });
  });
}

/** From the chosen point to the four sides of its object, each with its letter. */
function arms(model, k, high) {
  const { point, told } = chosen(model);
  if (told.owner < 0) return [];
  const [x, y] = point.map((v) => v * k);
  const [l, t, r, b] = told.views[told.owner].ltrb.map((d) => d * k);
  const ends = { l: [x - l, y], t: [x, y - t], r: [x + r, y], b: [x, y + b] };
  const style = "font-weight:700;fill:#101010;paint-order:stroke;stroke:#fff;stroke-width:4px";
  return Object.entries(ends).flatMap(([side, [ex, ey]]) => {
    const line = (look) => svg("line", { x1: x, y1: y, x2: ex, y2: ey, ...look });
    const [right, down] = ey === y ? [0, -6] : [9, 4]; // beside its line
    const at = { x: clamp((x + ex) / 2 + right, 8, WIDE - 8), y: clamp((y + ey) / 2 + down, 12, high - 4) };
    const room = Math.hypot(ex - x, ey - y) > 26;
    const letter = room ? [svg("text", { ...at, "text-anchor": "middle", style }, side)] : [];
    return [...twice(line, colour(told.owner), 3), ...letter];
  });
}

/** The image with its points; a press or a drag anywhere chooses the nearest one, arrow keys the next one. */
function scene(model) {
  const [h, w] = model.get("size");
  const k = WIDE / w;
  const high = h * k;
  const plane = svg("svg", {
    viewBox: `-8 -8 ${WIDE + 16} ${high + 16}`,
    role: "group",
    "aria-label": "The image, its objects and the points of the chosen level",
    style: "width:100%;cursor:pointer",
  });
  const still = svg("g", { "pointer-events": "none" });
  const cursor = svg("g", { style: "outline:none" }); // focus shows on the ring, not around all that can be touched
  const moving = svg("g", { "pointer-events": "none" });
  const nudge = (dx, dy) => {
    const { stride, point } = chosen(model);
    moveTo(model, point[0] + dx * stride, point[1] + dy * stride);
  };
  draggable(cursor, plane, { label: "point", drag: () => {}, nudge }); // the whole picture follows the pointer
  const go = (event) => moveTo(model, ...position(plane, event).map((v) => v / k));
  plane.addEventListener("pointerdown", go);
  plane.addEventListener("pointermove", (event) => event.buttons && go(event));
  plane.append(
    svg("image", { href: model.get("image"), width: WIDE, height: high, preserveAspectRatio: "none" }),
    ...[still, cursor, moving],
  );

  const draw = () => {
    const { boxes, point, told, stride, size } = chosen(model);
    const frames = boxes.flatMap((box, i) => frame(box, i, i === told.owner, k));
    still.replaceChildren(...frames, ...dots(model, k));
    moving.replaceChildren(...arms(model, k, high));
    const ring = (look) => svg("circle", { cx: point[0] * k, cy: point[1] * k, r: 9, fill: "none", ...look });
    const width = cursor.matches(":focus") ? 5 : 3;
    const reach = svg("circle", { cx: point[0] * k, cy: point[1] * k, r: 22, fill: "transparent" }); // for a finger
    cursor.replaceChildren(reach, ...twice(ring, "#fff", width));
    const columns = Math.ceil(size[1] / stride);
    const text = told.owner < 0 ? "background" : `learns ${chosen(model).names[told.owner]}`;
    set(cursor, {
      "aria-valuemin": 0,
      "aria-valuemax": columns * Math.ceil(size[0] / stride) - 1,
      "aria-valuenow": (point[1] / stride) * columns + point[0] / stride,
      "aria-valuetext": `x ${point[0]}, y ${point[1]}, ${text}`,
    });
  };
  for (const kind of ["focus", "blur"]) cursor.addEventListener(kind, draw);
  return { plane, draw };
}

/** The three tests and the area, object by object. */
function table(model) {
  const head = ["object", "inside", "middle", "farthest", "area"];
  const cell = (tag, text, i) => html(tag, { style: `padding:3px 5px;${i ? "" : "text-align:left"}` }, text);
  const body = html("tbody");
  const caption = html("caption", { style: "text-align:left;color:inherit;font-size:13px" }, "How the point sees them");
  const style = "margin:0;width:100%;font-size:13px";
  const top = html("thead", {}, html("tr", {}, ...head.map((text, i) => cell("th", text, i))));
  const element = html("table", { style }, caption, top, body);
  const draw = () => {
    const { boxes, told, names } = chosen(model);
    const rows = told.views.map((v, i) => {
      const yes = (right) => (right ? "yes" : "no");
      const rest = v.inside ? [yes(v.central), `${short(v.far)} px`] : ["", ""];
      const cells = [names[i], yes(v.inside), ...rest, number(area(boxes[i]), 0)].map((text, n) => cell("td", text, n));
      return html("tr", { style: i === told.owner ? "font-weight:700" : null }, ...cells);
    });
    body.replaceChildren(...rows);
  };
  return { element, draw };
}

function render({ model, el }) {
  const stops = [];
  const { root, says } = panel(el, "Point explorer: who learns what?");
  const ranges = limits(model.get("strides"), model.get("unit"));
  const until = ([low, high]) => (high === Infinity ? `from ${low} px` : `${low} to ${high} px`);
  const levels = model.get("strides").map((stride, i) => [i, `${title(stride)}: ${until(ranges[i])}`]);
  const onOff = [true, false].map((value) => [value, value ? "on" : "off"]);
  const controls = html(
    "div",
    { class: "ve-controls" },
    choice(model, "level", { label: "Level", options: levels, stops }),
    choice(model, "central", { label: "Only the middle", options: onOff, stops }),
    choice(model, "by_size", { label: "Levels by size", options: onOff, stops }),
  );
  const picture = scene(model);
  const tests = table(model);
  const counts = html("p", { style: "margin:8px 0 0;font-size:13px" });
  const key = html(
    "p",
    { style: "margin:8px 0 0;color:var(--ve-soft);font-size:13px" },
    "A coloured point learns the object of that colour; a small white one learns background.",
  );
  root.append(
    controls,
    html(
      "div",
      { class: "ve-row" },
      html("div", { style: "flex:1.3 1 270px;max-width:430px" }, picture.plane),
      html("div", { style: "flex:1 1 250px" }, tests.element, counts, key),
    ),
    says,
  );
  const draw = () => {
    const { point, stride, range, told, names, rule } = chosen(model);
    picture.draw();
    tests.draw();
    counts.textContent = census(model);
    says.textContent = words(point, stride, range, told, names, rule);
  };
  stops.push(follow(model, KEYS, draw));
  return () => stops.forEach((stop) => stop());
}

export default { render };
