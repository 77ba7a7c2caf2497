// The charts: filters that live in the address, series read as they come into view, points that can be read.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 62, RIGHT = 10, TOP = 18, BOTTOM = 24;
const LEAST_SPAN = 0.01;  // of the value: a change of half a percent fills half the height
const MARKS = ["circle", "square", "triangle", "diamond"];

const catalogue = JSON.parse(document.getElementById("catalogue").textContent);
const loaded = new Map();   // number -> promise of a series
const arrivals = new Map(); // number -> who waits for it
let runs = null;

// ---- what data files call ----

function benchRows(rows) { runs = rows; }

function benchSeries(number, series) { arrivals.get(number)(series); }

function load(number) {
  if (!loaded.has(number)) {
    loaded.set(number, new Promise((resolve, reject) => {
      arrivals.set(number, resolve);
      addScript(`data/${number}.js`, undefined, reject);
    }));
  }
  return loaded.get(number);
}

function addScript(source, done, failed) {
  const script = document.createElement("script");
  script.src = source;
  script.onload = done;
  script.onerror = failed;
  document.head.append(script);
}

// ---- the filters, as they stand in the address ----

function state() {
  const given = new URLSearchParams(location.hash.slice(1));
  return { figure: given.get("figure") || "", machine: given.get("machine") || "", methods: given.getAll("method") };
}

function setState(figure, machine, methods) {
  const given = new URLSearchParams();
  if (figure) given.set("figure", figure);
  if (machine) given.set("machine", machine);
  for (const method of methods) given.append("method", method);
  location.hash = given.toString();
}

function unique(values) { return [...new Set(values)]; }

function fillFilters() {
  const figures = new Map(catalogue.map((each) => [each.figure, each.words]));
  addOption("figure", "", "every figure");
  for (const [figure, words] of figures) addOption("figure", figure, words);
  addOption("machine", "", "every machine");
  for (const machine of runs.machines) addOption("machine", machine.id, `${machine.name} (${machine.id})`);
  for (const method of unique(catalogue.map((each) => each.method))) {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", value: method, name: "method" });
    label.append(box, method);
    document.getElementById("methods").append(label);
  }
  document.getElementById("filters").addEventListener("change", readFilters);
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
}

function addOption(id, value, words) {
  const option = document.createElement("option");
  option.value = value;
  option.textContent = words;
  document.getElementById(id).append(option);
}

function readFilters() {
  const boxes = [...document.querySelectorAll("#methods input")];
  const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
  setState(document.getElementById("figure").value, document.getElementById("machine").value, chosen);
}

function showFilters(now) {
  document.getElementById("figure").value = now.figure;
  document.getElementById("machine").value = now.machine;
  for (const box of document.querySelectorAll("#methods input")) box.checked = now.methods.includes(box.value);
}

// ---- which charts, and drawing them as they come into view ----

const viewed = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      viewed.unobserve(entry.target);
      entry.target.draw();
    }
  }
}, { rootMargin: "400px" });

function showCharts() {
  const now = state();
  showFilters(now);
  const wanted = catalogue.map((each, number) => ({ ...each, number })).filter((each) =>
    (!now.figure || each.figure === now.figure) && (!now.methods.length || now.methods.includes(each.method)));
  const place = document.getElementById("charts");
  place.replaceChildren(...wanted.map((each) => chartOf(each, now.machine)));
  for (const chart of place.children) viewed.observe(chart);
  document.getElementById("count").textContent =
    wanted.length ? `${wanted.length} chart${wanted.length === 1 ? "" : "s"}` : "Nothing fits these filters.";
}

function chartOf(entry, machine) {
  const figure = document.createElement("figure");
  figure.className = "chart";
  const heading = document.createElement("h3");
  const method = document.createElement("span");
  method.textContent = `${entry.method}: `;
  heading.append(method, entry.words);
  const svg = make("svg", {});
  const readout = document.createElement("p");
  readout.className = "readout";
  figure.append(heading, svg, readout);
  figure.draw = async () => {
    try {
      draw(figure, svg, readout, entry, await load(entry.number), machine);
    } catch {
      readout.textContent = "Its data could not be read.";
    }
  };
  return figure;
}

// ---- one chart ----

function pointsOf(series, machine) {
  const points = series.rows.map((row, place) => ({
    row, value: series.values[place], machine: runs.machine[row],
    low: series.lows ? series.lows[place] : null, high: series.highs ? series.highs[place] : null,
  }));
  return machine ? points.filter((point) => runs.machines[point.machine].id === machine) : points;
}

