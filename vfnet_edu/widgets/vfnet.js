// VarifocalNet in plain JavaScript: a picture goes in, detections come out, and everything in between can be looked at.
//
//     const detector = new Vfnet(manifest, await inflate(bytes)); // as vfnet_edu/widgets/detector.py packs them
//     const seen = detector.run(pixels, 128, 128);                // RGBA, 0 to 255; sides are multiples of 32
//     seen.kept;                                                  // [{score, label, box: [x1, y1, x2, y2], ...}, ...]
//
// A map is {h, w, c, data}, with data[(y * w + x) * c + channel]: one row of c numbers for every cell. A convolution is
// a matrix product: on its left a row for every cell, which holds what the kernel sees there; on its right a row for
// every output channel. The star convolution is the same product. Only what a cell sees is read elsewhere.

const GROUPS = 32; // of GroupNorm
const EPSILON = 1e-5;

/** Bytes that Python's zlib has deflated -> ArrayBuffer. */
export const inflate = (bytes) =>
  new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();

// ---- Maps -----------------------------------------------------------------------------------------------------------

const newMap = (h, w, c, data = new Float32Array(h * w * c)) => ({ h, w, c, data });

function relu(map) {
  const { data } = map;
  for (let i = 0; i < data.length; i++) if (data[i] < 0) data[i] = 0;
  return map;
}

function add(map, other) {
  for (let i = 0; i < map.data.length; i++) map.data[i] += other.data[i];
  return map;
}

/** Adds the next coarser map, every cell of it to a square of 2 x 2. */
function addEnlarged(map, coarse) {
  const { h, w, c, data } = map;
  let at = 0;
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      const from = ((y >> 1) * coarse.w + (x >> 1)) * c;
      for (let i = 0; i < c; i++) data[at++] += coarse.data[from + i];
    }
  return map;
}

/** The largest of 3 x 3, at every second cell. Nothing is negative after a ReLU, so outside may count as 0. */
function maxPool(map) {
  const { h, w, c, data } = map;
  const out = newMap(h >> 1, w >> 1, c);
  for (let y = 0; y < out.h; y++)
    for (let x = 0; x < out.w; x++) {
      const to = (y * out.w + x) * c;
      for (let yy = Math.max(2 * y - 1, 0); yy <= Math.min(2 * y + 1, h - 1); yy++)
        for (let xx = Math.max(2 * x - 1, 0); xx <= Math.min(2 * x + 1, w - 1); xx++) {
          const from = (yy * w + xx) * c;
          for (let i = 0; i < c; i++) out.data[to + i] = Math.max(out.data[to + i], data[from + i]);
        }
    }
  return out;
}

/** Every group of channels, over all cells of one map: mean 0, variance 1; then a scale and a shift per channel. */
function groupNorm(map, scale, shift) {
  const { h, w, c, data } = map;
  const each = c / GROUPS;
  const count = h * w * each;
  for (let first = 0; first < c; first += each) {
    let sum = 0;
    let squares = 0;
    for (let p = first; p < data.length; p += c)
      for (let i = p; i < p + each; i++) {
        sum += data[i];
        squares += data[i] * data[i];
      }
    const mean = sum / count;
    const spread = Math.sqrt(squares / count - mean * mean + EPSILON);
    for (let i = first; i < first + each; i++) {
      const a = scale[i] / spread;
      const b = shift[i] - mean * a;
      for (let p = i; p < data.length; p += c) data[p] = data[p] * a + b;
    }
  }
  return map;
}

// ---- What a kernel sees: one row for every output cell ---------------------------------------------------------------

/** k x k cells around every `stride`-th cell, 0 outside the map. Writes from row `row` on. */
function gridRows(map, k, stride, rows, row = 0) {
  const { h, w, c, data } = map;
  const pad = k >> 1;
  let to = row * k * k * c;
  for (let y = -pad; y < h - pad; y += stride)
    for (let x = -pad; x < w - pad; x += stride)
      for (let yy = y; yy < y + k; yy++)
        for (let xx = x; xx < x + k; xx++) {
          const inside = yy >= 0 && yy < h && xx >= 0 && xx < w;
          let from = (yy * w + xx) * c;
          const end = to + c;
          if (inside) while (to < end) rows[to++] = data[from++];
          else while (to < end) rows[to++] = 0;
        }
}

