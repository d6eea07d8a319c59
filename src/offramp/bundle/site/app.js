import * as ort from "./ort/ort.wasm.min.mjs";
import { open, pixels, walk } from "./network.js";

const at = (id) => document.getElementById(id);
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const WARM = 300; // milliseconds for all stages before any is timed: one run leaves the code of a small one slow
const seen = [];
let about, stages;

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send

function made(tag, text, name) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

function problem(text) {
  at("problem").hidden = !text;
  at("problem").textContent = text;
}

async function bytes(file) {
  const options = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const bitmap = await createImageBitmap(file, options);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** The answer at the exit where the image leaves, then what the exits behind it would have said. */
async function answered(file) {
  const image = await bytes(file);
  const input = pixels(image, about.preprocessing);
  const side = Math.max(image.width, image.height); // of each image no more is kept: a photo's pixels are 50 MB
  const passed = [];
  let left = null;
  for await (const one of walk(ort, about, stages, input)) {
    passed.push(one);
    if (left === null && one.leaves) {
      if (one.confidence === null) throw new Error("the network answers NaN or infinity");
      left = passed.length - 1;
      const spent = passed.reduce((sum, each) => sum + each.milliseconds, 0);
      seen.push({ file, side, passed, left, spent });
      show(seen.at(-1));
      await new Promise((done) => setTimeout(done)); // the answer is drawn before the rest is run
    }
  }
  show(seen.at(-1)); // now with the whole network beside it
}

function show(one) {
  const { passed, left } = one;
  const leaving = passed[left];
  const label = about.labels[leaving.class];
  const picture = at("picture");
  if (picture.dataset.of !== String(seen.length)) {
    URL.revokeObjectURL(picture.src);
    picture.src = URL.createObjectURL(one.file);
    picture.dataset.of = seen.length;
    picture.className = one.side < 128 ? "tiny" : "";
  }
  picture.alt = `The image that was answered: ${label}`;
  at("name").textContent = one.file.name;
  at("class").textContent = label;
  at("said").textContent =
    `${percent(leaving.confidence)} sure. It left at exit ${leaving.exit}` +
    (left === stages.length - 1 ? ", the last." : `: ${percent(saved(leaving), 0)} of the computation was not needed.`);
  at("path").replaceChildren(...stages.map((stage, i) => exit(stage, i, one)));
  const numbers = [
    ["time", `${one.spent.toFixed(1)} ms in the network`],
    ["computation", `${percent(leaving.compute)} of the network without early exits`],
  ];
  if (left < stages.length - 1 && passed.length === stages.length) {
    const rest = passed.slice(left + 1).reduce((sum, each) => sum + each.milliseconds, 0);
    const last = passed.at(-1);
    const other = last.confidence === null ? "has no answer" : `says ${about.labels[last.class]}`;
    const same = last.class === leaving.class && last.confidence !== null ? "says the same" : other;
    numbers.push(["saved", `${rest.toFixed(1)} ms; the last exit ${same}`]);
  }
  at("numbers").replaceChildren(...numbers.flatMap(([name, value]) => [made("dt", name), made("dd", value)]));
  at("result").hidden = false;
  table();
}

/** What an exit says; where it answers NaN or infinity, nothing. */
const words = ({ class: number, confidence }) =>
  confidence === null ? "no answer" : `${about.labels[number]}, ${percent(confidence)}`;

const saved = (leaving) => Math.max(1 - leaving.compute, 0);

function exit(stage, i, { passed, left }) {
  const item = made("li", "", i < left ? "passed" : i === left ? "passed left" : "");
  item.append(made("strong", `exit ${stage.exit}`));
  const there = passed[i];
  if (i <= left) {
    item.append(made("span", words(there)));
    const limit = stage.threshold === null ? "" : `, needs ${stage.threshold.toPrecision(3)}`;
    const sure = Number.isFinite(there.score) ? there.score.toPrecision(3) : "none";
    if (i < stages.length - 1) item.append(made("span", `${about.score} ${sure}${limit}`));
    item.append(made("span", i === left ? "left here" : "went on"));
  } else if (there) {
    item.append(made("span", `not needed: ${words(there)}`));
  } else item.append(made("span", "not needed"));
  return item;
}

function table() {
  const count = (exit) => seen.filter((one) => one.passed[one.left].exit === exit).length;
  at("shares").replaceChildren(
    ...stages.map(({ exit }) => made("li", `exit ${exit}: ${count(exit)} of ${seen.length}`)),
  );
  at("rows").replaceChildren(
    ...seen.toReversed().map((one) => {
      const { class: number, confidence, exit } = one.passed[one.left];
      const cells = [one.file.name, about.labels[number], percent(confidence), exit, one.spent.toFixed(1)];
      const row = document.createElement("tr");
      row.append(...cells.map((text) => made("td", text)));
      return row;
    }),
  );
  at("seen").hidden = false;
}

let queue = Promise.resolve();

function take(files) {
  const wrong = []; // of these files: the next one's answer takes none of them away
  for (const file of files)
    queue = queue.then(async () => {
      try {
        await answered(file);
      } catch (error) {
        wrong.push(`${file.name}: ${error.message}`);
      }
      problem(wrong.join("; "));
      document.documentElement.dataset.answered = Number(document.documentElement.dataset.answered ?? 0) + 1;
    });
}

function listen() {
  const drop = at("drop");
  at("files").addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = "";
  });
  addEventListener("dragover", () => drop.classList.add("over"));
  addEventListener("dragleave", (event) => event.relatedTarget ?? drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    drop.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  at("files").disabled = false;
}

async function start() {
  at("about").textContent = "Loading …"; // the page adds what to do where no script runs, as from a file
  about = await (await fetch("bundle.json")).json();
  document.title = about.title;
  at("title").textContent = about.title;
  at("warning").hidden = !about.unreliable.length;
  at("warning").textContent = `Unreliable: ${about.unreliable.join("; ")}.`;
  stages = await open(ort, about);
  const blank = new Float32Array(about.preprocessing.channels * about.preprocessing.size[0] * about.preprocessing.size[1]);
  const began = performance.now();
  do for await (const _ of walk(ort, about, stages, blank)); // so that no image pays for a stage's start
  while (performance.now() - began < WARM);
  at("about").textContent = about.about;
  at("footer").textContent = about.footer;
  listen();
  document.documentElement.dataset.ready = "yes";
}

// Before the network is there, too: else the browser opens the image in place of the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());

start().catch((error) => {
  at("about").textContent = "";
  problem(`The network could not be loaded (${error.message}).`);
});
