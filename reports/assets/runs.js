// The run table: sort, filter, choose columns, pin a run that the others are compared with, download CSV.
// It says which runs are visible and which one is pointed at, as the events bench-visible and bench-highlight.
"use strict";

(() => {
  const FIRST = 100; // rows drawn before the reader asks for all
  let data, count, head, body, status, more, limit = FIRST;
  const state = { sort: 0, down: false, words: [], shown: [], pinned: null };
  const tell = (name, detail) => document.dispatchEvent(new CustomEvent(name, { detail }));
  const isText = (column) => data.columns[column].kind === "text";

  function visible() {
    const texts = data.values.filter((_, column) => isText(column));
    const rows = [...Array(count).keys()].filter((row) => {
      const text = texts.map((values) => values[row]).join(" ").toLowerCase();
      return state.words.every((word) => text.includes(word));
    });
    const values = data.values[state.sort], sign = state.down ? -1 : 1;
    const empty = (row) => values[row] === null || values[row] === "";
    return rows.sort((a, b) => empty(a) - empty(b) || sign * (isText(state.sort)
      ? String(values[a]).localeCompare(String(values[b]), "en", { numeric: true }) : values[a] - values[b]) || a - b);
  }

  function cell(row, column) {
    const { kind } = data.columns[column], value = data.values[column][row];
    const base = state.pinned === null || state.pinned === row ? null : data.values[column][state.pinned];
    const differs = typeof value === "number" && typeof base === "number" && data.columns[column].name !== "seed";
    const text = differs ? benchFormat(value - base, kind, true) : benchFormat(value, kind);
    return benchElement(column ? "td" : "th", { textContent: text, className: isText(column) ? "" : "r n", scope: column ? undefined : "row" });
  }

  function pin(row) {
    const pinned = state.pinned === row;
    const button = benchElement("button", { type: "button", className: "pin", textContent: pinned ? "Unpin" : "Pin" });
    button.setAttribute("aria-pressed", pinned);
    button.setAttribute("aria-label", `${button.textContent} ${data.values[0][row]}`);
    button.addEventListener("click", () => {
      state.pinned = pinned ? null : row;
      draw();
      body.querySelector(`tr[data-row="${row}"] .pin`)?.focus();
    });
    return benchElement("td", {}, button);
  }

  function headCell(column) {
    const button = benchElement("button", { type: "button", textContent: data.columns[column].name });
    button.addEventListener("click", () => {
      Object.assign(state, { down: state.sort === column && !state.down, sort: column });
      draw();
      head.querySelector(`[data-column="${column}"] button`).focus();
    });
    const element = benchElement("th", { scope: "col", className: isText(column) ? "" : "r", dataset: { column } }, button);
    if (state.sort === column) element.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    return element;
  }

  function draw() {
    const rows = visible(), colours = data.colours, methods = data.values[1];
    if (state.pinned !== null) rows.unshift(...rows.splice(rows.indexOf(state.pinned) >>> 0, 1));
    if (state.pinned !== null && rows[0] !== state.pinned) rows.unshift(state.pinned);
    head.replaceChildren(...state.shown.map(headCell), benchElement("th", { scope: "col", textContent: "compare" }));
    body.replaceChildren(...rows.slice(0, limit).map((row) => {
      const line = benchElement("tr", { dataset: { row }, className: row === state.pinned ? "pinned" : "" });
      line.append(...state.shown.map((column) => cell(row, column)), pin(row));
      line.firstChild.style.setProperty("--on", colours[methods[row]]);
      return line;
    }));
    more.hidden = rows.length <= limit;
    more.textContent = `Show all ${rows.length}`;
    const pinned = state.pinned === null ? "" : ` Numbers are differences from ${data.values[0][state.pinned]}.`;
    status.textContent = `${rows.length} of ${count} runs.${pinned}`;
    tell("bench-visible", rows);
  }

  function csv() {
    const quote = (value) => (/[",\n]/.test(value ?? "") ? `"${String(value).replaceAll('"', '""')}"` : value ?? "");
    const lines = visible().map((row) => data.values.map((values) => quote(values[row])).join(","));
    const names = data.columns.map((column) => quote(column.name)).join(",");
    const url = URL.createObjectURL(new Blob([[names, ...lines, ""].join("\n")], { type: "text/csv" }));
    benchElement("a", { href: url, download: "runs.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  function chooser() {
    const boxes = data.columns.map((column, place) => {
      const box = benchElement("input", { type: "checkbox", checked: column.shown, disabled: place === 0 });
      box.addEventListener("change", () => {
        column.shown = box.checked;
        state.shown = data.columns.flatMap((each, number) => (each.shown ? [number] : []));
        draw();
      });
      return benchElement("label", {}, box, ` ${column.name}`);
    });
    return benchElement("details", { className: "columns" }, benchElement("summary", { textContent: "Columns" }), ...boxes);
  }

  function point(event) {
    const line = event.type.endsWith("out") ? null : event.target.closest("tr");
    tell("bench-highlight", line ? Number(line.dataset.row) : null);
  }

  document.addEventListener("DOMContentLoaded", async () => {
    const widget = document.getElementById("run-table");
    if (!widget) return;
    data = await benchData("runs-data");
    count = data.values[0].length;
    state.shown = data.columns.flatMap((column, number) => (column.shown ? [number] : []));
    const filter = benchElement("input", { type: "search", placeholder: "Filter: mod lr=0.004" });
    filter.setAttribute("aria-label", "Filter runs by words in any text column");
    filter.addEventListener("input", () => { state.words = filter.value.toLowerCase().split(/\s+/).filter(Boolean); draw(); });
    const download = benchElement("button", { type: "button", textContent: "Download CSV" });
    download.addEventListener("click", csv);
    status = benchElement("p", { className: "note" });
    status.setAttribute("role", "status");
    head = benchElement("tr");
    body = benchElement("tbody");
    for (const name of ["mouseover", "mouseout", "focusin", "focusout"]) body.addEventListener(name, point);
    more = benchElement("button", { type: "button" });
    more.addEventListener("click", () => { limit = Infinity; draw(); });
    const frame = benchElement("div", { className: "scroll", tabIndex: 0 }, benchElement("table", { className: "runs" }, benchElement("thead", {}, head), body));
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", "Runs");
    widget.append(benchElement("div", { className: "controls" }, filter, download, chooser()), status, frame, more);
    draw();
    for (const plain of document.querySelectorAll("[data-static='runs']")) plain.hidden = true;
    widget.hidden = false;
  });
})();
