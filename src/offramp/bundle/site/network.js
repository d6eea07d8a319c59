// An early-exit network in stages, as run.py runs it: pixels, scores, and where an image leaves.

const PRECISION = 22; // bits of Pillow's coefficients for 8-bit pixels

/** Pillow's bilinear filter, stretched over what is made smaller: for each place, where it begins, and whole weights. */
function weights(from, to) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const places = [];
  for (let at = 0; at < to; at++) {
    const center = (at + 0.5) * scale;
    const first = Math.max(Math.trunc(center - stretch + 0.5), 0);
    const last = Math.min(Math.trunc(center + stretch + 0.5), from);
    const parts = [];
    let total = 0;
    for (let x = first; x < last; x++) {
      const part = Math.max(1 - Math.abs((x - center + 0.5) / stretch), 0);
      parts.push(part);
      total += part;
    }
    places.push([first, parts.map((part) => Math.trunc(0.5 + (part / total) * 2 ** PRECISION))]);
  }
  return places;
}

const clipped = (sum) => Math.min(Math.max(Math.floor(sum / 2 ** PRECISION), 0), 255);

/** One channel resized along x, then along y, each rounded to 8 bits: what Pillow does. */
function resized(plane, height, width, toHeight, toWidth) {
  let source = plane;
  if (toWidth !== width) {
    const rows = new Uint8Array(height * toWidth);
    weights(width, toWidth).forEach(([first, parts], x) => {
      for (let y = 0; y < height; y++) {
        let sum = 2 ** (PRECISION - 1);
        for (let i = 0; i < parts.length; i++) sum += source[y * width + first + i] * parts[i];
        rows[y * toWidth + x] = clipped(sum);
      }
    });
    source = rows;
  }
  if (toHeight !== height) {
    const rows = new Uint8Array(toHeight * toWidth);
    weights(height, toHeight).forEach(([first, parts], y) => {
      for (let x = 0; x < toWidth; x++) {
        let sum = 2 ** (PRECISION - 1);
        for (let i = 0; i < parts.length; i++) sum += source[(first + i) * toWidth + x] * parts[i];
        rows[y * toWidth + x] = clipped(sum);
      }
    });
    source = rows;
  }
  return source;
}

/** What the network takes, [C, H, W] of float32. image: RGBA bytes with its width and height. */
export function pixels(image, how) {
  const { width, height, data } = image;
  const [toHeight, toWidth] = how.size;
  let planes = [0, 1, 2].map((c) => Uint8Array.from({ length: width * height }, (_, i) => data[4 * i + c]));
  const gray = planes[0].every((red, i) => red === planes[1][i] && red === planes[2][i]);
  if (how.channels === 1) {
    if (!gray && !how.gray) throw new Error("the image is in color and the network takes gray");
    const [red, green, blue] = planes;
    planes = [red.map((r, i) => (r * 19595 + green[i] * 38470 + blue[i] * 7471 + 0x8000) >> 16)];
  }
  let [newHeight, newWidth] = [height, width];
  if (Array.isArray(how.resize)) [newHeight, newWidth] = how.resize;
  else if (how.resize !== null) {
    const short = Math.min(height, width);
    newHeight = Math.floor((how.resize * height) / short);
    newWidth = Math.floor((how.resize * width) / short);
  }
  const fits = how.crop
    ? newHeight >= toHeight && newWidth >= toWidth
    : newHeight === toHeight && newWidth === toWidth;
  if (!fits) throw new Error(`the image is ${width}×${height} pixels and the network takes ${toWidth}×${toHeight}`);
  const top = Math.floor((newHeight - toHeight) / 2);
  const left = Math.floor((newWidth - toWidth) / 2);
  const normalized = new Float32Array(planes.length * toHeight * toWidth);
  planes.forEach((plane, c) => {
    const large = resized(plane, height, width, newHeight, newWidth);
    const std = Math.fround(how.std[c]);
    const scale = Math.fround(1 / Math.fround(255 * std));
    const shift = Math.fround(Math.fround(-how.mean[c]) / std);
    for (let y = 0; y < toHeight; y++)
      for (let x = 0; x < toWidth; x++)
        normalized[(c * toHeight + y) * toWidth + x] =
          Math.fround(Math.fround(large[(y + top) * newWidth + x + left] * scale) + shift);
  });
  return normalized;
}

/** Softmax under a temperature; null where no largest logit is finite. */
export function probabilities(logits, temperature) {
  const largest = Math.max(...logits);
  if (!Number.isFinite(largest)) return null;
  const parts = [...logits].map((logit) => Math.exp((logit - largest) / temperature));
  const total = parts.reduce((sum, part) => sum + part, 0);
  return parts.map((part) => part / total);
}

/** Their logarithms under no temperature, finite where a probability is too small for a number; null as
 * there. */
const logarithms = (logits) => {
  const top = largest(logits);
  if (!Number.isFinite(top)) return null;
  const total = Math.log([...logits].reduce((sum, logit) => sum + Math.exp(logit - top), 0));
  return [...logits].map((logit) => logit - top - total);
};

