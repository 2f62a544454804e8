"use strict";
// Elements and numbers. Data reach the page through text nodes and attributes only, never as markup.
const NEAS = {};
(function (N) {
  const SVG = "http://www.w3.org/2000/svg";

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
    }
    for (const child of children.flat(Infinity)) {
      if (child === null || child === undefined || child === false) continue;
      node.append(child instanceof Node ? child : document.createTextNode(String(child)));
    }
    return node;
  }

  N.el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  N.svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  N.clear = (node) => {
    node.replaceChildren();
    return node;
  };

  N.integer = (value) => String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  N.count = function (value) {
    for (const [unit, size] of [
      ["G", 1e9],
      ["M", 1e6],
      ["k", 1e3],
    ]) {
      if (Math.abs(value) >= size) return `${(value / size).toFixed(2)} ${unit}`;
    }
    return String(value);
  };
  N.percent = (value, digits = 2) => `${(100 * value).toFixed(digits)} %`;
  N.duration = function (seconds) {
    const minutes = Math.floor(seconds / 60);
    if (seconds < 60) return `${seconds.toFixed(1)} s`;
    return minutes < 60
      ? `${minutes} min`
      : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  };
  N.shape = (size) => `${size[0]}×${size[1]}×${size[2]}`;
  N.plural = (count, word) => `${N.integer(count)} ${word}${count === 1 ? "" : "s"}`;

  N.METRICS = {
    macs: { label: "MACs", text: (v) => `${N.count(v)} MACs` },
    params: { label: "parameters", text: (v) => `${N.count(v)} parameters` },
    paper_flops: { label: "FLOPs as the paper counts", text: (v) => `${N.count(v)} FLOPs (paper)` },
    latency_ns: { label: "predicted latency (ms)", text: (v) => `${(v / 1e6).toFixed(3)} ms predicted` },
  };

  // Columns: [{label, num}], rows: arrays of texts or nodes.
  N.table = function (columns, rows, caption) {
    const head = columns.map((c) => N.el("th", { scope: "col", class: c.num ? "num" : null }, c.label));
    const body = rows.map((row) =>
      N.el(
        "tr",
        null,
        row.map((cell, i) =>
          N.el("td", { class: columns[i].num ? "num" : null }, cell === null || cell === undefined ? "–" : cell),
        ),
      ),
    );
    const table = N.el("table", null, N.el("thead", null, N.el("tr", null, head)), N.el("tbody", null, body));
    // A wide table scrolls in its own box, which the keyboard reaches.
    return N.el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
  };

  // Details whose content is made when they are first opened.
  N.later = function (title, make, id) {
    const node = N.el("details", { id: id || null }, N.el("summary", null, title));
    let made = false;
    node.addEventListener("toggle", () => {
      if (node.open && !made) {
        made = true;
        node.append(make());
      }
    });
    return node;
  };

  N.legend = function (items) {
    return N.el(
      "div",
      { class: "legend" },
      items.map(([icon, text]) =>
        N.el("span", null, N.svg("svg", { width: 24, height: 14, "aria-hidden": "true" }, icon), text),
      ),
    );
  };

  const tooltip = () => document.getElementById("tooltip");
  N.showTip = function (text, pageX, pageY) {
    const tip = tooltip();
    tip.textContent = text;
    tip.hidden = false;
    const width = document.documentElement.clientWidth;
    const left = Math.max(4, Math.min(pageX + 12, window.scrollX + width - tip.offsetWidth - 8));
    tip.style.left = `${left}px`;
    const above = pageY - tip.offsetHeight - 10;
    tip.style.top = `${above > window.scrollY ? above : pageY + 16}px`;
  };
  N.hideTip = () => {
    tooltip().hidden = true;
  };

  // Draws now and whenever the width of the node changes; a failure is told, not swallowed.
  N.redrawn = function (node, draw) {
    let last = 0;
    const run = () => {
      const width = Math.floor(node.clientWidth);
      if (width > 0 && width !== last) {
        last = width;
        N.guard(() => draw(width));
      }
    };
    N.observe(node, run);
    N.soon(run);
  };

  // Calls an action after the layout that changed a node's size, not within it.
  N.observe = function (node, action) {
    const observer = new ResizeObserver(() => window.requestAnimationFrame(action));
    observer.observe(node);
    return observer;
  };

  N.guard = function (action) {
    try {
      action();
    } catch (error) {
      N.report(error && error.stack ? error.stack : String(error));
    }
  };
  N.report = function (text) {
    const place = document.getElementById("errors");
    if (place) place.append(N.el("p", null, `A part of this report could not be drawn: ${text}`));
  };
  window.addEventListener("error", (event) => N.report(event.message));

  const waiting = [];
  N.soon = (action) => {
    waiting.push(action);
  };
  N.flush = () => {
    while (waiting.length) waiting.shift()();
  };
})(NEAS);
