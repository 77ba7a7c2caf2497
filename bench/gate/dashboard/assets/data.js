// The data, read by script tags, which also work on pages opened from a file.
"use strict";

const catalogue = JSON.parse(document.getElementById("catalogue").textContent);
const loaded = new Map();   // number -> promise of a series
const arrivals = new Map(); // number -> who waits for the series
let runs = null;

// ---- called by the data files ----

function benchRows(rows) { runs = rows; }

function benchSeries(number, series) { arrivals.get(number)(series); }

// ---- reading ----

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

// The last points of a series, on one machine or on all; of these, the ones within the rows of `zoomed`.
function pointsOf(series, machine, last, zoomed) {
  const points = series.rows.map((row, place) => ({
    row, value: series.values[place], machine: runs.machine[row],
    low: series.lows ? series.lows[place] : null, high: series.highs ? series.highs[place] : null,
  }));
  const own = machine ? points.filter((point) => runs.machines[point.machine].id === machine) : points;
  const chosen = last === "all" ? own : own.slice(-Number(last));
  return zoomed ? chosen.filter(({ row }) => row >= zoomed[0] && row <= zoomed[1]) : chosen;
}

function unique(values) { return [...new Set(values)]; }