/** The nine points of every star: rows (y - t, y, y + b) by columns (x - l, x, x + r).  -> [x, y, ...] in cells */
function starPoints(ltrb, stride) {
  const { h, w, data } = ltrb;
  const points = new Float32Array(h * w * 18);
  let to = 0;
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      const [l, t, r, b] = data.subarray((y * w + x) * 4, (y * w + x + 1) * 4).map((side) => side / stride);
      for (const row of [y - t, y, y + b])
        for (const column of [x - l, x, x + r]) {
          points[to++] = column;
          points[to++] = row;
        }
    }
  return points;
}

/** The map at nine points for every cell, each interpolated between its four neighbours. Writes from row `row` on. */
function starRows(map, points, rows, row) {
  const { h, w, c, data } = map;
  rows.fill(0, row * 9 * c, row * 9 * c + (points.length / 2) * c);
  for (let i = 0; i < points.length; i += 2) {
    // A box comes out of an exponential and may be huge: bring it back to where every neighbour is still outside.
    const x = Math.min(Math.max(points[i], -2), w + 1);
    const y = Math.min(Math.max(points[i + 1], -2), h + 1);
    const to = row * 9 * c + (i / 2) * c;
    for (let yy = Math.floor(y); yy <= Math.floor(y) + 1; yy++)
      for (let xx = Math.floor(x); xx <= Math.floor(x) + 1; xx++) {
        if (yy < 0 || yy >= h || xx < 0 || xx >= w) continue;
        const weight = (1 - Math.abs(y - yy)) * (1 - Math.abs(x - xx));
        const from = (yy * w + xx) * c;
        for (let j = 0; j < c; j++) rows[to + j] += weight * data[from + j];
      }
  }
}

// ---- The product ----------------------------------------------------------------------------------------------------

/**
 * out[m, n] = bias[n] + the sum over k of a[m, k] * b[n, k]. All the time goes here.
 *
 * Three rows of a times four of b at once: one round loads seven numbers for twelve products, and twelve sums fit into
 * the registers of a processor. `a` and `out` have room for a multiple of three rows; n is a multiple of four.
 */
function product(a, b, bias, out, [M, N, K]) {
  for (let m = 0; m < M; m += 3)
    for (let n = 0; n < N; n += 4) {
      const [a0, a1, a2] = [m * K, (m + 1) * K, (m + 2) * K];
      const [b0, b1, b2, b3] = [n * K, (n + 1) * K, (n + 2) * K, (n + 3) * K];
      let [s00, s01, s02, s03] = [bias[n], bias[n + 1], bias[n + 2], bias[n + 3]];
      let [s10, s11, s12, s13] = [s00, s01, s02, s03];
      let [s20, s21, s22, s23] = [s00, s01, s02, s03];
      for (let k = 0; k < K; k++) {
        const x0 = a[a0 + k];
        const x1 = a[a1 + k];
        const x2 = a[a2 + k];
        let y = b[b0 + k];
        s00 += x0 * y;
        s10 += x1 * y;
        s20 += x2 * y;
        y = b[b1 + k];
        s01 += x0 * y;
        s11 += x1 * y;
        s21 += x2 * y;
        y = b[b2 + k];
        s02 += x0 * y;
        s12 += x1 * y;
        s22 += x2 * y;
        y = b[b3 + k];
        s03 += x0 * y;
        s13 += x1 * y;
        s23 += x2 * y;
      }
      const [o0, o1, o2] = [m * N + n, (m + 1) * N + n, (m + 2) * N + n];
      out[o0] = s00;
      out[o0 + 1] = s01;
      out[o0 + 2] = s02;
      out[o0 + 3] = s03;
      out[o1] = s10;
      out[o1 + 1] = s11;
      out[o1 + 2] = s12;
      out[o1 + 3] = s13;
      out[o2] = s20;
      out[o2 + 1] = s21;
      out[o2 + 2] = s22;
      out[o2 + 3] = s23;
    }
}

