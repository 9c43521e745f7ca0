"use strict";

// The audit's lists: filters, tiles that can be chosen, and what is chosen or shown copied as text.
window.addEventListener("DOMContentLoaded", () => {
  const TILES = 120;
  for (const root of document.querySelectorAll(".audit")) {
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const form = root.querySelector("form");
    const list = root.querySelector("ul.strip");
    const status = root.querySelector(".status");
    const more = root.querySelector(".more");
    const chosen = new Map();
    const clear = root.querySelector(".clear");
    let shown = [];
    let drawn = 0;
    let said = "";

    const tell = () => {
      const number = chosen.size;
      status.textContent = said + (number ? `; ${number.toLocaleString("en")} chosen, which is what is copied` : "");
      clear.hidden = number === 0;
    };

    const tile = (row) => {
      const [key, file, split, label, , note, picture, group] = row;
      const node = document.createElement("li");
      const body = document.createElement("button");
      body.type = "button";
      body.className = group % 2 ? "tile band" : "tile";
      body.title = `${file} (${split})`;
      body.setAttribute("aria-pressed", chosen.has(key));
      body.addEventListener("click", () => {
        if (!chosen.delete(key)) chosen.set(key, row);
        body.setAttribute("aria-pressed", chosen.has(key));
        tell();
      });
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
      const { list: named, label, suggested, split, text } = form.elements;
      const view = data.views[named.value];
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
      said = `${shown.length.toLocaleString("en")} of ${here.toLocaleString("en")} match`
        + (here < all ? `; ${all.toLocaleString("en")} are in the table` : "");
      tell();
    };

    const quoted = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    const texts = {
      key: (rows) => rows.map((row) => row[0]),
      file: (rows) => rows.map((row) => row[1]),
      labels: (rows) => ["key,file,label,suggested",
        ...rows.map((row) => [row[0], row[1], row[3], row[4]].map(quoted).join(","))],
    };
    for (const button of root.querySelectorAll(".copy[data-copies]")) {
      button.addEventListener("click", () => {
        const rows = chosen.size ? [...chosen.values()] : shown;
        copyText(button, texts[button.dataset.copies](rows).join("\n"));
      });
    }
    clear.addEventListener("click", () => {
      chosen.clear();
      for (const one of list.querySelectorAll("[aria-pressed]")) one.setAttribute("aria-pressed", "false");
      tell();
    });
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", drawMore);
    update();
  }
});