// By the values alone: an interval may be far wider than the moves that are looked for, and is cut off.
function rangeOf(points) {
  let low = Infinity, high = -Infinity;
  for (const { value } of points) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const middle = (low + high) / 2;
  const span = Math.max((high - low) * 1.3, LEAST_SPAN * Math.abs(middle)) || 1;
  return [middle - span / 2, middle + span / 2];
}

function ticksOf(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / size) * size; tick <= high; tick += size) ticks.push(tick);
  return ticks;
}

function draw(figure, svg, readout, entry, series, machine) {
  const points = pointsOf(series, machine);
  if (!points.length) {
    readout.textContent = "No run on this machine.";
    return;
  }
  const [low, high] = rangeOf(points);
  const { width, height } = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const first = points[0].row, last = points[points.length - 1].row;
  const x = (row) => LEFT + (last === first ? 0.5 : (row - first) / (last - first)) * (width - LEFT - RIGHT - 6) + 3;
  const y = (value) => TOP + (high - value) / (high - low) * (height - TOP - BOTTOM);
  drawAxes(svg, low, high, y, width, height, runs.created[first], runs.created[last]);
  const machines = unique(points.map((point) => point.machine));
  for (const number of machines) {
    drawLine(svg, points.filter((point) => point.machine === number), number, x, y, height - BOTTOM);
  }
  drawSteps(svg, series, points, x, height, width);
  if (machines.length > 1) figure.append(keyOf(machines));
  readable(figure, svg, readout, entry, points, x, y);
}

