"use strict";

// Tables: a click on a head sorts by it, a second click turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        return "value" in cell.dataset ? parseFloat(cell.dataset.value) : cell.textContent;
      };
      const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => {
        if (typeof a === "number" && typeof b === "number") {
          if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
          return descending ? b - a : a - b;
        }
        const order = String(a).localeCompare(String(b), "en", { numeric: true });
        return descending ? -order : order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

// Theme: what the system says, until the reader chooses.
const themeButton = document.querySelector(".theme");
if (themeButton) {
  themeButton.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
}

// Strips of images: two rows on a phone, the rest on demand.
for (const list of document.querySelectorAll("ul.strip:not(.ten)")) {
  if (list.closest(".browser") || list.children.length <= 10) continue;
  list.classList.add("folded");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "unfold";
  button.textContent = `show all ${list.children.length}`;
  button.addEventListener("click", () => {
    list.classList.remove("folded");
    list.querySelectorAll("button.tile")[10]?.focus();
    button.remove();
  });
  list.after(button);
}
