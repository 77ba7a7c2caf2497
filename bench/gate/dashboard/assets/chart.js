// One chart: axes, a line a machine with its band or its running median, and steps.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 62, RIGHT = 10, TOP = 18, BOTTOM = 24;
const LEAST_SPAN = 0.01;  // of the value: a change of half a percent fills half the height
const AROUND = 2;         // runs on either side, with whose median a run is compared
const FAR = 3, NEAR = 0.02;  // interquartile ranges of the noise, share of the level: beyond both is off the scale
const MARKS = ["circle", "square", "triangle", "diamond"];
const MARKED = 150;       // points of one machine, beyond which single ones are not marked

// Draws into `svg`, in the place of what it held; returns where things are.
function draw(svg, series, points) {
  const { width, height } = svg.getBoundingClientRect();
  const first = points[0].row, last = points[points.length - 1].row;
  const machines = unique(points.map((point) => point.machine));
  const own = new Map(machines.map((number) => [number, points.filter((point) => point.machine === number)]));
  const [low, high] = rangeOf([...own.values()].map(valuesOf));
  const scale = {
    width, height, low, high, bottom: height - BOTTOM,
    off: (value) => value < low || value > high,
    x: (row) => LEFT + (last === first ? 0.5 : (row - first) / (last - first)) * (width - LEFT - RIGHT - 6) + 3,
    y: (value) => TOP + (high - Math.max(low, Math.min(high, value))) / (high - low) * (height - TOP - BOTTOM),
  };
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawAxes(svg, scale, runs.created[first], runs.created[last]);
  const crowded = machines.filter((number) => isCrowded(own.get(number)));
  for (const number of machines) drawPoints(svg, own.get(number), number, crowded.includes(number), scale);
  for (const number of crowded) drawLevel(svg, own.get(number), number, scale);  // above every machine's noise
  drawOff(svg, points, scale);
  drawSteps(svg, series, points, scale);
  return scale;
}

function valuesOf(points) { return points.map((point) => point.value); }

function rangeOf(machines) {
  const [low, high] = extent(machines.flatMap(endsOf));
  const middle = (low + high) / 2;
  const span = Math.max((high - low) * 1.3, LEAST_SPAN * Math.abs(middle)) || 1;
  return [middle - span / 2, middle + span / 2];
}

// The least and the greatest of a machine's values, but for single runs far from those around them: they would press
// flat what is looked for. So would intervals, which do not count.
function endsOf(values) {
  const levels = runningMedian(values, AROUND), [least, most] = extent(levels);
  const apart = values.map((value, place) => value - levels[place]);
  const noise = FAR * (quantile(apart, 0.75) - quantile(apart, 0.25));
  const reach = Math.max(noise, NEAR * Math.max(Math.abs(least), Math.abs(most))) || Infinity;
  return extent([...levels, ...values.filter((value) => value >= least - reach && value <= most + reach)]);
}