// ---- From predictions to detections ---------------------------------------------------------------------------------

export function overlap(a, b) {
  const wide = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const high = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return wide * high > 0 ? (wide * high) / (area(a) + area(b) - wide * high) : 0;
}

/** Best first; whatever overlaps a better one of its class is suppressed, and says by which. Sorts `candidates`. */
export function suppress(candidates, maxIou, most) {
  const kept = [];
  for (const one of candidates.sort((p, q) => q.score - p.score)) {
    one.by = kept.find((other) => other.label === one.label && overlap(other.box, one.box) > maxIou) ?? null;
    if (!one.by) kept.push(one);
  }
  return kept.slice(0, most);
}

/** Distances l, t, r, b in pixels -> corners x1, y1, x2, y2. The point of a cell is (x, y) times the stride. */
function corners(ltrb, stride) {
  const { h, w, data } = ltrb;
  const boxes = data.map((side, i) => {
    const cell = i >> 2;
    const point = (i % 2 ? Math.floor(cell / w) : cell % w) * stride;
    return i % 4 < 2 ? point - side : point + side;
  });
  return newMap(h, w, 4, boxes);
}

// ---- The network ----------------------------------------------------------------------------------------------------

export class Vfnet {
  /** Kernels are int8 with one scale for each output channel; everything else is float32. */
  constructor({ tensors, ...settings }, buffer) {
    Object.assign(this, settings, { weights: {}, shapes: {}, rows: new Float32Array(0) });
    for (const [name, { shape, floats, codes }] of Object.entries(tensors)) {
      const size = shape.reduce((p, q) => p * q, 1);
      const scales = new Float32Array(buffer, floats, codes === undefined ? size : shape[0]);
      const each = size / shape[0];
      this.shapes[name] = shape;
      this.weights[name] =
        codes === undefined
          ? scales
          : Float32Array.from(new Int8Array(buffer, codes, size), (code, i) => code * scales[Math.floor(i / each)]);
    }
  }

  /** A product for m cells: `fill` writes what the kernel sees. -> (m, channels) */
  multiply(m, name, bias, fill) {
    const [n, ...rest] = this.shapes[name];
    const k = rest.reduce((p, q) => p * q);
    const room = Math.ceil(m / 3) * 3;
    if (this.rows.length < room * k) this.rows = new Float32Array(room * k);
    fill(this.rows);
    const out = new Float32Array(room * n);
    product(this.rows, this.weights[name], bias ? this.weights[bias] : new Float32Array(n), out, [m, n, k]);
    return out.subarray(0, m * n);
  }

  /** A convolution of one map. */
  conv(map, name, stride = 1) {
    const [n, k] = this.shapes[`${name}.weight`];
    const [h, w] = [map.h / stride, map.w / stride];
    const fill = (rows) => gridRows(map, k, stride, rows);
    return newMap(h, w, n, this.multiply(h * w, `${name}.weight`, `${name}.bias`, fill));
  }

  /** The same weights on all levels of a pyramid: the cells of all maps, one after the other, in one product. */
  convAll(maps, name, bias, fillLevel = (level, rows, row) => gridRows(maps[level], 3, 1, rows, row)) {
    const starts = [0];
    for (const { h, w } of maps) starts.push(starts.at(-1) + h * w);
    const n = this.shapes[name][0];
    const fill = (rows) => maps.forEach((_, level) => fillLevel(level, rows, starts[level]));
    const out = this.multiply(starts.at(-1), name, bias, fill);
    return maps.map(({ h, w }, level) => newMap(h, w, n, out.subarray(starts[level] * n, starts[level + 1] * n)));
  }

  /** 3x3, GroupNorm, ReLU, on all levels. */
  convNormAll(maps, name) {
    const [scale, shift] = [this.weights[`${name}.norm.weight`], this.weights[`${name}.norm.bias`]];
    return this.convAll(maps, `${name}.conv.weight`).map((map) => relu(groupNorm(map, scale, shift)));
  }

