// What can be done with a chart besides reading it: zoom, its data as CSV, the commits behind a run.
"use strict";

const ZOOM = 4;  // a step of the buttons and keys shows a quarter of the runs, or four times as many

// `rows`: the first and the last row shown; null for all.
function zoom(chart, rows) {
  chart.zoomed = rows;
  chart.figure.querySelector(".whole").disabled = !rows;
  drawNow(chart);
}

function zoomToPixels(chart, left, right) {
  const rows = [left, right].map((pixel) => chart.plot.posToVal(pixel, "x"));
  zoomToPoints(chart, chart.points.filter(({ row }) => row >= rows[0] && row <= rows[1]));
}

function zoomToPoints(chart, points) {
  if (points.length > 1) zoom(chart, [points[0].row, points[points.length - 1].row]);
}

// To a quarter of the runs, around the one being read.
function zoomIn(chart) {
  const half = Math.max(1, Math.round(chart.points.length / (2 * ZOOM)));
  const at = chart.points.findIndex(({ row }) => row === chart.row);
  zoomToPoints(chart, chart.points.slice(Math.max(0, at - half), at + half + 1));
}

async function zoomOut(chart) {
  if (!chart.zoomed) return;
  const all = pointsOf(await load(chart.number), shown.machine, shown.last, null);
  const at = all.findIndex(({ row }) => row === chart.row), half = Math.ceil(chart.points.length * ZOOM / 2);
  if (2 * half >= all.length) zoom(chart, null);
  else zoomToPoints(chart, all.slice(Math.max(0, at - half), at + half + 1));
}

// Whether the key was one of zooming.
function zoomByKey(chart, key) {
  const act = { "+": zoomIn, "=": zoomIn, "-": zoomOut, "−": zoomOut, 0: (each) => zoom(each, null) }[key];
  act?.(chart);
  return Boolean(act);
}

function toolsOf(chart) {
  const tools = document.createElement("p");
  tools.className = "tools";
  const add = (words, act, name = "") => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: words, className: name });
    button.setAttribute("aria-label", `${words}: ${chart.name}`);
    button.addEventListener("click", act);
    tools.append(button);
    return button;
  };
  add("Zoom in", () => zoomIn(chart));
  add("All runs", () => zoom(chart, null), "whole").disabled = true;
  add("CSV", () => download(chart));
  return tools;
}

function download(chart) {
  const { key, figure } = catalogue[chart.number], cell = (value) => {
    const text = String(value ?? "");
    const inert = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;  // no formula in a spreadsheet
    return /[",\n\r]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
  };
  const lines = [["created", "commit", "subject", "machine", "method", "figure", "value", "low", "high", "verdict"]];
  for (const { row, value, machine, low, high } of chart.points) {
    lines.push([runs.created[row], runs.commit[row], runs.subject[row], runs.machines[machine].name, key, figure, value, low, high, runs.verdict[row]]);
  }
  const text = lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
  const href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  Object.assign(document.createElement("a"), { href, download: `${key} ${figure}.csv`.replace(/[^\w.-]+/g, "_") }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

// A line that opens to the charts of the figures that follow this one.
function followersOf({ number }) {
  const own = catalogue.filter((each) => each.leader === number);
  if (!own.length) return [];
  const details = document.createElement("details"), list = document.createElement("ul");
  const line = `${own.length} figure${own.length === 1 ? " follows" : "s follow"} from it`;
  for (const { key, figure, words } of own) {
    const item = document.createElement("li");
    item.append(linked(`charts.html${addressOf({ ...state(), search: "", changed: false, figure, methods: [key] })}`, words));
    list.append(item);
  }
  details.append(Object.assign(document.createElement("summary"), { textContent: line }), list);
  return [details];
}

function baseOf(row) { return runs.repositories[runs.repository[row]]; }

function commitLink(row) {
  const commit = runs.commit[row];
  return baseOf(row) && /^[0-9a-f]{7,40}$/.test(commit ?? "") ? `${baseOf(row)}/commit/${commit}` : null;
}

// Of what changed from the run of row `before` to that of `row`; null if a commit or the repository is unknown.
function compareLink(before, row) {
  if (before === undefined || !commitLink(before) || !commitLink(row) || runs.commit[before] === runs.commit[row]) return null;
  return `${baseOf(row)}/compare/${runs.commit[before]}...${runs.commit[row]}`;
}

// The words as a link; as text where there is no address.
function linked(href, words) {
  return href ? Object.assign(document.createElement("a"), { href, textContent: words }) : words;
}
