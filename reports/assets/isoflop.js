// IsoFLOP curves: the size on the x axis, budgets and methods to choose, and the run at the pointer in a line of text.
// Sizes are on a log scale; the drawing is SVG, so its text and colours are those of the page.
"use strict";

(() => {
  const HEIGHT = 380, LEFT = 58, RIGHT = 14, TOP = 10, BOTTOM = 44;
  const [METHOD, BUDGET, LAYERS, WIDTH, SEED, LOSS, TOKENS, SIZE] = Array(8).keys();
  let data, frame, readout, size = 2, budget = -1, points = [], at = -1; // budget -1: all
  const off = new Set(); // methods
  const wanted = (each) => !off.has(each[METHOD]) && (budget < 0 || each[BUDGET] === budget);

  function draw(name, properties, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(properties)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  // From the smallest to the largest size, and from the lowest loss to a little above the best sizes' losses.
  function range(runs, curves) {
    const xs = runs.map((run) => run[SIZE + size]), best = new Map();
    for (const run of runs) {
      const cell = `${run[METHOD]} ${run[BUDGET]}`;
      best.set(cell, Math.min(best.get(cell) ?? Infinity, run[LOSS]));
    }
    const ends = curves.map((curve) => curve[5][2] ?? Infinity);
    const low = Math.min(...best.values(), ...ends), high = 1.07 * Math.max(...best.values());
    return { x: [Math.min(...xs) / 1.08, Math.max(...xs) * 1.08], y: [low - 0.03 * (high - low), high] };
  }

  function logTicks([from, to]) {
    const found = [];
    for (let power = 10 ** Math.floor(Math.log10(from)); power <= to; power *= 10) {
      for (const step of [1, 2, 5]) if (step * power >= from && step * power <= to) found.push(step * power);
    }
    return found;
  }

  function ticks([from, to]) {
    const rough = (to - from) / 8, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
    const first = Math.ceil(from / step), count = Math.floor(to / step) - first + 1;
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    return [...Array(count).keys()].map((place) => [(first + place) * step, digits]);
  }

  const room = () => Math.max(280, frame.clientWidth);

  function create() {
    const runs = data.runs.filter(wanted), width = room();
    frame.replaceChildren();
    points = [];
    at = -1;
    if (!runs.length) { readout.textContent = "No run: choose a method."; return; }
    const curves = data.curves[size].filter(wanted);
    const { x, y } = range(runs, curves);
    const px = (value) => LEFT + ((width - LEFT - RIGHT) * Math.log(value / x[0])) / Math.log(x[1] / x[0]);
    const py = (value) => TOP + ((HEIGHT - TOP - BOTTOM) * (y[1] - value)) / (y[1] - y[0]);
    const svg = draw("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": true, class: "isoflop" });
    for (const [tick, digits] of ticks(y)) {
      svg.append(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: py(tick), y2: py(tick) }));
      svg.append(draw("text", { x: LEFT - 6, y: py(tick) + 4, "text-anchor": "end" }, tick.toFixed(digits)));
    }
    for (const tick of logTicks(x)) {
      svg.append(draw("line", { class: "grid", x1: px(tick), x2: px(tick), y1: TOP, y2: HEIGHT - BOTTOM }));
      svg.append(draw("text", { x: px(tick), y: HEIGHT - BOTTOM + 17, "text-anchor": "middle" }, benchFormat(tick, "scaled")));
    }
    svg.append(draw("text", { x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, data.sizes[size]));
    const clip = draw("clipPath", { id: "isoflop-frame" });
    clip.append(draw("rect", { x: LEFT, y: TOP, width: width - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM }));
    const inside = draw("g", { "clip-path": "url(#isoflop-frame)" });
    svg.append(clip, inside);
    const colour = (each) => data.methods[each[METHOD]].colour;
    for (const curve of curves) {
      const [valid, xs, ys] = curve.slice(2);
      const path = xs.map((each, place) => `${place ? "L" : "M"}${px(each).toFixed(1)} ${py(ys[place]).toFixed(1)}`).join("");
      inside.append(draw("path", { d: path, stroke: colour(curve), class: valid ? "curve" : "curve rejected" }));
    }
    for (const run of runs) {
      const place = { run, x: px(run[SIZE + size]), y: py(run[LOSS]) };
      if (place.y >= TOP) points.push(place);
      inside.append(draw("circle", { cx: place.x, cy: place.y, r: 3.5, fill: colour(run), "fill-opacity": 0.75 }));
    }
    for (const curve of curves.filter((each) => each[2])) {
      const [best, loss, low, high] = curve[5];
      if (low !== null && high !== null) inside.append(draw("line", { class: "bar", x1: px(best), x2: px(best), y1: py(low), y2: py(high), stroke: colour(curve) }));
      inside.append(draw("circle", { cx: px(best), cy: py(loss), r: 6, class: "optimum", stroke: colour(curve) }));
    }
    points.sort((a, b) => a.run[METHOD] - b.run[METHOD] || a.run[BUDGET] - b.run[BUDGET] || a.x - b.x);
    svg.append(draw("circle", { class: "at", r: 8, hidden: "" }));
    frame.append(svg);
    choose(-1);
  }

  // Show the run at this place of `points`; none: how to read the chart.
  function choose(place) {
    at = place;
    const ring = frame.querySelector(".at");
    ring.toggleAttribute("hidden", place < 0);
    if (place < 0) {
      readout.textContent = "Point at a run, tap it, or use the arrow keys to read it. Rings: optima (95 % CI of the loss). Dashed: rejected fits.";
      return;
    }
    const { run, x, y } = points[place];
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    const sizes = data.sizes.map((name, number) => `${benchFormat(run[SIZE + number], "scaled")} ${name}`);
    readout.textContent =
      `${data.methods[run[METHOD]].name}, ${run[LAYERS]} × ${run[WIDTH]}, seed ${run[SEED]}, ${data.budgets[run[BUDGET]]} FLOPs: ` +
      `loss ${benchFormat(run[LOSS], "decimal")} nats/token; ${sizes.join(", ")}; ${benchFormat(run[TOKENS], "scaled")} tokens`;
  }

  function point(event) {
    const { left, top } = frame.firstElementChild?.getBoundingClientRect() ?? { left: 0, top: 0 };
    const away = points.map(({ x, y }) => Math.hypot(event.clientX - left - x, event.clientY - top - y));
    const nearest = away.indexOf(Math.min(...away));
    if (nearest >= 0 && away[nearest] < 30) choose(nearest);
  }

  // Left and right: the next run. Up and down: the first run of the next curve.
  function keys(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || !points.length) return;
    event.preventDefault();
    const curve = ({ run }) => `${run[METHOD]} ${run[BUDGET]}`;
    let next = at < 0 ? 0 : (at + step + points.length) % points.length;
    if (at >= 0 && event.key.match(/Up|Down/)) {
      while (curve(points[next]) === curve(points[at]) && next !== at) next = (next + step + points.length) % points.length;
      next = points.findIndex((each) => curve(each) === curve(points[next]));
    }
    choose(next);
  }

  function select() {
    const options = data.sizes.map((name, value) => benchElement("option", { value, textContent: name, selected: value === size }));
    const element = benchElement("select", {}, ...options);
    element.addEventListener("change", () => { size = Number(element.value); create(); });
    return benchElement("label", { textContent: "x axis " }, element);
  }

  function slider() {
    const words = () => (budget < 0 ? "all budgets" : `${data.budgets[budget]} FLOPs`);
    const input = benchElement("input", { type: "range", min: -1, max: data.budgets.length - 1, value: -1 });
    const shown = benchElement("output", { textContent: words() });
    input.setAttribute("aria-valuetext", words());
    input.addEventListener("input", () => {
      budget = Number(input.value);
      shown.textContent = words();
      input.setAttribute("aria-valuetext", words());
      create();
    });
    return benchElement("label", { textContent: "Budget " }, input, " ", shown);
  }

  function toggle({ name, colour }, place) {
    const button = benchElement("button", { type: "button", className: "key", textContent: name });
    button.style.setProperty("--on", colour);
    button.setAttribute("aria-pressed", true);
    button.addEventListener("click", () => {
      if (!off.delete(place)) off.add(place);
      button.setAttribute("aria-pressed", !off.has(place));
      create();
    });
    return button;
  }

  document.addEventListener("DOMContentLoaded", async () => {
    const widget = document.getElementById("isoflop-chart");
    if (!widget) return;
    data = await benchData("isoflop-data");
    frame = benchElement("div", { className: "chart", tabIndex: 0 });
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", "Chart of validation loss against size; arrow keys read the runs");
    frame.addEventListener("keydown", keys);
    frame.addEventListener("pointermove", point);
    frame.addEventListener("pointerdown", point);
    readout = benchElement("p", { className: "readout" });
    readout.setAttribute("role", "status");
    widget.append(benchElement("div", { className: "controls" }, ...data.methods.map(toggle), select(), slider()), frame, readout);
    widget.hidden = false;
    for (const plain of document.querySelectorAll("[data-static='isoflop']")) plain.hidden = true;
    create();
    new ResizeObserver(() => { if (room() !== Number(frame.firstElementChild?.getAttribute("width") ?? room())) create(); }).observe(frame);
  });
})();
