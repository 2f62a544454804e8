// Line charts (training, progress of the search), read by pointer or arrow keys.
(function (N) {
  // Running mean, centred, narrower at the start.
  function smooth(values, window) {
    return values.map((value, i) => {
      if (value === null) return null;
      const reach = Math.min(Math.floor(window / 2), i);
      const part = values.slice(i - reach, i + reach + 1).filter((v) => v !== null);
      return part.reduce((a, b) => a + b, 0) / part.length;
    });
  }

  function path(xs, ys, x, y, steps) {
    let result = "";
    let pen = false;
    ys.forEach((value, i) => {
      if (value === null) return; // what was logged at some steps only is still one line
      const [px, py] = [x(xs[i]).toFixed(1), y(value).toFixed(1)];
      if (!pen) result += `M${px} ${py}`;
      else result += steps ? `H${px}V${py}` : `L${px} ${py}`;
      pen = true;
    });
    return result;
  }

  // options: id, title, label (for screen readers), x (numbers), labelX, format (of the ticks), text (of a value),
  // series [{name, values, look, smooth}], marks (places on x), height, steps (no slopes between points)
  N.lineChart = function (options) {
    const label = `${options.label}. Use the left and right arrow keys to read values.`;
    const plot = N.el("div", {
      id: options.id,
      class: "chart",
      tabindex: "0",
      role: "slider",
      "aria-label": label,
      "aria-valuemin": "0",
      "aria-valuemax": String(options.x.length - 1),
    });
    const node = N.el("div", null, N.el("h3", null, options.title), plot);
    const span = Math.floor(options.x.length / 25);
    let at = options.x.length - 1;
    let geometry = null;

    const read = (i) =>
      [
        `${options.labelX} ${N.integer(options.x[i])}`,
        ...options.series.filter((s) => s.values[i] !== null).map((s) => `${s.name}: ${options.text(s.values[i])}`),
      ].join("\n");

    function point(i, pageX, pageY) {
      at = Math.max(0, Math.min(options.x.length - 1, i));
      plot.setAttribute("aria-valuenow", String(at));
      plot.setAttribute("aria-valuetext", read(at).replace(/\n/g, ", "));
      if (!geometry) return;
      const place = geometry.x(options.x[at]);
      geometry.cursor.setAttribute("x1", place);
      geometry.cursor.setAttribute("x2", place);
      geometry.cursor.setAttribute("visibility", "visible");
      const corner = plot.getBoundingClientRect();
      N.showTip(read(at), pageX ?? corner.left + window.scrollX + place, pageY ?? corner.top + window.scrollY + 30);
    }
    function leave() {
      if (geometry) geometry.cursor.setAttribute("visibility", "hidden");
      N.hideTip();
    }

    N.redrawn(plot, (width) => {
      const height = options.height || 220;
      const box = { left: 52, top: 10, right: width - 10, bottom: height - 40 };
      const drawn = options.series.map((s) =>
        Object.assign({ smoothed: s.smooth && span >= 3 ? smooth(s.values, span) : null }, s),
      );
      const y = N.scale(N.padded(N.extent(options.series.flatMap((s) => s.values)), 0.04), [box.bottom, box.top]);
      const x = N.scale(N.extent(options.x), [box.left, box.right]);
      const svg = N.svg("svg", { width, height, "aria-hidden": "true" });
      N.frame(svg, box, x, y, {
        formatX: N.format.plain,
        formatY: options.format,
        labelX: options.labelX,
        wholeX: true,
      });
      for (const mark of options.marks || []) {
        if (mark <= x.domain[1])
          svg.append(N.svg("line", { class: "mark", x1: x(mark), x2: x(mark), y1: box.top, y2: box.bottom }));
      }
      for (const s of drawn) {
        if (s.smoothed) svg.append(N.svg("path", { class: `raw ${s.look}`, d: path(options.x, s.values, x, y) }));
      }
      for (const s of drawn) {
        svg.append(
          N.svg("path", { class: `line ${s.look}`, d: path(options.x, s.smoothed || s.values, x, y, options.steps) }),
        );
      }
      const cursor = N.svg("line", { class: "axis", y1: box.top, y2: box.bottom, visibility: "hidden" });
      svg.append(cursor);
      geometry = { x, cursor };
      N.clear(plot).append(svg);
    });

    const nearest = (event) => {
      const value = geometry.x.back(event.clientX - plot.getBoundingClientRect().left);
      let best = 0;
      options.x.forEach((v, i) => {
        if (Math.abs(v - value) < Math.abs(options.x[best] - value)) best = i;
      });
      return best;
    };
    plot.addEventListener("pointermove", (event) => {
      if (geometry) point(nearest(event), event.pageX, event.pageY);
    });
    plot.addEventListener("pointerleave", leave);
    plot.addEventListener("blur", leave);
    plot.addEventListener("keydown", (event) => {
      const big = Math.max(1, Math.round(options.x.length / 20));
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -big, PageUp: big }[event.key];
      const next = event.key === "Home" ? 0 : event.key === "End" ? options.x.length - 1 : step ? at + step : null;
      if (next === null) return;
      event.preventDefault();
      point(next);
    });
    plot.setAttribute("aria-valuenow", String(at));
    plot.setAttribute("aria-valuetext", read(at).replace(/\n/g, ", "));
    if (options.series.length > 1) {
      node.append(
        N.legend([
          ...options.series.map((s) => [
            N.svg("line", { class: `line ${s.look}`, x1: 1, x2: 23, y1: 7, y2: 7 }),
            s.name,
          ]),
          ...(options.marks && options.marks.length
            ? [[N.svg("line", { class: "mark", x1: 12, x2: 12, y1: 0, y2: 14 }), "shrink"]]
            : []),
        ]),
      );
    }
    return node;
  };

  const look = (key) => {
    if (key.includes("ensemble")) return key.startsWith("validation") || key.includes("val") ? "c3 d4" : "ce";
    const path_ = /_(\d+)$/.exec(key);
    if (!path_) return "c0";
    const i = (parseInt(path_[1], 10) - 1) % 5;
    return `c${i}${i ? ` d${i}` : ""}`;
  };
  const words = (key) => key.replace(/^accuracy_(\d+)$/, "path $1").replace(/_/g, " ");

  N.trainingSection = function (run) {
    const section = N.el("section", { class: "card", id: "training" }, N.el("h2", null, "Training"));
    const names = { supernet: "Supernet", retrain: "Retraining" };
    if (!Object.keys(run.metrics).length) {
      section.append(
        N.el("p", { class: "missing" }, "training curves; they need supernet/metrics.jsonl or retrain/metrics.jsonl."),
      );
    }
    for (const [stage, curves] of Object.entries(run.metrics)) {
      const epochs = curves.epoch.filter((v) => v !== null);
      const note = [`${N.plural(curves.lines, "logged line")}`];
      if (epochs.length) note.push(`${epochs[epochs.length - 1].toFixed(3).replace(/\.?0+$/, "")} epochs`);
      if (curves.every > 1) note.push(`every ${curves.every}th line is drawn`);
      if (curves.step.length >= 75) note.push("thin lines as logged, thick lines their running mean");
      const marks = stage === "supernet" ? run.shrinks.map((s) => s.step).filter((s) => s > 0) : [];
      const charts = [
        ["loss", "Loss", N.format.plain, (v) => v.toFixed(4)],
        ["accuracy", "Accuracy on training batches", N.format.percent, (v) => N.percent(v)],
        ["learning_rate", "Learning rate", N.format.plain, (v) => v.toPrecision(3)],
      ].map(([word, title, format, text]) => {
        const keys = Object.keys(curves.series).filter(
          (key) => key.includes(word) && curves.series[key].some((v) => v !== null),
        );
        if (!keys.length) return null;
        const heading = keys.some((key) => /val|test/.test(key)) ? "Accuracy" : title;
        return N.lineChart({
          id: `${stage}-${word}`,
          title: word === "accuracy" ? heading : title,
          label: `${names[stage] || stage}: ${title.toLowerCase()}`,
          x: curves.step,
          labelX: "step",
          format,
          text,
          marks,
          series: keys.map((key) => ({
            name: words(key),
            values: curves.series[key],
            look: look(key),
            smooth: word !== "learning_rate",
          })),
        });
      });
      section.append(
        N.el("h3", null, names[stage] || stage),
        N.el("p", { class: "note" }, `${note.join(", ")}.`),
        N.el("div", { class: "columns three" }, charts),
      );
    }
    return section;
  };
})(NEAS);