/** The class of the largest logit, the first of a tie; NaN never. */
export function answer(logits) {
  let best = 0;
  const value = (i) => (Number.isNaN(logits[i]) ? -Infinity : logits[i]);
  for (let i = 1; i < logits.length; i++) if (value(i) > value(best)) best = i;
  return best;
}

const largest = (shares) => Math.max(...shares);

const gap = (shares) => {
  const [first, second = 0] = [...shares].sort((a, b) => b - a);
  return first - second;
};

const order = (shares) => {
  if (shares.length < 2) return 1;
  const entropy = shares.reduce((sum, p) => sum - (p > 0 ? p * Math.log(p) : 0), 0);
  return Math.max(1 - entropy / Math.log(shares.length), 0);
};

/** A score by the shares of a softmax alone. */
const plain =
  (measure) =>
  ({ logits, temperature }) => {
    const shares = probabilities(logits, temperature);
    return [shares === null ? -Infinity : measure(shares), null];
  };

/** The class that an exit answers, or -1 where it is sure of nothing. */
const vote = (logits) => (probabilities(logits, 1) === null ? -1 : answer(logits));

/** Each score, as scoring.py has it: how sure an exit is, and what the next exit needs to know. past: that of
 * the exit before. gate: what the exit has learned. */
const SCORES = {
  confidence: plain(largest),
  margin: plain(gap),
  entropy: plain(order),
  gate: ({ logits, gate }) => {
    const shares = probabilities(logits, 1);
    if (shares === null || gate === null) return [-Infinity, null];
    const seen = [largest(shares), order(shares), gap(shares), order(probabilities(logits, 0.5)), 1];
    return [1 / (1 + Math.exp(-seen.reduce((sum, value, i) => sum + value * gate[i], 0))), null];
  },
  // past: the answer before, and how many exits in a row gave it
  patience: ({ logits, past }) => {
    const label = vote(logits);
    const run = label < 0 ? 0 : past !== null && past[0] === label ? past[1] + 1 : 1;
    return [run, [label, run]];
  },
  // past: how many exits gave each class
  agreement: ({ logits, past }) => {
    const votes = past === null ? [...logits].map(() => 0) : [...past];
    const label = vote(logits);
    if (label >= 0) votes[label] += 1;
    return [label < 0 ? 0 : votes[label], votes];
  },
  // past: sums of log-probabilities, and how many exits they are of
  ensemble: ({ logits, temperature, past }) => {
    const [sums, count] = past ?? [[...logits].map(() => 0), 0];
    const own = logarithms(logits);
    if (own === null) return [-Infinity, [sums, count]];
    const now = [sums.map((sum, i) => sum + own[i]), count + 1];
    return [largest(probabilities(mean(now), temperature)), now];
  },
  fixed: () => [0, null],
};

/** How sure an exit is, and what the next exit needs to know. */
export const score = (name, logits, temperature, past, gate = null) =>
  SCORES[name]({ logits, temperature, past, gate });

const mean = (past) => past[0].map((sum) => sum / Math.max(past[1], 1));

/** The logits by which an early exit answers: its own, or of the exits so far. */
const answerLogits = (name, logits, past) => (name === "ensemble" ? mean(past) : logits);

/** The stages of a bundle, loaded. */
export async function open(ort, about) {
  const stages = [];
  for (const stage of about.stages) {
    const session = await ort.InferenceSession.create(stage.file, { executionProviders: ["wasm"] });
    stages.push({ ...stage, session });
  }
  return stages;
}

/** An image through the stages, one after another: yields what each exit says. Whoever stops reading ends it. */
export async function* walk(ort, about, stages, input) {
  const shape = [1, about.preprocessing.channels, ...about.preprocessing.size];
  const tensors = new Map([[null, [new ort.Tensor("float32", input, shape)]]]);
  let past = null;
  let before = null;
  for (const [at, stage] of stages.entries()) {
    const began = performance.now();
    const { inputNames, outputNames } = stage.session;
    const answered = before && new ort.Tensor("float32", Float32Array.from(before), [1, before.length]);
    const inputs = Object.fromEntries(
      inputNames.map((name, i) => [name, name === "before" ? answered : tensors.get(stage.after)[i]]),
    );
    const outputs = await stage.session.run(inputs);
    const [logits, ...carried] = outputNames.map((name) => outputs[name]);
    tensors.set(at, carried);
    // Where exits were trained to add to one another, a share of the answer before comes on top; what a
    // head has learned to add is in its graph, which takes that answer.
    const own = before === null ? logits.data : logits.data.map((z, i) => z + about.carry * before[i]);
    before = own;
    let sure;
    [sure, past] = score(about.score, own, stage.temperature, past, stage.gate);
    const last = at === stages.length - 1;
    const answering = last && stage.threshold === null ? own : answerLogits(about.score, own, past);
    const shares = probabilities(answering, stage.temperature);
    yield {
      exit: stage.exit,
      class: answer(answering),
      confidence: shares === null ? null : Math.max(...shares),
      score: sure,
      leaves: last || (stage.threshold !== null && sure >= stage.threshold),
      compute: stage.macs / about.plain_macs,
      milliseconds: performance.now() - began,
    };
  }
}
