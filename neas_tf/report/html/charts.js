// Draws the charts by Vega in the reader's colours, as wide as their places; reads them by keys and pointer.
(function (N) {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();
  let drawing = Promise.resolve();

  // '@blue' is a colour's name in specifications.
  function coloured(value) {
    const palette = N.data.colours[dark.matches ? "dark" : "light"];
    const fill = (_, item) => (typeof item === "string" && item[0] === "@" ? palette[item.slice(1)] ?? item : item);
    return JSON.parse(JSON.stringify(value), fill);
  }
  const runOf = (node) => N.data.runs[Number(node.closest(".run").dataset.run)];

  async function embed(node) {
    const spec = coloured(N.data.charts[node.id]);
    const search = runOf(node).search;
    if (search) spec.datasets = { ...spec.datasets, candidates: search.rows };
    const options = { renderer: "svg", actions: false, defaultStyle: false, ast: true, logLevel: 1, config: coloured(N.data.config) };
    // Beside the mark, which they would cover at the pointer.
    options.tooltip = { disableDefaultStyle: true, anchor: "mark", position: ["right", "left", "top", "bottom"] };
    views.get(node.id)?.finalize();
    const { view } = await vegaEmbed(node.querySelector(".plot"), spec, options);
    views.set(node.id, view);
    node.dataset.drawn = dark.matches ? "dark" : "light";
    node.dispatchEvent(new CustomEvent("drawn", { detail: view }));
  }

  // Draws what can be seen and is not drawn in these colours, one after the other.
  N.draw = () => {
    drawing = drawing.then(async () => {
      for (const node of N.all(".chart")) {
        if (node.dataset.drawn === (dark.matches ? "dark" : "light") || !node.offsetWidth) continue;
        try {
          await embed(node);
        } catch (error) {
          node.dataset.drawn = "failed";
          N.report(`${node.id}: ${error.message}`);
        }
      }
    });
    return drawing;
  };
  N.view = (id) => views.get(id);

  // Charts with an axis to read along: the arrow keys and the pointer move a cursor.
  function readable(node) {
    const rows = Object.values(N.data.charts[node.id].datasets).flat().filter((row) => "v" in row);
    const stops = [...new Set(rows.map((row) => row.x))].sort((a, b) => a - b);
    const text = (v) => (node.dataset.form ? `${(100 * v).toFixed(2)} %` : String(v));
    const readout = node.parentNode.querySelector(".readout");
    let at = stops.length - 1;
    function show(index) {
      at = Math.max(0, Math.min(stops.length - 1, index));
      const here = rows.filter((row) => row.x === stops[at]);
      const told = `${node.dataset.axis} ${stops[at]}: ${here.map((row) => `${row.s} ${text(row.v)}`).join(", ")}`;
      readout.textContent = told;
      node.setAttribute("aria-valuenow", at);
      node.setAttribute("aria-valuetext", told);
    }
    const mark = () => N.view(node.id)?.signal("cursor", stops[at]).runAsync();
    node.setAttribute("aria-valuemin", 0);
    node.setAttribute("aria-valuemax", stops.length - 1);
    show(at);
    node.addEventListener("keydown", (event) => {
      const big = Math.max(1, Math.round(stops.length / 20));
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -big, PageUp: big }[event.key];
      const next = { Home: 0, End: stops.length - 1 }[event.key] ?? (step ? at + step : null);
      if (next === null) return;
      event.preventDefault();
      show(next);
      mark();
    });
    node.addEventListener("pointermove", (event) => {
      const view = N.view(node.id);
      if (!view) return;
      const left = node.querySelector("svg").getBoundingClientRect().left + view.origin()[0];
      const value = view.scale("x").invert(event.clientX - left);
      const near = stops.reduce((best, stop, i) => (Math.abs(stop - value) < Math.abs(stops[best] - value) ? i : best), 0);
      if (near !== at) show(near);
      mark();
    });
  }

  N.save = (name, href) => N.el("a", "", { download: name, href }).click();
  N.saveText = (name, type, text) => N.save(name, `data:${type};charset=utf-8,${encodeURIComponent(text)}`);
  // An SVG of the page as PNG: it takes its style and what it refers to with it.
  N.savePicture = async (name, svg) => {
    const copy = svg.cloneNode(true);
    const used = new Set(N.all("use", copy).map((use) => use.getAttribute("href")));
    const colours = getComputedStyle(document.documentElement);
    const rules = [...document.styleSheets[0].cssRules].filter((rule) => rule.selectorText?.startsWith(".d-"));
    const style = rules.map((rule) => rule.cssText).join("").replace(/var\((--\w+)\)/g, (_, variable) => colours.getPropertyValue(variable));
    copy.prepend(N.el("style", `svg{background:${colours.getPropertyValue("--card")}}${style}`), ...[...used].map((id) => document.querySelector(id).cloneNode(true)));
    copy.querySelectorAll(":scope > g[id]").forEach((box) => {
      const defs = document.createElementNS(copy.namespaceURI, "defs");
      box.replaceWith(defs);
      defs.append(box);
    });
    const picture = new Image();
    picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
    await picture.decode();
    const canvas = N.el("canvas", "", { width: 2 * picture.naturalWidth, height: 2 * picture.naturalHeight });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    N.save(name, canvas.toDataURL());
  };
  N.charts = () => {
    N.all(".chart").forEach((node) => {
      node.querySelector(".plot").style.minHeight = `${N.data.charts[node.id].height}px`;
      if (node.dataset.axis) readable(node);
    });
    N.all(".save").forEach((button) =>
      button.addEventListener("click", async () => {
        const { chart, kind } = button.dataset;
        const url = await N.view(chart)?.toImageURL(kind, 2);
        if (url) N.save(`${runOf(button).name}-${chart.replace(/^r\d+-/, "")}.${kind}`, url);
      }),
    );
    dark.addEventListener("change", N.draw);
  };
})(NEAS);
