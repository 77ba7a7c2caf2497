// Numbers as the pages write them, by the name of the function in bench/formats.py.
"use strict";

const benchFormat = (() => {
  const prefixes = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const grouped = (value, digits) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const figures = (value, digits) => String(Number(value.toPrecision(digits)));
  const writers = {
    decimal: (value) => grouped(value, 3),
    count: (value) => grouped(value, 0),
    percent: (value) => `${grouped(100 * value, 1)} %`,
    times: (value) => `${grouped(value, 2)}×`,
    mebibytes: (value) => `${grouped(value / 2 ** 20, 0)} MiB`,
    significant: (value) => figures(value, 3),
    scaled: (value) => {
      const [factor, prefix] = prefixes.find(([each]) => Math.abs(value) >= each) ?? [1, ""];
      return `${figures(value / factor, 4)} ${prefix}`.trim();
    },
    duration: (value) => (Math.abs(value) < 0.1 ? `${figures(1000 * value, 3)} ms` : `${figures(value, 3)} s`),
  };
  // signed: with a plus or a minus, for differences.
  return (value, kind, signed = false) => {
    if (value === null || value === undefined || value === "") return "–";
    if (typeof value !== "number") return value;
    const text = (writers[kind] ?? writers.decimal)(value).replace("-", "−");
    return signed && value >= 0 ? `+${text}` : text;
  };
})();
