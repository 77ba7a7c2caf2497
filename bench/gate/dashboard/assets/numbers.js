// Numbers as they are written, and the levels that they stand at.
"use strict";

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

// Two digits, and from 10 upward every whole one.
function signed(value) {
  const size = Math.abs(value);
  return (value > 0 ? "+" : "−") + (size < 10 ? size.toPrecision(2) : Math.round(size).toLocaleString("en"));
}

function ticksOf(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / size) * size; tick <= high; tick += size) ticks.push(tick);
  return ticks;
}

function median(values) { return quantile(values, 0.5); }

// The value below which that share of them lies; between two of them in proportion.
function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  const place = share * (sorted.length - 1), below = Math.floor(place), above = Math.ceil(place);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

// The median of the points around each: noise goes, a step stays where it is.
function runningMedian(values, reach) {
  return values.map((_, place) => median(values.slice(Math.max(0, place - reach), place + reach + 1)));
}

// Whether most neighbours differ: what repeats to the bit needs no median.
function isNoisy(values) {
  let moves = 0;
  for (let place = 1; place < values.length; place++) moves += values[place] !== values[place - 1];
  return moves > values.length / 2;
}