  /** Two 3x3 and a shortcut around them. */
  block(map, name, stride) {
    const inner = this.conv(relu(this.conv(map, `${name}.conv1`, stride)), `${name}.conv2`);
    const shortcut = stride > 1 ? this.conv(map, `${name}.downsample.0`, stride) : map;
    return relu(add(inner, shortcut));
  }

  /** RGBA pixels -> [C3, C4, C5], maps at strides 8, 16, 32. */
  backbone(pixels, width, height) {
    const image = newMap(height, width, 3);
    for (let i = 0; i < image.data.length; i++)
      image.data[i] = (pixels[Math.floor(i / 3) * 4 + (i % 3)] - this.mean[i % 3]) / this.std[i % 3];
    let map = maxPool(relu(this.conv(image, "backbone.conv1", 2)));
    const stages = [1, 2, 3, 4].map((stage) => {
      map = this.block(map, `backbone.layer${stage}.0`, stage > 1 ? 2 : 1);
      return map;
    });
    return stages.slice(1);
  }

  /** [C3, C4, C5] -> [P3, P4, P5]: what the coarse maps know flows down. */
  neck(stages) {
    const maps = stages.map((map, level) => this.conv(map, `neck.lateral.${level}.conv`));
    for (let level = maps.length - 2; level >= 0; level--) addEnlarged(maps[level], maps[level + 1]);
    return maps.map((map, level) => this.conv(map, `neck.output.${level}.conv`));
  }

  /** [P3, P4, P5] -> for each level: distances, star, initial box, refined box, logits and scores. */
  head(pyramid) {
    const { strides, weights } = this;
    const cls = this.convNormAll(pyramid, "head.cls_tower.0");
    const reg = this.convNormAll(pyramid, "head.reg_tower.0");

    const ltrb = this.convAll(this.convNormAll(reg, "head.box_conv"), "head.box_out.weight", "head.box_out.bias");
    ltrb.forEach((map, level) => {
      const [gain, unit] = [weights["head.box_gain"][level], this.boxUnit * strides[level]];
      map.data = map.data.map((x) => Math.exp(x * gain) * unit);
    });

    const stars = ltrb.map((map, level) => starPoints(map, strides[level]));
    const atStar = (maps) => (level, rows, row) => starRows(maps[level], stars[level], rows, row);
    const forBox = this.convAll(reg, "head.refine_star", null, atStar(reg)).map(relu);
    const forScore = this.convAll(cls, "head.score_star", null, atStar(cls)).map(relu);

    const better = this.convAll(forBox, "head.refine_out.weight", "head.refine_out.bias");
    better.forEach((map, level) => {
      const gain = weights["head.refine_gain"][level];
      map.data = map.data.map((x, i) => Math.exp(x * gain) * ltrb[level].data[i]);
    });
    const logits = this.convAll(forScore, "head.score_out.weight", "head.score_out.bias");
    const scores = logits.map((map) => ({ ...map, data: map.data.map((x) => 1 / (1 + Math.exp(-x))) }));
    const [initial, refined] = [ltrb, better].map((maps) => maps.map((map, level) => corners(map, strides[level])));
    return { ltrb, stars, initial, refined, logits, scores };
  }

  /** Every pair of a cell and a class whose score is above the threshold, its box cut at the border of the picture. */
  candidates({ refined, scores }, width, height) {
    const found = [];
    const cut = (x, i) => Math.min(Math.max(x, 0), i % 2 ? height : width);
    scores.forEach((map, level) => {
      map.data.forEach((score, i) => {
        if (!(score > this.minScore)) return;
        const cell = Math.floor(i / map.c);
        const box = Array.from(refined[level].data.subarray(cell * 4, cell * 4 + 4), cut);
        found.push({ score, label: i % map.c, box, level, cell });
      });
    });
    return found;
  }

  /** Everything, from the pixels to the detections. */
  run(pixels, width, height) {
    const stages = this.backbone(pixels, width, height);
    const pyramid = this.neck(stages);
    const head = this.head(pyramid);
    const candidates = this.candidates(head, width, height);
    const kept = suppress(candidates, this.nmsIou, this.maxDetections);
    return { stages, pyramid, ...head, candidates, kept };
  }
}
