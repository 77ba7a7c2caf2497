// One chart, drawn by uPlot: a line per machine with its band or running median, and the change points.
"use strict";

const HEIGHT = 200, AXIS = 62, TOP = 18;
const LEAST_SPAN = 0.01;  // of the value: a change of half a percent fills half the height
const AROUND = 2;         // runs on either side, with whose median a run is compared
const FAR = 3, NEAR = 0.02;  // interquartile ranges of the noise, share of the level: beyond both is off the scale
const MARKS = 40;         // at most, on the line of a machine
const DRAGGED = 8;        // pixels: less is a click
const CROWDED = 150;      // points of one machine, beyond which noisy ones are drawn faint
const SHAPES = [
  (path, x, y, r) => { path.moveTo(x + r, y); path.arc(x, y, r, 0, 2 * Math.PI); },
  ...[[[-1, -1], [1, -1], [1, 1], [-1, 1]], [[0, -1.2], [1.1, 1], [-1.1, 1]], [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]]]
    .map((corners) => (path, x, y, r) => {
      corners.forEach(([dx, dy], place) => path[place ? "lineTo" : "moveTo"](x + r * dx, y + r * dy));
      path.closePath();
    }),
];
const GLYPHS = ["●", "■", "▲", "◆"];  // the same shapes, for the key

// Draws `chart.points` into `chart.place`. `ready(plot)` is called once positions are known.
function draw(chart, series, ready) {
  chart.plot?.destroy();
  const { points } = chart, rows = points.map((point) => point.row);
  const machines = unique(points.map((point) => point.machine));
  const own = new Map(machines.map((number) => [number, points.filter((point) => point.machine === number)]));
  const [low, high] = rangeOf([...own.values()].map(valuesOf));
  chart.off = (value) => value < low || value > high;
  chart.height = (value) => chart.plot.valToPos(Math.max(low, Math.min(high, value)), "y");

  const columns = [rows], lines = [{}], bands = [];
  const add = (number, value, line) => {
    const inside = (point) => Math.max(low, Math.min(high, value(point)));
    columns.push(points.map((point) => (point.machine === number && value(point) !== null ? inside(point) : null)));
    lines.push({ machine: number, stroke: () => colourOf(number), spanGaps: true, points: { show: false }, ...line });
    return lines.length - 1;
  };
  const crowded = machines.filter((number) => isCrowded(own.get(number)));
  for (const number of machines) {
    if (!crowded.includes(number) && isBanded(own.get(number), high - low)) {
      const ends = [(point) => point.high, (point) => point.low].map((end) => add(number, end, { width: 0 }));
      bands.push({ series: ends, fill: () => `${colourOf(number)}20` });
    }
    const marks = { show: true, size: 5, width: 0, fill: () => colourOf(number), paths: marksOf(own.get(number), number, chart) };
    add(number, (point) => point.value, crowded.includes(number) ? { class: "faint", width: 1, alpha: 0.25 } : { width: 1.4, points: marks });
  }
  for (const number of crowded) {  // above every machine's noise
    const levels = levelOf(own.get(number));
    add(number, (point) => levels.get(point.row), { class: "level", width: 2 });
  }
  chart.plot = new uPlot({
    width: chart.place.clientWidth, height: HEIGHT, padding: [TOP, 10, 0, 0], series: lines, bands,
    legend: { show: false }, axes: axesOf(high - low),
    scales: { x: { time: false, range: [rows[0] - 0.5, rows[rows.length - 1] + 0.5] }, y: { range: [low, high] } },
    cursor: {
      x: false, y: false, points: { show: false }, drag: { x: true, y: false, setScale: false },
      bind: { mouseleave: () => null, dblclick: () => () => zoom(chart, null) },  // what was read last stays
    },
    hooks: {
      ready: [(plot) => { drawOff(chart, plot); drawSteps(series, points, plot); drawNotes(points, plot); ready(plot); }],
      setSelect: [({ select }) => { if (select.width >= DRAGGED) zoomToPixels(chart, select.left, select.left + select.width); }],
      setCursor: [({ cursor }) => { if (cursor.idx !== null) read(chart, points[cursor.idx]); }],
    },
  }, columns, chart.place);
  chart.plot.over.addEventListener("pointermove", (event) => {  // uPlot follows the mouse alone
    if (event.pointerType !== "mouse") chart.plot.setCursor({ left: event.offsetX, top: event.offsetY });
  });
}

function valuesOf(points) { return points.map((point) => point.value); }

function rangeOf(machines) {
  const [low, high] = extent(machines.flatMap(endsOf));
  const middle = (low + high) / 2;
  const span = Math.max((high - low) * 1.3, LEAST_SPAN * Math.abs(middle)) || 1;
  return [middle - span / 2, middle + span / 2];
}

// The least and the greatest of a machine's values, except single runs far from those around them, which would flatten
// everything else. Intervals do not count either.
function endsOf(values) {
  const levels = runningMedian(values, AROUND), [least, most] = extent(levels);
  const apart = values.map((value, place) => value - levels[place]);
  const noise = FAR * (quantile(apart, 0.75) - quantile(apart, 0.25));
  const reach = Math.max(noise, NEAR * Math.max(Math.abs(least), Math.abs(most))) || Infinity;
  return extent([...levels, ...values.filter((value) => value >= least - reach && value <= most + reach)]);
}

