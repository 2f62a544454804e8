// Accuracy against cost of all candidates; a click, a tap or the arrow keys choose one.
(function (N) {
  const SHAPES = { random: 0, crossover: 1, mutation: 2 };

  function marker(shape, x, y, r) {
    if (shape === 1) return `M${x} ${y - r * 1.2}L${x + r * 1.15} ${y + r * 0.8}L${x - r * 1.15} ${y + r * 0.8}Z`;
    if (shape === 2) return `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}Z`;
    return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  }
  function star(x, y, r) {
    const points = [];
    for (let i = 0; i < 10; i += 1) {
      const radius = i % 2 ? r * 0.45 : r;
      const angle = (i * Math.PI) / 5 - Math.PI / 2;
      points.push(`${(x + radius * Math.cos(angle)).toFixed(1)},${(y + radius * Math.sin(angle)).toFixed(1)}`);
    }
    return points.join(" ");
  }

  const formats = {
    macs: N.format.count,
    params: N.format.count,
    paper_flops: N.format.count,
    latency_ns: N.format.ms,
  };
  const limits = {
    macs: [
      ["max_macs", 1],
      ["min_macs", 1],
    ],
    params: [["max_params", 1]],
    latency_ns: [["max_latency_ms", 1e6]],
    paper_flops: [],
  };

  function metricOf(s) {
    const asked = N.state.get("cost");
    if (s.metrics.includes(asked)) return asked;
    return s.objective && s.metrics.includes(s.objective) ? s.objective : s.metrics[0];
  }

  // Moves the choice: left and right by cost, up and down by accuracy.
  function keyboard(plot, model, order) {
    plot.addEventListener("keydown", (event) => {
      const { byCost, byAccuracy } = order();
      const row = N.chosenRow(model);
      const moved = (list, by) => list[Math.max(0, Math.min(list.length - 1, list.indexOf(row) + by))];
      const next = {
        ArrowLeft: () => moved(byCost, -1),
        ArrowRight: () => moved(byCost, 1),
        ArrowUp: () => moved(byAccuracy, 1),
        ArrowDown: () => moved(byAccuracy, -1),
        PageUp: () => moved(byAccuracy, 10),
        PageDown: () => moved(byAccuracy, -10),
        Home: () => byCost[0],
        End: () => byCost[byCost.length - 1],
      }[event.key];
      if (!next) return;
      event.preventDefault();
      N.state.set({ candidate: model.s.number[next()] });
    });
  }

  function ranked(model, metric) {
    const rows = [...model.s.number.keys()];
    const cost = model.s.costs[metric];
    const accuracy = model.s.accuracy;
    return {
      byCost: [...rows].sort((a, b) => cost[a] - cost[b] || accuracy[a] - accuracy[b] || a - b),
      byAccuracy: [...rows].sort((a, b) => accuracy[a] - accuracy[b] || a - b),
    };
  }

  function draw(plot, run, model, metric, width) {
    const s = model.s;
    const height = Math.min(460, Math.max(300, width * 0.7));
    const box = { left: 54, top: 22, right: width - 12, bottom: height - 42 };
    const x = N.scale(N.padded(N.extent(s.costs[metric]), 0.03), [box.left, box.right]);
    const y = N.scale(N.padded(N.extent(s.accuracy), 0.04), [box.bottom, box.top]);
    const svg = N.svg("svg", { width, height, "aria-hidden": "true" });
    N.frame(svg, box, x, y, {
      formatX: formats[metric],
      formatY: N.format.percent,
      labelX: N.METRICS[metric].label,
      labelY: "accuracy in the search",
    });
    for (const [name, factor] of limits[metric]) {
      const value = s.budget[name] ? s.budget[name] * factor : null;
      if (value === null || value < x.domain[0] || value > x.domain[1]) continue;
      svg.append(N.svg("line", { class: "limit", x1: x(value), x2: x(value), y1: box.top, y2: box.bottom }));
    }
    const last = Math.max(
      1,
      ...s.generation.slice(-1),
      s.generation.reduce((a, b) => Math.max(a, b), 0),
    );
    const places = s.number.map((_, row) => [x(s.costs[metric][row]), y(s.accuracy[row])]);
    const size = s.number.length > 3000 ? 2.2 : 3.6;
    places.forEach(([px, py], row) => {
      const shade = Math.min(4, Math.floor((5 * s.generation[row]) / (last + 1)));
      svg.append(
        N.svg("path", {
          class: `pt g${shade}${s.images[row] === null ? "" : " raced"}`,
          "data-n": s.number[row],
          d: marker(SHAPES[s.origin[row]] ?? 0, +px.toFixed(1), +py.toFixed(1), size),
        }),
      );
    });
    const front = s.fronts[metric] || [];
    if (front.length) {
      let line = "";
      front.forEach((row, i) => {
        const [px, py] = places[row];
        line += i ? `H${px.toFixed(1)}V${py.toFixed(1)}` : `M${px.toFixed(1)} ${py.toFixed(1)}`;
        svg.append(N.svg("circle", { class: "frontpoint", cx: px, cy: py, r: size + 2 }));
      });
      svg.append(N.svg("path", { class: "front", d: line }));
    }
    if (model.winner !== null)
      svg.append(N.svg("polygon", { class: "star", points: star(...places[model.winner], 10) }));
    const ring = N.svg("circle", { class: "chosen", r: size + 7 });
    svg.append(ring);
    N.clear(plot).append(svg);
    return { places, ring };
  }

  function frontTable(run, model, metric) {
    const s = model.s;
    const rows = (s.fronts[metric] || []).map((row) => {
      const button = N.el("button", { type: "button", class: "link" }, String(s.number[row]));
      button.addEventListener("click", () => N.state.set({ candidate: s.number[row] }));
      return [
        button,
        N.percent(s.accuracy[row]),
        ...s.metrics.map((m) => (m === "latency_ns" ? (s.costs[m][row] / 1e6).toFixed(3) : N.count(s.costs[m][row]))),
        s.generation[row],
      ];
    });
    const columns = [
      { label: "candidate" },
      { label: "accuracy", num: true },
      ...s.metrics.map((m) => ({ label: N.METRICS[m].label, num: true })),
      { label: "generation", num: true },
    ];
    return N.table(columns, rows, "Candidates on the Pareto front");
  }

  function controls(run, model, metric) {
    const s = model.s;
    const node = N.el("div", { class: "controls" });
    if (s.metrics.length > 1) {
      const select = N.el(
        "select",
        { id: "cost" },
        s.metrics.map((m) => N.el("option", { value: m, selected: m === metric }, N.METRICS[m].label)),
      );
      select.addEventListener("change", () => N.state.set({ cost: select.value }));
      node.append(N.el("label", null, "Cost", select));
    }
    const box = N.el("input", {
      type: "number",
      id: "candidate-number",
      min: s.number[0],
      max: s.number[s.number.length - 1],
      inputmode: "numeric",
    });
    const show = () => {
      box.value = s.number[N.chosenRow(model)];
    };
    box.addEventListener("change", () => {
      if (model.rowOf.has(parseInt(box.value, 10))) N.state.set({ candidate: parseInt(box.value, 10) });
      else show();
    });
    N.state.on((keys) => {
      if (keys.includes("candidate")) show();
    });
    show();
    node.append(N.el("label", null, "Candidate", box));
    if (model.winner !== null) {
      const button = N.el("button", { type: "button", id: "to-winner" }, "Winner");
      button.addEventListener("click", () => N.state.set({ candidate: s.number[model.winner] }));
      node.append(button);
    }
    return node;
  }

  function scatter(run, model) {
    const s = model.s;
    const metric = metricOf(s);
    const plot = N.el("div", {
      id: "scatter",
      class: "chart",
      tabindex: "0",
      role: "slider",
      "aria-valuemin": s.number[0],
      "aria-valuemax": s.number[s.number.length - 1],
      "aria-label": `Candidates, accuracy against ${N.METRICS[metric].label}. Left and right arrow keys walk by cost, up and down by accuracy.`,
    });
    let order = null;
    let shown = null;
    keyboard(plot, model, () => {
      order = order || ranked(model, metric);
      return order;
    });
    const place = (tip) => {
      const row = N.chosenRow(model);
      const text = N.tellCandidate(run, model, row);
      plot.setAttribute("aria-valuenow", s.number[row]);
      plot.setAttribute("aria-valuetext", text.join(", "));
      if (!shown) return;
      const [px, py] = shown.places[row];
      shown.ring.setAttribute("cx", px);
      shown.ring.setAttribute("cy", py);
      if (!tip || document.activeElement !== plot) return;
      const corner = plot.getBoundingClientRect();
      N.showTip(text.join("\n"), corner.left + window.scrollX + px, corner.top + window.scrollY + py);
    };
    N.redrawn(plot, (width) => {
      shown = draw(plot, run, model, metric, width);
      place(false);
    });
    const nearest = (event) => {
      const corner = plot.getBoundingClientRect();
      const [px, py] = [event.clientX - corner.left, event.clientY - corner.top];
      let [best, distance] = [null, 24 ** 2];
      shown.places.forEach(([x, y], row) => {
        const d = (x - px) ** 2 + (y - py) ** 2;
        if (d < distance) [best, distance] = [row, d];
      });
      return best;
    };
    plot.addEventListener("pointermove", (event) => {
      const row = shown ? nearest(event) : null;
      if (row === null) N.hideTip();
      else N.showTip([...N.tellCandidate(run, model, row), s.key[row]].join("\n"), event.pageX, event.pageY);
    });
    plot.addEventListener("pointerleave", N.hideTip);
    plot.addEventListener("blur", N.hideTip);
    plot.addEventListener("click", (event) => {
      const row = shown ? nearest(event) : null;
      if (row !== null) N.state.set({ candidate: s.number[row] });
    });
    N.state.on((keys) => {
      if (keys.includes("candidate")) place(true);
    });
    return N.el(
      "div",
      null,
      controls(run, model, metric),
      plot,
      legend(model),
      N.later(`Pareto front as a table (${(s.fronts[metric] || []).length})`, () => frontTable(run, model, metric)),
    );
  }

  function legend(model) {
    const icon = (shape) => N.svg("path", { class: "pt g2", d: marker(shape, 12, 7, 4) });
    const shades = [0, 1, 2, 3, 4].map((g) =>
      N.svg("rect", { class: `pt g${g}`, x: 1 + 4.4 * g, y: 3, width: 4.4, height: 8 }),
    );
    const items = [
      [icon(0), "random"],
      [icon(1), "crossover"],
      [icon(2), "mutation"],
      [shades, "first to last generation"],
      [[N.svg("path", { class: "front", d: "M2 11H12V4H22" })], "Pareto front"],
      [N.svg("circle", { class: "chosen", cx: 12, cy: 7, r: 5 }), "chosen"],
    ];
    if (model.winner !== null) items.push([N.svg("polygon", { class: "star", points: star(12, 7, 6.5) }), "winner"]);
    if (Object.keys(model.s.budget).length)
      items.push([N.svg("line", { class: "limit", x1: 12, x2: 12, y1: 0, y2: 14 }), "budget"]);
    return N.legend(items);
  }

  function progress(_, model) {
    const s = model.s;
    let best = -Infinity;
    // A race's estimates do not count as best.
    const values = s.accuracy.map((v, row) => {
      if (s.images[row] === null) best = Math.max(best, v);
      return best === -Infinity ? null : best;
    });
    return N.lineChart({
      id: "progress",
      title: "Best so far",
      label: "Best accuracy among the first candidates",
      x: s.number,
      labelX: "candidate",
      height: 160,
      steps: true,
      format: N.format.percent,
      text: (v) => N.percent(v),
      series: [{ name: "best accuracy", values, look: "c0" }],
    });
  }

  N.searchSection = function (run) {
    const section = N.el("section", { class: "card", id: "search" }, N.el("h2", null, "Search"));
    if (!run.search) {
      section.append(N.el("p", { class: "missing" }, "the search; it needs search/history.jsonl."));
      if (run.architecture) section.append(N.candidatePanel(run, null));
      return section;
    }
    const model = N.candidates(run);
    const { total, number } = run.search;
    const thin =
      total > number.length
        ? ` ${N.integer(number.length)} of them are shown: the Pareto fronts, the best, and evenly spread others.`
        : "";
    const left = N.el("div", null);
    const fill = () => {
      N.clear(left).append(scatter(run, model));
      N.flush();
    };
    fill();
    N.state.on((keys) => {
      if (keys.includes("cost")) fill();
    });
    section.append(
      N.el(
        "p",
        { class: "note" },
        `${N.plural(total, "candidate")}, scored with the supernet's weights on held-out training images.${thin}`,
      ),
      N.el("div", { class: "columns two search" }, left, N.candidatePanel(run, model), progress(run, model)),
    );
    return section;
  };
})(NEAS);
