"use strict";
// Filters, colors, and charts drawn when they come into view. Without this script the page still reads.
(() => {
  const $ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const LARGEST = 1.5; // scale of a chart
  const items = $(".item");
  const filters = document.querySelector(".filters");
  const selects = filters ? $("select", filters) : [];
  const said = document.getElementById("said");
  const main = document.getElementById("main");

  const folds = $(".fold");
  const key = (fold) => fold.parentElement.id;

  // What the address keeps: #at=rq1&model=resnet18&open=rq1. A plain #rq1 works too.
  const kept = () => {
    const text = location.hash.slice(1);
    return new URLSearchParams(text.includes("=") ? text : `at=${text}`); // takes a stray % too
  };
  const keep = (changes, push) => {
    const state = kept();
    for (const [key, value] of Object.entries(changes)) value ? state.set(key, value) : state.delete(key);
    if (!state.get("at")) state.delete("at");
    history[push ? "pushState" : "replaceState"](null, "", `#${state}`);
  };

  // Filters: an item that names the filter's key is shown for its own value; any other always.
  const apply = () => {
    let shown = 0;
    for (const item of items) {
      item.hidden = selects.some(({ name, value }) => {
        const own = item.getAttribute(`data-${name}`);
        return value !== "" && own !== null && own !== value;
      });
      shown += !item.hidden;
    }
    for (const part of $(".part")) {
      const note = part.querySelector(".nothing");
      const count = (kind) => $(`.item.${kind}:not([hidden])`, part).length;
      const counts = [["figure", count("figure")], ["table", count("table")]].filter(([, n]) => n);
      if (note) {
        note.hidden = counts.length > 0;
        part.querySelector(".count").textContent =
          counts.map(([noun, n]) => `${n} ${noun}${n > 1 ? "s" : ""}`).join(", ") || "nothing for these filters";
      }
    }
    look();
    return shown;
  };
  const fromAddress = () => {
    const state = kept();
    for (const select of selects) {
      const wanted = state.get(select.name) ?? "";
      select.value = $("option", select).some((option) => option.value === wanted) ? wanted : "";
    }
    apply();
    const opened = (state.get("open") ?? "").split(".");
    for (const fold of folds) fold.open = opened.includes(key(fold));
    const place = document.getElementById(state.get("at") ?? "");
    if (place) { reveal(place); place.scrollIntoView(); }
  };
  const reveal = (place) => { // unfold what holds it, and what it holds
    for (let at = place; at; at = at.parentElement) if (at.localName === "details") at.open = true;
    const own = place.querySelector(":scope > .fold");
    if (own) own.open = true;
  };
  for (const fold of folds) {
    fold.addEventListener("toggle", () => {
      const open = folds.filter((one) => one.open).map(key).join(".");
      if (open !== (kept().get("open") ?? "")) keep({ open }, false);
      look();
    });
  }
  const choose = () => {
    const shown = apply();
    keep(Object.fromEntries(selects.map(({ name, value }) => [name, value])), false);
    said.textContent = `${shown} of ${items.length} figures and tables shown.`;
  };
  if (filters) {
    filters.addEventListener("change", choose);
    filters.addEventListener("submit", (event) => event.preventDefault());
    filters.addEventListener("reset", () => setTimeout(choose));
  }

  // Contents: go there, keep the filters in the address, move the focus along.
  const menu = document.getElementById("menu");
  const narrow = matchMedia("(max-width: 61.99rem)");
  const fold = () => { menu.open = !narrow.matches; };
  narrow.addEventListener("change", fold);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link) return;
    const place = document.getElementById(link.getAttribute("href").slice(1));
    if (!place) return;
    event.preventDefault();
    if (narrow.matches && menu.contains(link)) menu.open = false;
    if (place.id !== "main") keep({ at: place.id }, true);
    reveal(place);
    place.scrollIntoView();
    (place.querySelector(":scope > .fold > summary") ?? place).focus({ preventScroll: true });
  });
  addEventListener("popstate", fromAddress);
  const links = new Map($('nav a[href^="#"]').map((a) => [a.getAttribute("href").slice(1), a]));
  const here = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      for (const [id, link] of links) {
        id === target.id ? link.setAttribute("aria-current", "location") : link.removeAttribute("aria-current");
      }
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const id of links.keys()) here.observe(document.getElementById(id));

  // Light or dark: the system's choice until the reader makes one.
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => theme.setAttribute("aria-pressed", String(dark()));
  theme.addEventListener("click", () => {
    const next = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("offramp-theme", next); } catch { /* then it lasts until the page is closed */ }
    show();
  });
  system.addEventListener("change", show);

  // Charts: SVG in colors that have a light and a dark value each, so that a change of colors, and
  // print, need no new drawing; scaled to their place, so that neither does a new width.
  const words = (id) => document.getElementById(id).textContent;
  const config = JSON.parse(words("charts"));
  const unpacked = async (id) => { // zlib and base64, a third of the plain text
    const bytes = Uint8Array.from(atob(words(id)), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };
  const rows = (text, types) => { // CSV here: Vega's reader of it compiles code, which the policy forbids
    const lines = [[]];
    for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n|$)/g)) {
      lines.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
      if (end === "\n") lines.push([]);
    }
    const [names, ...records] = lines;
    const value = (name, word) => (types[name] !== "number" ? word : word === "" ? null : Number(word));
    return records.filter((record) => record.length >= names.length)
      .map((record) => Object.fromEntries(names.map((name, i) => [name, value(name, record[i])])));
  };
  const read = (value, sets) => { // a specification with its CSV read, `sets` its named data
    if (Array.isArray(value)) return value.map((child) => read(child, sets));
    if (value === null || typeof value !== "object") return value;
    const text = value.values ?? sets[value.name];
    if (typeof text === "string" && value.format?.type === "csv") {
      return { values: rows(text, value.format.parse ?? {}) };
    }
    const kept = (key) => key === "values" || key === "datasets";
    return Object.fromEntries(
      Object.entries(value).map(([key, child]) => [key, kept(key) ? child : read(child, sets)]));
  };
  const chart = async (id) => {
    const spec = await unpacked(id);
    return { ...read(spec, spec.datasets ?? {}), config };
  };
  const drawn = new Map(); // or begun: place → a promise of its chart
  const draw = (place) => {
    if (!drawn.has(place) && place.clientWidth > 0) drawn.set(place, fill(place));
    return drawn.get(place);
  };
  const fill = async (place) => {
    try {
      await vegaEmbed(place, await chart(place.dataset.spec), {
        mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false,
        logLevel: 1, // errors alone
        tooltip: { disableDefaultStyle: true },
      });
      const svg = place.querySelector("svg");
      svg.style.setProperty("--height", `${svg.getAttribute("height")}px`);
      svg.style.width = `${Math.round(svg.getAttribute("width") * LARGEST)}px`; // or less: see the style sheet
      place.classList.add("drawn");
    } catch (error) {
      place.classList.add("failed");
      place.textContent = `This chart could not be drawn (${error.message}); its files are below.`;
      console.error(error);
    }
  };
  const waiting = new Set();
  let busy = false;
  const work = async () => {
    if (busy) return;
    busy = true;
    for (const place of waiting) {
      waiting.delete(place);
      await draw(place);
      await new Promise((done) => setTimeout(done)); // the page stays responsive between two charts
    }
    busy = false;
  };
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) isIntersecting ? waiting.add(target) : waiting.delete(target);
    work();
  }, { rootMargin: "500px 0px" });
  const charts = $(".chart");
  const look = () => { // again, after what is shown has changed
    for (const place of charts) if (!drawn.has(place)) { near.unobserve(place); near.observe(place); }
  };

  // Print: everything that the filters show is drawn first.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = $("details:not([open])", main);
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of closed.splice(0)) one.open = false; });
  const print = async () => {
    const shut = folds.filter((fold) => !fold.open);
    for (const fold of shut) fold.open = true;
    main.classList.add("whole"); // else the screen hides all first figures but one, which has no width then
    for (const place of charts) await draw(place);
    main.classList.remove("whole");
    for (const fold of shut) fold.open = false;
    window.print();
  };
  document.getElementById("print").addEventListener("click", print);
  addEventListener("keydown", (event) => {
    const key = event.key?.toLowerCase(); // P with Caps Lock
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && key === "p") { event.preventDefault(); print(); }
  });

  fold();
  show();
  fromAddress();
  if (selects.some(({ value }) => value !== "")) choose();
})();
