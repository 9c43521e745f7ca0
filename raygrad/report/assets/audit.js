"use strict";

// The audit's lists: filters, tiles, and what is shown copied as text for other tools.
window.addEventListener("DOMContentLoaded", () => {
  const TILES = 120;
  for (const root of document.querySelectorAll(".audit")) {
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const form = root.querySelector("form");
    const list = root.querySelector("ul.strip");
    const status = root.querySelector(".status");
    const more = root.querySelector(".more");
    let shown = [];
    let drawn = 0;

    const tile = ([key, file, split, label, suggested, note, picture]) => {
      const node = document.createElement("li");
      const body = document.createElement("div");
      body.className = "tile";
      body.title = `${file} (${split})`;
      if (picture >= 0) {
        const image = document.createElement("img");
        image.src = data.images[picture];
        image.alt = `${key}: labelled ${label}`;
        body.append(image);
      }
      const first = document.createElement("span");
      first.textContent = label;
      const second = document.createElement("span");
      second.textContent = note;
      second.className = form.elements.list.value === "suspects" ? "wrong" : "score";
      const third = document.createElement("span");
      third.textContent = key;
      third.className = "score";
      body.append(first, second, third);
      node.append(body);
      return node;
    };

    const drawMore = () => {
      list.append(...shown.slice(drawn, drawn + TILES).map(tile));
      drawn = Math.min(drawn + TILES, shown.length);
      more.hidden = drawn >= shown.length;
    };

    const update = () => {
      const { list: chosen, label, suggested, split, text } = form.elements;
      const view = data.views[chosen.value];
      const part = text.value.trim().toLowerCase();
      shown = view ? view.rows.filter((row) => (label.value === "" || row[3] === label.value)
        && (suggested.value === "" || row[4] === suggested.value)
        && (split.value === "" || row[2] === split.value)
        && (part === "" || `${row[0]} ${row[1]}`.toLowerCase().includes(part))) : [];
      list.replaceChildren();
      drawn = 0;
      drawMore();
      const all = view ? view.total : 0;
      const here = view ? view.rows.length : 0;
      status.textContent = `${shown.length.toLocaleString("en")} of ${here.toLocaleString("en")} match`
        + (here < all ? `; ${all.toLocaleString("en")} are in the table` : "");
    };

    for (const button of root.querySelectorAll(".copy")) {
      const column = button.dataset.copies === "file" ? 1 : 0;
      button.addEventListener("click", () => copyText(button, shown.map((row) => row[column]).join("\n")));
    }
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", drawMore);
    update();
  }
});
