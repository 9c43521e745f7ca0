"use strict";

// The image browser: filters, sorting and the dialog with one example's scores and history.
const PAGE_SIZE = 60;
const FIRST_ON_A_PHONE = 10;  // two rows, as strips fold to

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function shortNumber(value) {
  if (value === null) return "–";
  if (value === Infinity) return "∞";
  return Number(value.toPrecision(4)).toString();
}

// A line of one column over epochs, logarithmic where all values allow it.
function historyPlot(name, epochs, values) {
  const points = epochs.map((e, i) => [e, values[i]]).filter(([, v]) => v !== null);
  if (points.length < 2) return "";
  const log = points.every(([, v]) => v > 0);
  const y = (v) => (log ? Math.log10(v) : v);
  const low = Math.min(...points.map(([, v]) => y(v)));
  const high = Math.max(...points.map(([, v]) => y(v)));
  const [first, last] = [points[0][0], points[points.length - 1][0]];
  const place = ([e, v]) => {
    const px = 4 + (232 * (e - first)) / (last - first);
    const py = high === low ? 24 : 44 - (40 * (y(v) - low)) / (high - low);
    return `${px.toFixed(1)},${py.toFixed(1)}`;
  };
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 240 48");
  svg.setAttribute("class", "history");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const [from, to] = [points[0][1], points[points.length - 1][1]].map(shortNumber);
  svg.setAttribute("aria-label", `${name}: ${from} after epoch ${first}, ${to} after epoch ${last}`);
  const line = document.createElementNS(ns, "polyline");
  line.setAttribute("points", points.map(place).join(" "));
  svg.append(line);
  const text = `${name}, epoch ${first} to ${last}: ${from} to ${to}${log ? ", log scale" : ""}`;
  return element("figure", { class: "example-history" }, svg, element("figcaption", {}, text));
}

