// The filters, in the address and on the page, and the charts that match them.
"use strict";

const RANGES = ["100", "500", "all"], USUAL_RANGE = "500";

function byId(id) { return document.getElementById(id); }

function state() {
  const given = new URLSearchParams(location.hash.slice(1));
  return {
    search: given.get("search") || "", figure: given.get("figure") || "", machine: given.get("machine") || "",
    methods: given.getAll("method"), changed: (given.get("changed") ?? given.get("moved")) === "1",  // its name in older links
    last: RANGES.includes(given.get("last")) ? given.get("last") : USUAL_RANGE,
  };
}

function addressOf(now) {
  const given = new URLSearchParams();
  for (const key of ["search", "figure", "machine"]) if (now[key]) given.set(key, now[key]);
  for (const method of now.methods) given.append("method", method);
  if (now.changed) given.set("changed", "1");
  if (now.last !== USUAL_RANGE) given.set("last", now.last);
  return `#${given}`;
}

function readFilters() {
  return {
    search: byId("search").value.trim(), figure: byId("figure").value, machine: byId("machine").value,
    methods: [...document.querySelectorAll("#methods input:checked")].map((box) => box.value),
    changed: byId("changed").checked, last: byId("last").value,
  };
}

function fillFilters() {
  const figures = new Map(catalogue.map((each) => [each.figure, each.words]));
  addOption("figure", "", "all figures");
  for (const [figure, words] of figures) addOption("figure", figure, words);
  addOption("machine", "", "all machines");
  for (const machine of runs.machines) addOption("machine", machine.id, machine.name);
  for (const [method, title] of new Map(catalogue.map((each) => [each.key, each.title]))) addMethod(method, title);
  const form = byId("filters");
  form.addEventListener("change", () => { location.hash = addressOf(readFilters()); });
  byId("search").addEventListener("input", () => location.replace(addressOf(readFilters())));  // one step back, not many
  form.addEventListener("submit", (event) => event.preventDefault());
}

function addOption(id, value, words) {
  const option = Object.assign(document.createElement("option"), { value, textContent: words });
  byId(id).append(option);
  return option;
}

function addMethod(value, words) {
  const label = document.createElement("label");
  label.append(Object.assign(document.createElement("input"), { type: "checkbox", value, name: "method" }), words);
  byId("methods").append(label);
  return label;
}

// An unknown value in the address is listed among the choices for as long as the address holds it.
function showFilters(now) {
  for (const stale of document.querySelectorAll("#filters .unknown")) stale.remove();
  for (const id of ["figure", "machine"]) {
    const known = [...byId(id).options].some((option) => option.value === now[id]);
    if (!known) addOption(id, now[id], `unknown: ${now[id]}`).className = "unknown";
    byId(id).value = now[id];
  }
  const boxes = [...document.querySelectorAll("#methods input")];
  for (const method of now.methods) {
    if (!boxes.some((box) => box.value === method)) addMethod(method, `unknown: ${method}`).className = "unknown";
  }
  for (const box of document.querySelectorAll("#methods input")) box.checked = now.methods.includes(box.value);
  if (byId("search").value.trim() !== now.search) byId("search").value = now.search;
  byId("changed").checked = now.changed;
  byId("last").value = now.last;
}

// Numbers of the charts that match: recent change points first, in the order of the overview. A figure that follows
// another whose chart is shown is listed there, unless it was searched for.
function fitting(now, folded = !now.figure && !now.search) {
  if (now.machine && !runs.machines.some((machine) => machine.id === now.machine)) return [];
  const sought = now.search.toLowerCase().split(/\s+/);
  const fits = (each) => (!now.figure || each.figure === now.figure)
    && (!now.methods.length || now.methods.includes(each.key))
    && (!now.changed || each.changed !== null)
    && sought.every((word) => `${each.key} ${each.title} ${each.words} ${each.figure}`.toLowerCase().includes(word));
  const all = [...catalogue.keys()].filter((number) => fits(catalogue[number])), known = new Set(all);
  const found = folded ? all.filter((number) => !known.has(catalogue[number].leader)) : all;
  return found.sort((one, other) => (catalogue[one].changed ?? Infinity) - (catalogue[other].changed ?? Infinity) || one - other);
}
