// Reading a chart's points, by pointer or keyboard. What is read outlives a chart that is drawn again.
"use strict";

// `chart`: its elements, and `points` and `scale` as last drawn; `chart.row` is the run being read.
function makeReadable(chart) {
  const { svg, readout } = chart;
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "img");
  const nearest = (event) => {
    if (!chart.points.length) return;
    const at = event.clientX - svg.getBoundingClientRect().left;
    read(chart, closest(chart.points, (point) => chart.scale.x(point.row) - at));
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("keydown", (event) => {
    if (!chart.points.length) return;
    const place = chart.points.findIndex((point) => point.row === chart.row), end = chart.points.length - 1;
    const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: end }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    readout.setAttribute("aria-live", "polite");
    read(chart, chart.points[Math.max(0, Math.min(end, to))]);
  });
}

// After drawing: the point that was read before, or the last one.
function readAgain(chart) {
  chart.svg.setAttribute("aria-label", `${chart.name}: ${chart.points.length} runs; arrow keys read them`);
  chart.here = make("g", { class: "here" });
  chart.svg.append(chart.here);
  read(chart, chart.points.find((point) => point.row === chart.row) || chart.points[chart.points.length - 1]);
}

function read(chart, point) {
  chart.row = point.row;
  const { x, y } = chart.scale;
  chart.here.replaceChildren(make("circle", { cx: x(point.row), cy: y(point.value), r: 5 }));
  if (point.low !== null) chart.here.append(whiskerOf(point, chart.scale));
  tell(chart, point);
}

// The interval as an upright line, with a bar at an end that lies within the chart.
function whiskerOf(point, { x, y, low, high }) {
  const at = x(point.row), top = y(point.high), foot = y(point.low);
  const bar = (end) => `M${at - 4} ${end}h8`;
  const path = `M${at} ${top}V${foot}${point.high <= high ? bar(top) : ""}${point.low >= low ? bar(foot) : ""}`;
  return make("path", { class: "whisker", d: path, style: `stroke:${colourOf(point.machine)}` });
}

function closest(points, distance) {
  let best = points[0];
  for (const point of points) if (Math.abs(distance(point)) < Math.abs(distance(best))) best = point;
  return best;
}

function tell({ readout, scale }, point) {
  const interval = point.low === null ? "" : ` (${written(point.low, point.low)} to ${written(point.high, point.high)})`;
  const parts = [
    `${written(point.value, point.value)}${interval}`, ...(scale.off(point.value) ? ["off the scale"] : []),
    runs.created[point.row].slice(0, 16).replace("T", " "),
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
