// Dark or light: as the system has it, or as the reader last chose.
"use strict";

(function () {
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("bench-theme"); } catch { return null; } };
  const systemDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  if (stored()) root.dataset.theme = stored();
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const dark = (root.dataset.theme || (systemDark() ? "dark" : "light")) === "dark";
      root.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem("bench-theme", root.dataset.theme); } catch { /* not kept, then */ }
    });
  });
})();