function drawAxes(svg, low, high, y, width, height, from, to) {
  for (const tick of ticksOf(low, high)) {
    svg.append(make("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }));
    svg.append(text(written(tick, high - low), { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }));
  }
  svg.append(text(from.slice(0, 10), { x: LEFT, y: height - 6 }));
  svg.append(text(to.slice(0, 10), { x: width - RIGHT, y: height - 6, "text-anchor": "end" }));
}

function drawLine(svg, points, number, x, y, bottom) {
  const colour = `var(--m${number % 6})`;
  const drawn = decimated(points, x);
  const band = drawn.filter((point) => point.low !== null);
  if (band.length > 1) {
    const within = (value) => Math.max(TOP, Math.min(bottom, y(value)));
    const there = band.map((point) => `${x(point.row)},${within(point.high)}`);
    const back = band.map((point) => `${x(point.row)},${within(point.low)}`).reverse();
    svg.append(make("polygon", { points: [...there, ...back].join(" "), fill: colour, opacity: 0.12 }));
  }
  const line = drawn.map((point) => `${x(point.row)},${y(point.value)}`).join(" ");
  svg.append(make("polyline", { points: line, fill: "none", stroke: colour, "stroke-width": 1.4 }));
  if (points.length <= 150) {
    for (const point of points) svg.append(mark(MARKS[number % MARKS.length], x(point.row), y(point.value), colour));
  }
}

// The lowest and the highest point of each pixel column: as many as the eye can tell apart.
function decimated(points, x) {
  const columns = new Map();
  for (const point of points) {
    const column = Math.round(x(point.row));
    const own = columns.get(column);
    if (!own) columns.set(column, [point, point]);
    else if (point.value < own[0].value) own[0] = point;
    else if (point.value > own[1].value) own[1] = point;
  }
  return [...columns.values()].flatMap(([least, most]) =>
    least === most ? [least] : least.row < most.row ? [least, most] : [most, least]);
}

function drawSteps(svg, series, points, x, height, width) {
  const shown = new Set(points.map((point) => point.row));
  const steps = series.steps.filter(([row]) => shown.has(row)).sort(([one], [other]) => one - other);
  let last = -Infinity, level = 0;
  for (const [row, before, after, worse] of steps) {
    level = x(row) - last < 60 ? (level + 1) % 3 : 0;  // labels of near steps stand one below the other
    last = x(row);
    const colour = `var(--m${runs.machine[row] % 6})`;
    svg.append(make("line", { class: "step", style: `stroke:${colour}`, x1: x(row), x2: x(row), y1: TOP, y2: height - BOTTOM }));
    const late = x(row) > width - 70;
    const kind = worse === null ? "" : worse ? " worse" : " better";
    const size = before ? `${signed(100 * (after - before) / Math.abs(before))} %` : `to ${written(after, after)}`;
    svg.append(text(size, {
      class: `step-label${kind}`, x: x(row) + (late ? -3 : 3), y: TOP - 6 + 12 * level, "text-anchor": late ? "end" : "start",
    }));
  }
}

function readable(figure, svg, readout, entry, points, x, y) {
  const here = make("circle", { class: "here", r: 5 });
  let place = points.length - 1;
  const read = (to) => {
    place = Math.max(0, Math.min(points.length - 1, to));
    const point = points[place];
    here.setAttribute("cx", x(point.row));
    here.setAttribute("cy", y(point.value));
    svg.append(here);
    tell(readout, point);
  };
  const nearest = (event) => {
    const at = (event.clientX - svg.getBoundingClientRect().left) / svg.getBoundingClientRect().width
      * svg.viewBox.baseVal.width;
    let best = 0;
    points.forEach((point, number) => {
      if (Math.abs(x(point.row) - at) < Math.abs(x(points[best].row) - at)) best = number;
    });
    read(best);
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${entry.method}, ${entry.words}: ${points.length} runs; arrow keys read them`);
  svg.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: points.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    readout.setAttribute("aria-live", "polite");
    read(to);
  });
  svg.addEventListener("focus", () => read(place));
  tell(readout, points[place]);
}

function tell(readout, point) {
  const interval = point.low === null ? "" : ` (${written(point.low, point.low)} to ${written(point.high, point.high)})`;
  const parts = [
    `${written(point.value, point.value)}${interval}`, runs.created[point.row].slice(0, 16).replace("T", " "),
    `commit ${(runs.commit[point.row] || "unknown").slice(0, 12)}`, runs.machines[point.machine].name,
    runs.verdict[point.row],
  ];
  readout.replaceChildren(parts.join(", "));
  const link = runs.link[point.row];
  if (link && /^https?:\/\//i.test(link)) {
    const anchor = Object.assign(document.createElement("a"), { href: link, textContent: "the run" });
    readout.append(", ", anchor);
  }
}

function keyOf(machines) {
  const key = document.createElement("ul");
  key.className = "key";
  for (const number of machines) {
    const item = document.createElement("li");
    const sample = make("svg", { viewBox: "0 0 12 12", style: "display:inline;width:12px;height:12px;vertical-align:-1px" });
    sample.append(mark(MARKS[number % MARKS.length], 6, 6, `var(--m${number % 6})`, 4));
    item.append(sample, ` ${runs.machines[number].name}`);
    key.append(item);
  }
  return key;
}

// ---- pieces ----

function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function text(content, attributes) {
  const element = make("text", attributes);
  element.textContent = content;
  return element;
}

function mark(shape, x, y, fill, r = 2.4) {
  if (shape === "circle") return make("circle", { cx: x, cy: y, r, fill });
  const corners = {
    square: [[-r, -r], [r, -r], [r, r], [-r, r]], triangle: [[0, -r * 1.2], [r * 1.1, r], [-r * 1.1, r]],
    diamond: [[0, -r * 1.3], [r * 1.3, 0], [0, r * 1.3], [-r * 1.3, 0]],
  }[shape];
  return make("polygon", { points: corners.map(([dx, dy]) => `${x + dx},${y + dy}`).join(" "), fill });
}

// As many digits as tell apart what `span` holds.
function written(value, span) {
  const size = Math.abs(value);
  for (const [factor, prefix] of [[1e12, " T"], [1e9, " G"], [1e6, " M"]]) {
    if (size >= factor) return digits(value / factor, span / factor) + prefix;
  }
  return digits(value, span);
}

function digits(value, span) {
  if (Number.isInteger(value) && Math.abs(value) < 1e6 && Math.abs(span) >= 4) return value.toLocaleString("en");
  const wanted = Math.ceil(-Math.log10(Math.abs(span) || 1)) + (span === value ? 4 : 1);
  return value.toLocaleString("en", { minimumFractionDigits: 0, maximumFractionDigits: Math.max(0, Math.min(12, wanted)) });
}

function signed(value) { return (value > 0 ? "+" : "−") + Math.abs(value).toPrecision(2); }

// ---- begin ----

let drawnAt = innerWidth;
addEventListener("hashchange", showCharts);
addEventListener("resize", () => {
  if (runs && innerWidth !== drawnAt) {  // the height changes as a phone's bars come and go
    drawnAt = innerWidth;
    showCharts();
  }
});
addScript("data/rows.js", () => { fillFilters(); showCharts(); }, () => {
  document.getElementById("count").textContent = "The data could not be read.";
});