function drawAxes(svg, { x, y, low, high, width, height }, from, to) {
  for (const tick of ticksOf(low, high)) {
    svg.append(make("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }));
    svg.append(text(written(tick, high - low), { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }));
  }
  svg.append(text(from.slice(0, 10), { x: LEFT, y: height - 6 }));
  svg.append(text(to.slice(0, 10), { x: width - RIGHT, y: height - 6, "text-anchor": "end" }));
}

// Noisy points too many to tell apart: their level is what can be seen. What repeats to the bit shows it as it is.
function isCrowded(points) { return points.length > MARKED && isNoisy(valuesOf(points)); }

function drawPoints(svg, points, number, crowded, scale) {
  const { x, y } = scale;
  const colour = colourOf(number);
  if (!crowded) drawBand(svg, points, colour, scale);
  svg.append(lineOf(points, colour, scale, crowded ? { class: "faint" } : { "stroke-width": 1.4 }));
  if (points.length <= MARKED) {
    const marked = points.filter((point) => !scale.off(point.value));
    for (const point of marked) svg.append(mark(markOf(number), x(point.row), y(point.value), colour));
  }
}

function drawOff(svg, points, { x, y, high, off }) {
  for (const point of points.filter((point) => off(point.value))) {
    svg.append(arrow(point.value > high, x(point.row), y(point.value), colourOf(point.machine)));
  }
}

function drawLevel(svg, points, number, scale) {
  const levels = runningMedian(valuesOf(points), Math.max(5, Math.round(points.length / 60)));
  const level = points.map((point, place) => ({ row: point.row, value: levels[place] }));
  svg.append(lineOf(level, colourOf(number), scale, { class: "level" }));
}

function lineOf(points, stroke, { x, y }, more) {
  const drawn = decimated(points, x).map((point) => `${x(point.row)},${y(point.value)}`);
  return make("polyline", { points: drawn.join(" "), fill: "none", stroke, ...more });
}

// A band wider than the chart would say nothing, and three of them hide the lines.
function drawBand(svg, points, colour, { x, y, low, high }) {
  const banded = points.filter((point) => point.low !== null);
  if (banded.length < 2 || median(banded.map((point) => point.high - point.low)) > high - low) return;
  const drawn = decimated(banded, x);
  const there = drawn.map((point) => `${x(point.row)},${y(point.high)}`);
  const back = drawn.map((point) => `${x(point.row)},${y(point.low)}`).reverse();
  svg.append(make("polygon", { class: "band", points: [...there, ...back].join(" "), fill: colour, opacity: 0.12 }));
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

// A step that several machines took close together is told once; other labels of near steps stand one below the other.
function drawSteps(svg, series, points, { x, width, bottom }) {
  const shown = new Set(points.map((point) => point.row));
  const steps = series.steps.filter(([row]) => shown.has(row)).sort(([one], [other]) => one - other);
  let last = -Infinity, level = 0, told = new Set();
  for (const [row, before, after, worse] of steps) {
    const colour = colourOf(runs.machine[row]);
    svg.append(make("line", { class: "step", style: `stroke:${colour}`, x1: x(row), x2: x(row), y1: TOP, y2: bottom }));
    const size = before ? `${signed(100 * (after - before) / Math.abs(before))} %` : `to ${written(after, after)}`;
    const near = x(row) - last < 60;
    if (!near) told = new Set();
    if (told.has(size)) continue;
    told.add(size);
    level = near ? (level + 1) % 3 : 0;
    last = x(row);
    const late = x(row) > width - 70;
    const kind = worse === null ? "" : worse ? " worse" : " better";
    svg.append(text(size, {
      class: `step-label${kind}`, x: x(row) + (late ? -3 : 3), y: TOP - 6 + 12 * level, "text-anchor": late ? "end" : "start",
    }));
  }
}

// Which machine is which, where there are several; and how many runs are off the scale, where any is.
function keyOf(points, scale) {
  const machines = unique(points.map((point) => point.machine));
  const off = points.filter((point) => scale.off(point.value)).length;
  const key = document.createElement("ul");
  key.className = "key";
  for (const number of machines.length > 1 ? machines : []) {
    key.append(keyItem(mark(markOf(number), 6, 6, colourOf(number), 4), runs.machines[number].name));
  }
  if (off) key.append(keyItem(arrow(true, 6, 6, "var(--muted)"), `off the scale: ${off} run${off === 1 ? "" : "s"}`));
  return key;
}

function keyItem(sample, words) {
  const item = document.createElement("li");
  const holder = make("svg", { viewBox: "0 0 12 12", style: "display:inline;width:12px;height:12px;vertical-align:-1px" });
  holder.append(sample);
  item.append(holder, ` ${words}`);
  return item;
}

// ---- pieces ----

function colourOf(machine) { return `var(--m${machine % 6})`; }

function markOf(machine) { return MARKS[machine % MARKS.length]; }

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

// At the edge, pointing to where the value is.
function arrow(up, x, y, stroke) {
  const tip = up ? -4 : 4;
  return make("polygon", { class: "off", points: `${x},${y + tip} ${x + 5},${y - tip} ${x - 5},${y - tip}`, stroke });
}
