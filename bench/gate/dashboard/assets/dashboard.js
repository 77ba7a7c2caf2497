// The page of charts: which are shown, each drawn when it comes into view.
"use strict";

const charts = new Map();  // number -> chart, made once, so that its focus and the run being read stay
const AT_ONCE = 24;       // charts on the page; a button adds as many
let shown = state(), wanted = [], room = AT_ONCE;

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
  wanted = fitting(shown);
  room = AT_ONCE;
  for (const chart of charts.values()) chart.zoomed = null;
  byId("count").textContent = counted(wanted.length, fitting(shown, false).length);
  place();
}

function place() {
  byId("charts").replaceChildren(...wanted.slice(0, room).map((number) => chartOf(number).figure));
  byId("more").hidden = wanted.length <= room;
  byId("more").textContent = `Show ${Math.min(AT_ONCE, wanted.length - room)} more of ${wanted.length}`;
  drawShown();
}

byId("more").addEventListener("click", () => {
  const next = room;
  room += AT_ONCE;
  place();
  chartOf(wanted[next]).place.focus();
});

// `fit`: how many match, with those that are listed under another.
function counted(number, fit) {
  if (!number) return "No chart matches these filters.";
  const of = fit === catalogue.length ? "" : `of ${catalogue.length} `, folded = fit - number;
  return `${number} ${of}chart${catalogue.length === 1 ? "" : "s"}${folded ? `, and ${folded} of figures that follow from these` : ""}`;
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
  const heading = document.createElement("h2");
  const method = document.createElement("span");
  method.textContent = `${entry.title}: `;
  heading.append(method, entry.words);
  const place = document.createElement("div");
  place.className = "plot";
  const readout = document.createElement("p");
  readout.className = "readout";
  const chart = { number, figure, place, readout, name: `${entry.title}, ${entry.words}`, points: [], drawn: null, zoomed: null };
  figure.append(heading, place, readout, toolsOf(chart), ...followersOf(chart));
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
  const look = `${shown.machine} ${shown.last} ${chart.zoomed} ${chart.figure.clientWidth} ${css("--ink")}`;
  if (chart.drawn === look) return;
  chart.drawn = look;
  chart.points = pointsOf(series, shown.machine, shown.last, chart.zoomed);
  chart.figure.querySelector(".key")?.remove();
  chart.figure.classList.toggle("empty", !chart.points.length);
  if (!chart.points.length) {
    chart.readout.textContent = "No run on this machine.";
    return;
  }
  draw(chart, series, () => readAgain(chart));
  const key = keyOf(chart);
  if (key.hasChildNodes()) chart.readout.after(key);
}

function drawAgain() { if (runs) drawShown(); }

addEventListener("hashchange", showCharts);
addEventListener("resize", drawAgain);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAgain);
new MutationObserver(drawAgain).observe(document.documentElement, { attributeFilter: ["data-theme"] });  // the button
addScript("data/rows.js", () => { fillFilters(); showCharts(); }, () => {
  byId("count").textContent = "The data could not be read.";
});