function axesOf(span) {
  const axis = { stroke: () => css("--muted"), font: "11px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: () => css("--line"), width: 1 };
  const date = ({ scales: { x } }, row) => (row < x.max - 0.08 * (x.max - x.min) ? (runs.created[row] ?? "").slice(0, 10) : "");
  return [
    { ...axis, grid: { show: false }, size: 24, gap: 4, space: 90, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 1e4, 1e5],
      values: (plot, splits) => splits.map((row) => date(plot, row)) },
    { ...axis, grid, size: AXIS, gap: 6, space: 34, values: (_, splits) => splits.map((tick) => written(tick, span)) },
  ];
}

// Too many noisy points to distinguish: their level is what can be seen. Points that repeat exactly need no median.
function isCrowded(points) { return points.length > CROWDED && isNoisy(valuesOf(points)); }

// A band wider than the chart would say nothing, and three of them hide the lines.
function isBanded(points, span) {
  const widths = points.filter((point) => point.low !== null).map((point) => point.high - point.low);
  return widths.length > 1 && quantile(widths, 0.5) <= span;
}

function levelOf(points) {
  const levels = runningMedian(valuesOf(points), Math.max(5, Math.round(points.length / 60)));
  return new Map(points.map((point, place) => [point.row, levels[place]]));
}

// A path for uPlot with the machine's shape at the points on the scale, or at some of many.
function marksOf(points, number, chart) {
  const every = Math.ceil(points.length / MARKS), shape = SHAPES[number % SHAPES.length];
  const marked = points.filter((point, place) => place % every === 0 && !chart.off(point.value));
  return (plot) => {
    const fill = new Path2D();
    for (const { row, value } of marked) {
      shape(fill, plot.valToPos(row, "x", true), plot.valToPos(value, "y", true), 2.4 * devicePixelRatio);
    }
    return { fill, stroke: null, flags: 0 };
  };
}

function drawOff(chart, plot) {
  for (const point of chart.points.filter((each) => chart.off(each.value))) {
    const glyph = point.value > plot.scales.y.max ? "△" : "▽";
    put(plot, "off", plot.valToPos(point.row, "x"), chart.height(point.value), glyph).style.color = themed(point.machine);
  }
}

// A step that several machines took close together is labelled once; other labels of near steps are stacked.
function drawSteps(series, points, plot) {
  const shown = new Set(points.map((point) => point.row)), width = plot.over.clientWidth;
  const steps = series.steps.filter(([row]) => shown.has(row)).sort(([one], [other]) => one - other);
  let last = -Infinity, level = 0, labelled = new Set();
  for (const [row, before, after, worse] of steps) {
    const x = plot.valToPos(row, "x"), near = x - last < 60;
    put(plot, "step", x, 0).style.borderColor = themed(runs.machine[row]);
    const size = before ? `${signed(100 * (after - before) / Math.abs(before))} %` : `to ${written(after, after)}`;
    if (!near) labelled = new Set();
    if (labelled.has(size)) continue;
    labelled.add(size);
    level = near ? (level + 1) % 3 : 0;
    last = x;
    const kind = worse === null ? "" : worse ? " worse" : " better";
    put(plot, `step-label${kind}${x > width - 60 ? " late" : ""}`, x, 12 * level - TOP, size);
  }
}

function drawNotes(points, plot) {
  for (const { row } of points.filter((each) => runs.notes[each.row])) put(plot, "flag", plot.valToPos(row, "x"), HEIGHT - 24 - TOP - 10, "⚑");
}

// An element over the plot, at pixels from its top left corner.
function put(plot, name, x, y, words = "") {
  const element = Object.assign(document.createElement("span"), { className: name, textContent: words });
  Object.assign(element.style, { left: `${x}px`, top: `${y}px` });
  plot.over.append(element);
  return element;
}

// Which machine is which, where there are several; and how many runs are off the scale, where any is.
function keyOf({ points, off }) {
  const machines = unique(points.map((point) => point.machine));
  const far = points.filter((point) => off(point.value)).length;
  const key = document.createElement("ul");
  key.className = "key";
  const add = (glyph, colour, textContent) => {
    const item = Object.assign(document.createElement("li"), { textContent });
    item.dataset.glyph = glyph;
    item.style.setProperty("--colour", colour);
    key.append(item);
  };
  for (const number of machines.length > 1 ? machines : []) {
    add(GLYPHS[number % GLYPHS.length], themed(number), runs.machines[number].name);
  }
  if (far) add("△", "var(--muted)", `off the scale: ${far} run${far === 1 ? "" : "s"}`);
  return key;
}

// The colour of a machine: for elements, which follow the theme, and as it is now, for the canvas.
function themed(machine) { return `var(--m${machine % 6})`; }

function colourOf(machine) { return css(`--m${machine % 6}`); }

function css(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
