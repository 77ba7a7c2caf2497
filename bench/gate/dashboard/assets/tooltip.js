// Reading a chart's points, by mouse, finger or keyboard. The run being read, `chart.row`, survives a redraw.
"use strict";

function makeReadable(chart) {
  const { place, readout } = chart;
  place.setAttribute("tabindex", "0");
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", chart.name);  // until its runs are known
  place.addEventListener("keydown", (event) => {
    if (!chart.points.length) return;
    if (zoomByKey(chart, event.key)) return event.preventDefault();
    const at = chart.points.findIndex((point) => point.row === chart.row), end = chart.points.length - 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: end }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    readout.setAttribute("aria-live", "polite");
    read(chart, chart.points[Math.max(0, Math.min(end, to))]);
  });
}

// After drawing: the point that was read before, or the last one.
function readAgain(chart) {
  chart.place.setAttribute("aria-label", `${chart.name}: ${chart.points.length} runs; read them with the arrow keys`);
  read(chart, chart.points.find((point) => point.row === chart.row) || chart.points[chart.points.length - 1]);
}

function read(chart, point) {
  chart.row = point.row;
  for (const mark of chart.place.querySelectorAll(".here, .whisker")) mark.remove();
  const x = chart.plot.valToPos(point.row, "x");
  put(chart.plot, "here", x, chart.height(point.value));
  if (point.low !== null) drawWhisker(chart, point, x);
  write(chart, point);
}

// The interval as an upright line, with a bar at each end that lies within the chart.
function drawWhisker(chart, point, x) {
  const top = chart.height(point.high), ends = `${chart.off(point.high) ? "" : " top"}${chart.off(point.low) ? "" : " foot"}`;
  const whisker = put(chart.plot, `whisker${ends}`, x, top);
  whisker.style.height = `${chart.height(point.low) - top}px`;
  whisker.style.borderColor = themed(point.machine);
}

function write({ readout, off, points }, point) {
  const interval = point.low === null ? "" : ` (${written(point.low, point.low)} to ${written(point.high, point.high)})`;
  const { row } = point, commit = runs.commit[row] || "unknown", before = beforeOf(points, point);
  readout.replaceChildren([
    `${written(point.value, point.value)}${interval}`, ...(off(point.value) ? ["off the scale"] : []),
    runs.created[row].slice(0, 16).replace("T", " "), "commit ",
  ].join(", "));
  readout.append(linked(commitLink(row), commit.slice(0, 12)), runs.subject[row] ? ` “${runs.subject[row]}”` : "");
  readout.append(`, ${runs.machines[point.machine].name}, ${runs.verdict[row]}`);
  for (const [address, words] of [[runs.link[row], "the run"], [compareLink(before, row), "compare with the run before"]]) {
    if (address && /^https?:\/\//i.test(address)) readout.append(", ", linked(address, words));
  }
  if (runs.notes[row]) readout.append(`. ⚑ ${runs.notes[row]}`);
}

// The row of the same machine's run before; undefined if it is not on the chart.
function beforeOf(points, point) {
  const own = points.filter(({ machine }) => machine === point.machine);
  return own[own.indexOf(point) - 1]?.row;
}
