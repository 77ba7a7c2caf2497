// Dark or light: the system's choice, or the reader's last one. The button names the theme it changes to.
"use strict";

(function () {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("bench-theme"); } catch { return null; } };
  const other = () => ((root.dataset.theme || (system.matches ? "dark" : "light")) === "dark" ? "light" : "dark");
  if (["dark", "light"].includes(stored())) root.dataset.theme = stored();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const name = () => {
      button.textContent = other() === "dark" ? "Dark" : "Light";
      button.setAttribute("aria-label", `${button.textContent}: change to the ${other()} theme`);
    };
    button.addEventListener("click", () => {
      root.dataset.theme = other();
      try { localStorage.setItem("bench-theme", root.dataset.theme); } catch { /* then it is not kept */ }
      name();
    });
    system.addEventListener("change", name);
    name();
    button.hidden = false;
  });
})();
