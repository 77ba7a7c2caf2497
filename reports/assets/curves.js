// Training curves: axes to switch, drag to zoom, double-click to reset, values at the cursor in a line of text.
// uPlot has the axes, the zoom and the cursor; the lines are drawn here, because each run has steps of its own.
"use strict";

(() => {
  const GRID = 160; // points of a mean, and steps of the arrow keys
  let data, plot, frame, readout, axis = 0, visible = null, highlighted = null, cursor = null;
  const off = new Set(); // methods
  const colour = (value) => (value.startsWith("var(") ? getComputedStyle(document.documentElement).getPropertyValue(value.slice(4, -1)).trim() : value);
  const ink = (name) => colour(`var(--${name})`);
  const shown = () => data.curves.filter((each) => !off.has(each.method) && (!visible || visible.has(each.row)));

  // The loss of a curve at x, between its points; null outside.
  function at(curve, x) {
    const xs = curve.x[axis], last = xs.length - 1;
    if (x < xs[0] || x > xs[last]) return null;
    let low = 0, high = last;
    while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] <= x) low = middle; else high = middle; }
    const before = curve.y[low], after = curve.y[high];
    if (before === null || after === null) return null;
    return xs[high] === xs[low] ? before : before + ((after - before) * (x - xs[low])) / (xs[high] - xs[low]);
  }

  function range(curves) {
    const ends = curves.map((each) => each.x[axis].at(-1));
    const values = curves.flatMap((each) => [...each.y.slice(Math.floor(0.2 * each.y.length)), each.end]).filter(Number.isFinite);
    if (!values.length) return { x: [0, 1], y: [0, 1] };
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    const margin = 0.04 * (high - low) || 0.1;
    return { x: [0, ends.reduce((a, b) => Math.max(a, b)) * 1.01], y: [low - margin, high + margin] };
  }

  function methods(curves) {
    const found = new Map();
    for (const each of curves) found.set(each.method, [...(found.get(each.method) ?? []), each]);
    return found;
  }

  // The mean over the seeds of a method at x; null where one of them has no value.
  function mean(curves, x) {
    const values = curves.map((each) => at(each, x));
    return values.includes(null) ? null : values.reduce((a, b) => a + b) / values.length;
  }

  function line(xs, ys) {
    const { ctx } = plot;
    ctx.beginPath();
    let down = false;
    xs.forEach((x, place) => {
      if (ys[place] === null) { down = false; return; }
      ctx[down ? "lineTo" : "moveTo"](plot.valToPos(x, "x", true), plot.valToPos(ys[place], "y", true));
      down = true;
    });
    ctx.stroke();
  }

  function draw() {
    const { ctx, bbox } = plot, curves = shown(), scale = devicePixelRatio;
    const colours = Object.fromEntries(Object.entries(data.colours).map(([name, value]) => [name, colour(value)]));
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const each of curves) {
      const own = each.row === highlighted;
      ctx.globalAlpha = own ? 1 : highlighted !== null ? 0.2 : curves.length > 60 ? 0.35 : 0.5;
      ctx.lineWidth = (own ? 3 : 1) * scale;
      ctx.strokeStyle = ctx.fillStyle = colours[each.method];
      line(each.x[axis], each.y);
      if (each.end === null) continue;
      ctx.beginPath();
      ctx.arc(plot.valToPos(each.x[axis].at(-1), "x", true), plot.valToPos(each.end, "y", true), 3 * scale, 0, 7);
      ctx.fill();
    }
    ctx.globalAlpha = highlighted === null ? 1 : 0.3;
    ctx.lineWidth = 2 * scale;
    if (data.pooled) {
      const whole = range(curves).x[1], xs = [...Array(GRID).keys()].map((step) => (whole * step) / (GRID - 1));
      for (const [name, own] of methods(curves)) {
        ctx.strokeStyle = colours[name];
        if (own.length > 1) line(xs, xs.map((x) => mean(own, x)));
      }
    }
    ctx.restore();
  }

  function read() {
    const x = cursor, curves = shown();
    if (x === null) { readout.textContent = "Point at the chart, or use the arrow keys, to read values. Drag to zoom; double-click to reset."; return; }
    const where = `${benchFormat(x, "scaled")} ${data.axes[axis].name}`;
    let values;
    if (highlighted === null && data.pooled) {
      values = [...methods(curves)].map(([name, own]) => [name, mean(own, x)]);
    } else {
      const y = plot.cursor.top >= 0 ? plot.posToVal(plot.cursor.top, "y") : 0;
      const near = curves.map((each) => [each, at(each, x)]).filter(([, value]) => value !== null);
      near.sort((a, b) => (b[0].row === highlighted) - (a[0].row === highlighted) || Math.abs(a[1] - y) - Math.abs(b[1] - y));
      values = near.slice(0, 1).map(([each, value]) => [`${data.names[each.row]} (${each.method})`, value]);
    }
    const texts = values.filter(([, value]) => value !== null).map(([name, value]) => `${name} ${benchFormat(value, "decimal")}`);
    readout.textContent = `${where}: ${texts.join(", ") || "no run"}`;
  }

  function create() {
    plot?.destroy();
    const { x, y } = range(shown()), width = frame.clientWidth;
    const look = { stroke: ink("muted"), grid: { stroke: ink("line"), width: 1 }, ticks: { stroke: ink("line") }, font: "12px system-ui, sans-serif", labelFont: "13px system-ui, sans-serif" };
    plot = new uPlot({
      width, height: Math.max(260, Math.min(420, Math.round(width * 0.5))),
      legend: { show: false },
      scales: { x: { time: false, range: (_, low, high) => [low ?? x[0], high ?? x[1]] }, y: { range: () => y } },
      series: [{}, { show: true, paths: () => null, points: { show: false } }],
      axes: [
        { ...look, label: data.axes[axis].label, values: (_, ticks) => ticks.map((tick) => benchFormat(tick, "scaled")), space: 70 },
        { ...look, label: "training loss, nats/token", size: 60 },
      ],
      cursor: { drag: { x: true, y: false }, points: { show: false } },
      hooks: {
        draw: [draw],
        setCursor: [(own) => { cursor = own.cursor.left >= 0 ? own.posToVal(own.cursor.left, "x") : null; read(); }],
      },
    }, [x, [y[0], y[0]]], frame);
  }

  function keys(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const width = plot.over.clientWidth, left = plot.cursor.left >= 0 ? plot.cursor.left : 0;
    plot.setCursor({ left: Math.min(width - 1, Math.max(0, left + (step * width) / GRID)), top: plot.over.clientHeight / 2 });
  }

  function choice() {
    const select = benchElement("select", {}, ...data.axes.map((each, value) => benchElement("option", { value, textContent: each.name })));
    select.addEventListener("change", () => { axis = Number(select.value); create(); });
    return benchElement("label", { textContent: "x axis " }, select);
  }

  function toggle(name) {
    const button = benchElement("button", { type: "button", className: "key", textContent: name });
    button.style.setProperty("--on", data.colours[name]);
    button.setAttribute("aria-pressed", true);
    button.addEventListener("click", () => {
      if (!off.delete(name)) off.add(name);
      button.setAttribute("aria-pressed", !off.has(name));
      plot.redraw();
      read();
    });
    return button;
  }

  document.addEventListener("DOMContentLoaded", async () => {
    const widget = document.getElementById("curve-chart");
    if (!widget) return;
    const [runs, curves] = await Promise.all([benchData("runs-data"), benchData("curves-data")]);
    data = { ...curves, names: runs.values[0], colours: runs.colours };
    const reset = benchElement("button", { type: "button", textContent: "Reset zoom" });
    reset.addEventListener("click", create);
    frame = benchElement("div", { className: "chart", tabIndex: 0 });
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", "Chart of training loss; left and right arrow keys read values");
    frame.addEventListener("keydown", keys);
    readout = benchElement("p", { className: "readout" });
    readout.setAttribute("role", "status");
    const legend = benchElement("div", { className: "controls" }, ...Object.keys(data.colours).map(toggle), choice(), reset);
    widget.append(legend, frame, readout);
    widget.hidden = false;
    for (const plain of document.querySelectorAll("[data-static='curves']")) plain.hidden = true;
    create();
    read();
    document.addEventListener("bench-visible", (event) => { visible = new Set(event.detail); create(); });
    document.addEventListener("bench-highlight", (event) => { highlighted = event.detail; plot.redraw(); read(); });
    new ResizeObserver(() => { if (frame.clientWidth !== plot.width) create(); }).observe(frame);
    new MutationObserver(create).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", create);
  });
})();
