// The page of charts: which are shown, each drawn when it comes into view.
"use strict";

const charts = new Map();  // number -> chart, made once, so that its focus and the run being read stay
let shown = state();

const viewed = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      viewed.unobserve(entry.target);
      drawNow(charts.get(Number(entry.target.dataset.number)));
    }
  }
}, { rootMargin: "400px" });

function showCharts() {
  shown = state();
  showFilters(shown);
  const wanted = fitting(shown);
  byId("charts").replaceChildren(...wanted.map((number) => chartOf(number).figure));
  byId("count").textContent = counted(wanted.length);
  drawShown();
}

function counted(number) {
  if (!number) return "No chart matches these filters.";
  const of = number === catalogue.length ? "" : `of ${catalogue.length} `;
  return `${number} ${of}chart${catalogue.length === 1 ? "" : "s"}`;
}

// Charts in view are drawn at once, the others when they come into view.
function drawShown() {
  viewed.disconnect();
  for (const figure of byId("charts").children) viewed.observe(figure);
}

function chartOf(number) {
  if (charts.has(number)) return charts.get(number);
  const entry = catalogue[number];
  const figure = document.createElement("figure");
  figure.className = "chart";
  figure.dataset.number = number;
  const heading = document.createElement("h3");
  const method = document.createElement("span");
  method.textContent = `${entry.title}: `;
  heading.append(method, entry.words);
  const place = document.createElement("div");
  place.className = "plot";
  const readout = document.createElement("p");
  readout.className = "readout";
  figure.append(heading, place, readout);
  const chart = { number, figure, place, readout, name: `${entry.title}, ${entry.words}`, points: [], drawn: null };
  makeReadable(chart);
  charts.set(number, chart);
  return chart;
}

async function drawNow(chart) {
  let series;
  try {
    series = await load(chart.number);
  } catch {
    chart.readout.textContent = "The data of this chart could not be read.";
    return;
  }
  const wanted = `${shown.machine} ${shown.last} ${chart.figure.clientWidth} ${css("--ink")}`;
  if (chart.drawn === wanted) return;
  chart.drawn = wanted;
  chart.points = pointsOf(series, shown.machine, shown.last);
  chart.figure.querySelector(".key")?.remove();
  chart.figure.classList.toggle("empty", !chart.points.length);
  if (!chart.points.length) {
    chart.readout.textContent = "No run on this machine.";
    return;
  }
  draw(chart, series, () => readAgain(chart));
  const key = keyOf(chart);
  if (key.hasChildNodes()) chart.figure.append(key);
}

function drawAgain() { if (runs) drawShown(); }

addEventListener("hashchange", showCharts);
addEventListener("resize", drawAgain);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAgain);
new MutationObserver(drawAgain).observe(document.documentElement, { attributeFilter: ["data-theme"] });  // the button
addScript("data/rows.js", () => { fillFilters(); showCharts(); }, () => {
  byId("count").textContent = "The data could not be read.";
});
