// Routing over text: shade by depth, by one layer or by router weight; two methods stacked; the loss under each token.
"use strict";

(() => {
  function select(label, options, change) {
    const element = benchElement("select", {}, ...options.map(([value, textContent]) => benchElement("option", { value, textContent })));
    element.addEventListener("change", change);
    return { element, label: benchElement("label", { textContent: `${label} ` }, element) };
  }

  // The shade of each token, from 0 to 100, of one layer or, where `layer` is "all", of the mean over layers.
  function shades(own, by, layer) {
    const rows = own.layers.flatMap((each, place) => (layer === "all" || String(each) === layer ? [place] : []));
    const weighted = by === "weight" && own.weights;
    const value = (place, token) => (weighted ? own.weights[place][token] : Number(own.processed[place][token]));
    const values = [...own.processed[0]].map((_, token) => rows.reduce((sum, place) => sum + value(place, token), 0) / (rows.length || 1));
    if (!weighted) return values.map((each) => 100 * each);
    const low = Math.min(...values), high = Math.max(...values);
    return values.map((each) => (high > low ? (100 * (each - low)) / (high - low) : 50));
  }

  function words(own, token, text) {
    const layers = own.layers.map((layer, place) => {
      const weight = own.weights ? ` (${own.ranks} ${benchFormat(own.weights[place][token], "decimal")})` : "";
      return `layer ${layer} ${own.processed[place][token] === "1" ? "processed" : "skipped"}${weight}`;
    });
    const loss = own.nats && own.nats[token] !== null ? `; loss ${benchFormat(own.nats[token], "decimal")} nats` : "";
    return `${own.method}, token ${token + 1} “${text.trim() || "blank"}”: ${layers.join(", ")}${loss}`;
  }

  async function start(widget) {
    const data = await benchData(widget.dataset.source);
    const blocks = [...widget.querySelectorAll(".routed")], readout = widget.querySelector(".readout");
    const names = data.map((own, place) => [String(place), own.method]);
    const layers = [...new Set(data.flatMap((own) => own.layers))].sort((a, b) => a - b);
    const weights = data.some((own) => own.weights), losses = data.some((own) => own.nats);
    const ranks = [...new Set(data.map((own) => own.ranks))].join(" or ");
    const by = select("Shade by", [["depth", "tokens processed"], ...(weights ? [["weight", ranks]] : [])], draw);
    const layer = select("in", [["all", "all layers"], ...layers.map((each) => [String(each), `layer ${each}`])], draw);
    const first = select("Show", names, draw), second = select("above", [["", "no other"], ...names], draw);
    second.element.value = data.length > 1 ? "1" : "";
    const loss = benchElement("input", { type: "checkbox" });
    loss.addEventListener("change", draw);
    const controls = widget.querySelector(".controls");
    controls.append(by.label, layer.label);
    if (data.length > 1) controls.append(first.label, second.label);
    if (losses) controls.append(benchElement("label", {}, loss, " token loss"));

    function draw() {
      const shown = [first.element.value, second.element.value];
      blocks.forEach((block, place) => {
        const own = data[place], tokens = block.querySelector(".passage").children;
        block.hidden = !shown.includes(String(place));
        block.style.order = shown.indexOf(String(place));
        const most = own.nats ? Math.max(...own.nats.filter((each) => each !== null)) : 0;
        block.classList.toggle("losses", loss.checked && most > 0);
        shades(own, by.element.value, layer.element.value).forEach((shade, token) => {
          tokens[token].style.setProperty("--d", shade.toFixed(0));
          if (own.nats) tokens[token].style.setProperty("--n", ((own.nats[token] ?? 0) / (most || 1)).toFixed(2));
        });
      });
    }

    blocks.forEach((block, place) => {
      const passage = block.querySelector(".passage"), tokens = [...passage.children];
      let at = -1;
      const read = (token) => {
        tokens[at]?.classList.remove("at");
        at = token;
        tokens[at].classList.add("at");
        readout.textContent = words(data[place], at, tokens[at].textContent);
      };
      passage.tabIndex = 0;
      passage.setAttribute("role", "group");
      passage.setAttribute("aria-label", `Passage of ${data[place].method}; left and right arrow keys read its tokens`);
      for (const name of ["pointerover", "click"]) {
        passage.addEventListener(name, (event) => { if (event.target !== passage) read(tokens.indexOf(event.target)); });
      }
      passage.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!step) return;
        event.preventDefault();
        read(Math.min(tokens.length - 1, Math.max(0, at + step)));
      });
    });
    controls.hidden = false;
    readout.textContent = "Point at a token, or use the arrow keys, to read what each layer did with it.";
    draw();
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".passages").forEach(start));
})();