// Keys as text for other tools. Pages opened from a file may have no clipboard of their own.
async function copyText(button, text) {
  const before = button.textContent;
  const copied = () => {
    const area = element("textarea", { "aria-hidden": "true" });
    area.value = text;
    (button.closest("dialog") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    done = copied();
  }
  button.textContent = done ? "copied" : "the browser refuses";
  setTimeout(() => { button.textContent = before; }, 1500);
}

function setUpBrowser(root) {
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  for (const [column, places] of Object.entries(data.infinite)) {
    for (const place of places) data.columns[column][place] = Infinity;
  }
  const form = root.querySelector("form");
  const list = root.querySelector("ul.strip");
  const status = root.querySelector(".status");
  const more = root.querySelector(".more");
  const className = (label) => data.classes[label] ?? String(label);
  const position = new Map(data.keys.map((key, i) => [key, i]));
  let shown = [];
  let drawn = 0;

  const wrong = (i) => data.predictions !== null && data.predictions[i] >= 0
    && data.predictions[i] !== data.labels[i];

  function tile(i) {
    const label = className(data.labels[i]);
    const said = wrong(i) ? `label ${label}, predicted ${className(data.predictions[i])}` : label;
    const image = element("img", { src: data.images[i], alt: `${data.keys[i]}: class ${said}` });
    const button = element(
      "button",
      { type: "button", class: "tile", "data-key": data.keys[i], title: data.keys[i] },
      image,
      element("span", wrong(i) ? { class: "wrong" } : {}, said),
      element("span", { class: "score" }, shortNumber(data.columns[form.elements.column.value][i])),
    );
    return element("li", {}, button);
  }

  function drawMore() {
    const phone = matchMedia("(max-width: 600px)").matches;
    const size = phone && drawn === 0 ? FIRST_ON_A_PHONE : PAGE_SIZE;
    list.append(...shown.slice(drawn, drawn + size).map(tile));
    drawn = Math.min(drawn + size, shown.length);
    more.hidden = drawn >= shown.length;
    status.textContent = `${shown.length.toLocaleString("en")} match, ${drawn.toLocaleString("en")} shown`;
  }

  function update() {
    const { column, order, label, prediction, wrong: wrongOnly, from, to } = form.elements;
    const values = data.columns[column.value];
    const low = parseFloat(from.value) || 0;
    const high = to.value === "" ? 100 : parseFloat(to.value);
    shown = data.keys.map((_, i) => i).filter((i) => {
      const percentile = (100 * data.ranks[i]) / Math.max(data.total - 1, 1);
      return values[i] !== null
        && (label.value === "" || String(data.labels[i]) === label.value)
        && (!prediction || prediction.value === "" || String(data.predictions[i]) === prediction.value)
        && (!wrongOnly || !wrongOnly.checked || wrong(i))
        && percentile >= low && percentile <= high;
    });
    const sign = order.value === "hard" ? -1 : 1;
    // Equal values (also two infinite ones) keep the order of the page's own score.
    shown.sort((a, b) => (values[a] === values[b]
      ? -sign * (data.ranks[a] - data.ranks[b])
      : sign * (values[a] < values[b] ? -1 : 1)));
    list.replaceChildren();
    drawn = 0;
    drawMore();
  }

  const dialog = element("dialog", { class: "example" });
  root.append(dialog);
  let current = -1;

  function open(i) {
    current = i;
    const history = data.history[data.keys[i]];
    const rows = Object.entries(data.columns).map(([name, values]) => element(
      "tr", {}, element("th", { scope: "row" }, name), element("td", { class: "num" }, shortNumber(values[i])),
    ));
    const facts = [
      `class ${className(data.labels[i])}`,
      ...(data.predictions === null || data.predictions[i] < 0
        ? [] : [`predicted ${className(data.predictions[i])}`]),
      `rank ${(data.ranks[i] + 1).toLocaleString("en")} of ${data.total.toLocaleString("en")} by ${data.column}`,
      `in ${data.shards[i]}`,
    ];
    const copy = element("button", { type: "button", class: "copy" }, "copy the key");
    copy.addEventListener("click", () => copyText(copy, data.keys[i]));
    const close = element("button", { type: "button", class: "close", "aria-label": "close" }, "×");
    close.addEventListener("click", () => dialog.close());
    const previous = element("button", { type: "button" }, "← previous");
    const next = element("button", { type: "button" }, "next →");
    previous.addEventListener("click", () => step(-1));
    next.addEventListener("click", () => step(1));
    dialog.replaceChildren(
      close,
      element("h3", {}, data.keys[i], " ", copy),
      element("div", { class: "example-body" },
        element("img", {
          src: data.images[i],
          alt: `${data.keys[i]}: class ${className(data.labels[i])}`,
          ...(data.small ? { class: "pixels" } : {}),
        }),
        element("div", {},
          element("p", {}, facts.join(", ")),
          element("table", {}, element("tbody", {}, ...rows)))),
      ...membership(i),
      ...(history
        ? Object.entries(history).filter(([name]) => name !== "epochs")
          .map(([name, values]) => historyPlot(name, history.epochs, values))
        : []),
      element("p", { class: "steps" }, previous, next),
    );
    dialog.setAttribute("aria-label", `Example ${data.keys[i]}`);
    if (!dialog.open) dialog.showModal();
  }

  // Which subsets hold an example: a row a method, and of how many of its draws at each share.
  function membership(i) {
    if (!data.members.length) return [];
    const held = data.members[i];
    const methods = [...new Set(data.subsets.map(([method]) => method))];
    const rows = methods.map((method) => {
      const parts = data.subsets.flatMap(([of, share, draws], j) => (of !== method || !held[j] ? []
        : [held[j] === draws ? share : `${share} (${held[j]} of ${draws} draws)`]));
      return element("tr", {}, element("th", { scope: "row" }, method),
        element("td", { class: "wrap" }, parts.length ? parts.join(", ") : "in none"));
    });
    return [element("h4", {}, "Subsets that hold it"),
      element("table", { class: "members" }, element("tbody", {}, ...rows))];
  }

  function step(by) {
    const at = shown.indexOf(current);
    const target = shown[(at < 0 ? 0 : at + by + shown.length) % shown.length];
    if (target !== undefined) open(target);
  }

  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  const copyAll = root.querySelector(".copy");
  copyAll.hidden = false;
  copyAll.addEventListener("click", () => copyText(copyAll, shown.map((i) => data.keys[i]).join("\n")));
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", drawMore);
  // The tiles of the run's figures open the same dialog.
  (root.closest("article") ?? document).addEventListener("click", (event) => {
    const button = event.target.closest("button.tile");
    const i = button ? position.get(button.dataset.key) : undefined;
    if (i !== undefined) open(i);
  });
  update();
}

for (const root of document.querySelectorAll(".browser")) setUpBrowser(root);
