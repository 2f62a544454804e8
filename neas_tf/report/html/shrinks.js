// The shrinking: what is alive behind each shrink, and the similarities that decided.
(function (N) {
  // A colour between the ends of the scale, mixed by the browser so that it follows dark and light.
  const mixed = (share) =>
    `color-mix(in oklab, var(--high) ${Math.round(100 * Math.max(0, Math.min(1, share)))}%, var(--low))`;
  N.shade = function (node, share) {
    node.style.fill = mixed(share);
    return node;
  };

  const cross = (x, y, r) =>
    N.svg("path", { class: "cross", d: `M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}` });
  const word = (share) =>
    share === null ? "not in the space" : share === 0 ? "dropped" : `${N.percent(share, 0)} of its combinations alive`;

  function alivePlot(run, shrink, width) {
    const { operators, layers } = run.space;
    const left = 34;
    const head = 12 + 7 * Math.max(...operators.map((name) => name.length));
    const cell = Math.max(10, Math.min(44, (width - left - 2) / operators.length));
    const high = Math.max(14, Math.min(22, cell));
    const svg = N.svg("svg", {
      width: left + cell * operators.length + 2,
      height: head + high * layers.length + 6,
      role: "img",
      "aria-label": `Operators alive by layer: ${shrink.alive.combinations} combinations. The table below says the same.`,
    });
    operators.forEach((name, j) => {
      const x = left + cell * (j + 0.5);
      svg.append(N.svg("text", { x, y: head - 5, transform: `rotate(-90 ${x} ${head - 5})`, dy: 4 }, name));
    });
    shrink.alive.shares.forEach((row, i) => {
      const y = head + high * i;
      svg.append(
        N.svg("text", { class: "soft", x: left - 10, y: y + high / 2 + 4, "text-anchor": "end" }, String(i + 1)),
      );
      if (shrink.alive.split.includes(i + 1))
        svg.append(N.svg("line", { class: "edge", x1: left - 4, x2: left - 4, y1: y, y2: y + high }));
      row.forEach((share, j) => {
        const x = left + cell * j;
        const node = N.svg(
          "rect",
          { class: share === null ? "cell never" : "cell", x, y, width: cell, height: high },
          N.svg("title", null, `layer ${i + 1}, ${operators[j]}: ${word(share)}`),
        );
        if (share !== null) N.shade(node, share === 0 ? 0 : 0.15 + 0.85 * share);
        svg.append(node);
        if (share === 0) svg.append(cross(x + cell / 2, y + high / 2, 4));
      });
    });
    return svg;
  }

  function aliveTable(run, shrink) {
    const columns = [{ label: "layer" }, ...run.space.operators.map((name) => ({ label: name, num: true }))];
    const rows = shrink.alive.shares.map((row, i) => [
      `${i + 1}`,
      ...row.map((v) => (v === null ? "–" : v === 0 ? "dropped" : N.percent(v, 0))),
    ]);
    return N.table(columns, rows, "Share of each operator's combinations that is alive");
  }

  const STATES = { alive: "alive", dropped: "dropped in this shrink", gone: "dropped earlier" };

  function matrix(layer, range, largest, width) {
    const names = layer.operators;
    const n = names.length;
    const left = 6 + 7 * Math.max(...names.map((name) => name.length));
    const bars = 64;
    const cell = Math.max(11, Math.min(36, (width - left - bars) / n));
    const foot = left + 4;
    const svg = N.svg("svg", {
      class: "similarity",
      width: left + cell * n + bars,
      height: 16 + cell * n + foot,
      role: "img",
      "aria-label": `Layer ${layer.layer}: similarity of ${n} operators. The table below has the scores.`,
    });
    const top = 16;
    // As many digits as tell the cells apart: S is close to 1 where beta is small.
    const digits = Math.max(3, Math.min(4, 2 - Math.floor(Math.log10(range[1] - range[0] || 1))));
    const told = (i, j) => {
      const value = layer.similarity[i][j];
      const state = layer.states.find(([a, b]) => a === Math.min(i, j) && b === Math.max(i, j));
      return `layer ${layer.layer}: ${names[j]} and ${names[i]}: S = ${value === null ? "not measured" : value.toFixed(5)}${state ? `, ${STATES[state[2]]}` : ""}`;
    };
    for (let i = 0; i < n; i += 1) {
      svg.append(N.svg("text", { x: left - 5, y: top + cell * (i + 0.5) + 4, "text-anchor": "end" }, names[i]));
      const x0 = left + cell * (i + 0.5);
      svg.append(
        N.svg(
          "text",
          {
            x: x0,
            y: top + cell * n + 6,
            transform: `rotate(-90 ${x0} ${top + cell * n + 6})`,
            "text-anchor": "end",
            dy: 4,
          },
          names[i],
        ),
      );
      for (let j = 0; j <= i; j += 1) {
        const value = i === j ? (layer.own ? layer.own[i] : null) : layer.similarity[i][j];
        const node = N.svg(
          "rect",
          {
            class: value === null ? "cell never" : "cell",
            x: left + cell * j,
            y: top + cell * i,
            width: cell,
            height: cell,
          },
          N.svg(
            "title",
            null,
            i === j
              ? `layer ${layer.layer}: ${names[i]}${value === null ? "" : `, both paths: S = ${value.toFixed(5)}`}`
              : told(i, j),
          ),
        );
        if (value !== null) N.shade(node, (value - range[0]) / (range[1] - range[0] || 1));
        svg.append(node);
        if (value !== null && cell >= 30) {
          const strong = (value - range[0]) / (range[1] - range[0] || 1) > 0.5;
          svg.append(
            N.svg(
              "text",
              {
                class: strong ? "value onhigh" : "value",
                x: left + cell * (j + 0.5),
                y: top + cell * (i + 0.5) + 3,
                "text-anchor": "middle",
                "pointer-events": "none",
              },
              value.toFixed(digits).replace(/^0/, ""),
            ),
          );
        }
      }
      const quality = layer.quality ? layer.quality[i] : null;
      if (quality !== null && quality !== undefined) {
        svg.append(
          N.svg("rect", {
            class: "bar",
            x: left + cell * n + 6,
            y: top + cell * i + 2,
            width: Math.max(1, 54 * (quality / largest)),
            height: cell - 4,
          }),
          N.svg("text", { class: "small", x: left + cell * n + 9, y: top + cell * (i + 0.5) + 4 }, quality.toFixed(3)),
        );
      }
    }
    for (const [i, j, state] of layer.states) {
      const [x, y] = [left + cell * (j + 0.5), top + cell * (i + 0.5)];
      const mark =
        state === "dropped"
          ? cross(x, y, Math.min(5, cell / 3))
          : N.svg("circle", {
              class: state === "alive" ? "live" : "gone",
              cx: x,
              cy: y,
              r: state === "alive" ? Math.min(4.5, cell / 3.5) : 1.8,
            });
      mark.append(N.svg("title", null, told(j, i)));
      svg.append(mark);
    }
    svg.append(N.svg("text", { class: "soft", x: left + cell * n + 6, y: 12 }, "r"));
    return svg;
  }

  function scores(shrink) {
    const rows = shrink.layers.flatMap((layer) =>
      layer.combinations.map(([names, score, state]) => ({ layer: layer.layer, names, score, state })),
    );
    rows.sort((a, b) => a.layer - b.layer || (a.score ?? 0) - (b.score ?? 0));
    return N.table(
      [{ label: "layer" }, { label: "operators" }, { label: "score", num: true }, { label: "state" }],
      rows.map((r) => [
        String(r.layer),
        r.names.join(", "),
        r.score === null ? "–" : r.score.toExponential(4),
        STATES[r.state],
      ]),
      "Scores of the combinations",
    );
  }

  function dropped(shrink) {
    const rows = shrink.layers.flatMap((layer) =>
      layer.combinations
        .filter(([, , state]) => state === "dropped")
        .map(([names, score]) => ({ layer: layer.layer, names, score })),
    );
    rows.sort((a, b) => (a.score ?? 0) - (b.score ?? 0));
    return N.el(
      "div",
      null,
      N.el("h3", null, "Dropped in this shrink"),
      rows.length
        ? N.table(
            [{ label: "layer" }, { label: "operators" }, { label: "score", num: true }],
            rows.map((r) => [String(r.layer), r.names.join(", "), r.score === null ? "–" : r.score.toExponential(4)]),
            "Dropped in this shrink",
          )
        : N.el("p", { class: "note" }, shrink.index === 0 ? "Nothing yet." : "Nothing of the layers that can split."),
    );
  }

  function similarities(run, shrink) {
    const node = N.el("div", null, N.el("h3", null, "Similarity S and quality r by layer"));
    if (!shrink.layers.length) {
      const text =
        shrink.index === 0
          ? "similarities at the start; they are measured at each shrink."
          : "similarities; this shrink holds none.";
      node.append(N.el("p", { class: "missing" }, text));
      return node;
    }
    const values = shrink.layers.flatMap((layer) => layer.similarity.flatMap((row, i) => row.filter((_, j) => j < i)));
    const range = N.extent(values);
    const largest = N.extent(shrink.layers.flatMap((layer) => layer.quality || []))[1] || 1;
    const grid = N.el("div", { class: "columns three" });
    for (const layer of shrink.layers) {
      const place = N.el("div", null);
      grid.append(N.el("div", null, N.el("h3", null, `Layer ${layer.layer}`), place));
      N.redrawn(place, (width) =>
        N.clear(place).append(N.el("div", { class: "scroll" }, matrix(layer, range, largest, width))),
      );
    }
    node.append(
      N.el(
        "p",
        { class: "note" },
        `Below the diagonal S from ${range[0].toFixed(4)} (weak: diverse) to ${range[1].toFixed(4)} (strong: alike); above it the fate of each pair.`,
      ),
      N.legend([
        [N.svg("circle", { class: "live", cx: 12, cy: 7, r: 4 }), "pair alive"],
        [cross(12, 7, 4), "dropped in this shrink"],
        [N.svg("circle", { class: "gone", cx: 12, cy: 7, r: 1.8 }), "dropped earlier"],
        [N.svg("rect", { class: "bar", x: 2, y: 3, width: 20, height: 8 }), "quality r"],
      ]),
      grid,
      N.later("Scores of all combinations as a table", () => scores(shrink)),
    );
    return node;
  }

  N.shrinkSection = function (run) {
    const section = N.el("section", { class: "card", id: "shrinks" }, N.el("h2", null, "Shrinking of the space"));
    const all = run.shrinks;
    if (!all.length) {
      section.append(N.el("p", { class: "missing" }, "the shrinks; they need shrink/shrink_*.json."));
      return section;
    }
    const position = () => {
      const asked = all.findIndex((s) => s.index === N.state.number("shrink"));
      return asked < 0 ? all.length - 1 : asked;
    };
    const told = (s) =>
      s.index === 0
        ? `start${s.alive ? `, ${N.integer(s.alive.combinations)} combinations` : ""}`
        : `shrink ${s.index} at step ${N.integer(s.step)}, by ${s.metric}${s.alive ? `, ${N.plural(s.alive.combinations, "combination")} left` : ""}`;
    const slider = N.el("input", {
      type: "range",
      id: "shrink",
      min: 0,
      max: all.length - 1,
      step: 1,
      value: position(),
      "aria-label": "Shrink",
    });
    const label = N.el("output", { id: "shrink-label", for: "shrink" });
    const back = N.el("button", { type: "button", id: "shrink-back", "aria-label": "Shrink before" }, "‹");
    const forth = N.el("button", { type: "button", id: "shrink-forth", "aria-label": "Next shrink" }, "›");
    const go = (index) => N.state.set({ shrink: all[Math.max(0, Math.min(all.length - 1, index))].index });
    slider.addEventListener("input", () => go(parseInt(slider.value, 10)));
    back.addEventListener("click", () => go(position() - 1));
    forth.addEventListener("click", () => go(position() + 1));
    const body = N.el("div", null);
    const draw = () => {
      const shrink = all[position()];
      slider.value = position();
      slider.setAttribute("aria-valuetext", told(shrink));
      label.textContent = told(shrink);
      N.clear(body);
      const left = N.el("div", null, N.el("h3", null, "Alive operators by layer"));
      body.append(N.el("div", { class: "columns two" }, left, dropped(shrink)));
      if (shrink.alive) {
        const plot = N.el("div", { id: "alive" });
        left.append(
          plot,
          N.legend([
            [N.svg("line", { class: "edge", x1: 12, x2: 12, y1: 0, y2: 14 }), "layer can split"],
            [cross(12, 7, 4), "dropped"],
            [N.svg("rect", { class: "cell never", x: 2, y: 1, width: 20, height: 12 }), "not in the space"],
            [
              [0.15, 0.58, 1].map((v, i) => N.shade(N.svg("rect", { x: 1 + 7 * i, y: 2, width: 7, height: 10 }), v)),
              "few to all combinations alive",
            ],
          ]),
          N.later("Alive operators as a table", () => aliveTable(run, shrink)),
        );
        N.redrawn(plot, (width) =>
          N.clear(plot).append(N.el("div", { class: "scroll" }, alivePlot(run, shrink, width))),
        );
      } else {
        left.append(
          N.el(
            "p",
            { class: "missing" },
            "alive operators; they need 'alive' in the shrink's file and the search space (params.yaml).",
          ),
        );
      }
      body.append(similarities(run, shrink));
      N.flush();
    };
    section.append(N.el("div", { class: "controls" }, back, slider, forth, label), body);
    N.soon(draw);
    N.state.on((keys) => {
      if (keys.includes("shrink")) draw();
    });
    return section;
  };
})(NEAS);
