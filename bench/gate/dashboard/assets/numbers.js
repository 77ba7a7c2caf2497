// Numbers in words, and robust statistics of a series.
"use strict";

// With as many digits as a span of this size needs.
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

// The value below which this share of the values lies, interpolated.
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

// The median around each point: noise goes, a step stays where it is.
function runningMedian(values, reach) {
  return values.map((_, place) => quantile(values.slice(Math.max(0, place - reach), place + reach + 1), 0.5));
}

// Whether most neighbours differ: a series that repeats exactly needs no median.
function isNoisy(values) {
  let moves = 0;
  for (let place = 1; place < values.length; place++) moves += values[place] !== values[place - 1];
  return moves > values.length / 2;
}
