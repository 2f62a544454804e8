// An ensemble as it branches: the trunk once, then its paths side by side, with shapes and costs of every layer.
(function (N) {
  // [{label, rows}]: rows are boxes {name, shape, macs, skip}; one for a shared layer, K behind the split.
  N.layersOf = function (run, architecture) {
    const space = run.space;
    const { split, paths } = architecture;
    if (!space || paths[0].length !== space.layers.length) return null;
    const costs = space.costs.macs;
    const box = (name, index) => {
      const column = space.operators.indexOf(name);
      if (column < 0) return null;
      const layer = space.layers[index];
      const same = layer.in.join() === layer.out.join();
      return {
        name,
        skip: name === "skip",
        macs: costs.layers[index][column],
        shape: same ? N.shape(layer.out) : `${N.shape(layer.in)} → ${N.shape(layer.out)}`,
      };
    };
    const rows = [
      {
        label: "",
        boxes: [
          {
            name: space.block ? "stem, block" : "stem",
            macs: costs.trunk,
            shape: `${N.shape(space.input)} → ${N.shape(space.block || space.stem)}`,
          },
        ],
      },
    ];
    for (let i = 0; i < paths[0].length; i += 1) {
      const boxes = (i < split ? [paths[0]] : paths).map((path) => box(path[i], i));
      if (boxes.includes(null)) return null;
      rows.push({ label: String(i + 1), boxes });
    }
    rows.push({
      label: "",
      boxes: paths.map(() => ({
        name: "head",
        macs: costs.head,
        shape: `${space.head.join(", ")} → ${space.classes}`,
      })),
    });
    return rows;
  };

  const total = (rows) => rows.reduce((sum, row) => sum + row.boxes.reduce((a, b) => a + b.macs, 0), 0);

  function tell(architecture, rows) {
    const shared = rows.filter((row) => row.boxes.length === 1).map((row) => row.boxes[0].name);
    const own = architecture.paths.map(
      (path, k) => `path ${k + 1}: ${path.slice(architecture.split).join(", ") || "no layers of its own"}, head`,
    );
    return `Ensemble of ${architecture.paths.length} paths, ${N.count(total(rows))} MACs. Shared: ${shared.join(", ")}. ${own.join(". ")}. Their logits are averaged.`;
  }

  function draw(place, architecture, rows, width) {
    const paths = architecture.paths.length;
    const left = 24;
    const gap = 8;
    const column = Math.max(118, Math.min(210, (width - left - gap * (paths - 1) - 2) / paths));
    // Long names leave the costs a line of their own.
    const longest = Math.max(...rows.flatMap((row) => row.boxes.map((b) => b.name.length)));
    const tall = 8.5 * longest + 56 > column;
    const [high, pitch] = tall ? [60, 70] : [46, 56];
    const room = Math.floor((column - 14) / 8.5);
    const short = (name) => (name.length > room ? `${name.slice(0, room - 1)}…` : name);
    const whole = left + paths * column + (paths - 1) * gap + 2;
    const fork = rows.findIndex((row) => row.boxes.length > 1);
    const forked = paths > 1 ? fork : rows.length;
    const top = (i) => 4 + i * pitch + (i >= forked ? 18 : 0);
    const end = top(rows.length - 1) + high + 26;
    const middle = (count, k) => left + (count === 1 ? (whole - left) / 2 : k * (column + gap) + column / 2);
    const most = Math.max(...rows.flatMap((row) => row.boxes.map((b) => b.macs)), 1);
    const svg = N.svg("svg", { width: whole, height: end + 34, role: "img", "aria-label": tell(architecture, rows) });
    const wires = N.svg("g");
    svg.append(wires);
    rows.forEach((row, i) => {
      if (row.label) svg.append(N.svg("text", { class: "soft", x: 0, y: top(i) + 28 }, row.label));
      row.boxes.forEach((b, k) => {
        const centre = middle(row.boxes.length, k);
        const wide = row.boxes.length === 1 ? Math.max(column, Math.min(210, whole - left - 2)) : column;
        const x = centre - wide / 2 + 1;
        const look = row.boxes.length > 1 || i >= forked ? ` p${k % 5}` : "";
        if (b.macs)
          svg.append(
            N.svg("rect", {
              class: "amount",
              x,
              y: top(i) + high - 5,
              width: Math.max(1, (wide - 2) * (b.macs / most)),
              height: 5,
            }),
          );
        svg.append(
          N.svg("rect", {
            class: `box${look}${b.skip ? " skip" : ""}`,
            x,
            y: top(i),
            width: wide - 2,
            height: high,
            rx: 5,
            "data-macs": b.macs,
            "data-name": b.name,
            "fill-opacity": 0,
          }),
          N.svg("text", { class: "name", x: x + 7, y: top(i) + 17 }, short(b.name), N.svg("title", null, b.name)),
          N.svg(
            "text",
            {
              class: "soft small",
              x: tall ? x + 7 : x + wide - 9,
              y: top(i) + (tall ? 47 : 16),
              "text-anchor": tall ? "start" : "end",
            },
            b.skip ? "free" : `${N.count(b.macs)}${tall ? " MACs" : ""}`,
          ),
          N.svg("text", { class: "soft small", x: x + 7, y: top(i) + 33 }, b.shape),
        );
        const from = i === 0 ? null : rows[i - 1].boxes.length;
        if (from === null) return;
        const start = middle(from, from === 1 ? 0 : k);
        const y0 = top(i - 1) + high;
        const bend = (y0 + top(i)) / 2;
        wires.append(N.svg("path", { class: "wire", d: `M${start} ${y0}V${bend}H${centre}V${top(i)}` }));
      });
    });
    const last = rows[rows.length - 1].boxes.length;
    for (let k = 0; k < last; k += 1) {
      const y0 = top(rows.length - 1) + high;
      wires.append(N.svg("path", { class: "wire", d: `M${middle(last, k)} ${y0}V${y0 + 12}H${middle(1, 0)}V${end}` }));
    }
    const text = paths > 1 ? "mean of the logits" : "logits";
    svg.append(
      N.svg("rect", { class: "box", x: middle(1, 0) - 70, y: end, width: 140, height: 28, rx: 14, "fill-opacity": 0 }),
      N.svg("text", { class: "name", x: middle(1, 0), y: end + 19, "text-anchor": "middle" }, text),
    );
    const scroll = N.el(
      "div",
      whole > width
        ? { class: "scroll", tabindex: "0", role: "region", "aria-label": "Diagram, wider than the page" }
        : { class: "scroll" },
      svg,
    );
    return scroll;
  }

  function table(architecture, rows) {
    const columns = [
      { label: "layer" },
      { label: "path" },
      { label: "operator" },
      { label: "height×width×channels" },
      { label: "MACs", num: true },
    ];
    const lines = rows.flatMap((row) =>
      row.boxes.map((b, k) => [
        row.label || "–",
        row.boxes.length === 1 && architecture.paths.length > 1 ? "all" : String(k + 1),
        b.name,
        b.shape,
        N.integer(b.macs),
      ]),
    );
    return N.table(columns, lines, "Layers of the ensemble");
  }

  let stop = null;
  N.diagram = function (place, run, architecture) {
    if (stop) stop.disconnect();
    const rows = N.layersOf(run, architecture);
    N.clear(place);
    if (!rows) {
      place.append(
        N.el(
          "p",
          { class: "missing" },
          run.space
            ? "the diagram; the ensemble does not lie in the run's search space."
            : "the diagram; it needs the search space (params.yaml).",
        ),
      );
      return;
    }
    const shared = rows.filter((row, i) => row.boxes.length === 1 && i <= architecture.split);
    const picture = N.el("div", { id: "picture" });
    const own = total(rows) - total(shared);
    place.append(
      N.el(
        "p",
        { class: "note", id: "diagram-total", "data-macs": total(rows) },
        `${N.integer(total(rows))} MACs: ${N.count(total(shared))} shared, ${N.count(own)} in the ${N.plural(architecture.paths.length, "path")} behind the split. Sizes are height×width×channels; bars compare MACs.`,
      ),
      picture,
      N.later("Layers as a table", () => table(architecture, rows)),
    );
    let last = 0;
    const redraw = () => {
      const width = Math.floor(place.clientWidth);
      if (!width || width === last) return;
      last = width;
      N.guard(() => N.clear(picture).append(draw(place, architecture, rows, width)));
    };
    redraw();
    stop = N.observe(place, redraw);
  };
})(NEAS);
