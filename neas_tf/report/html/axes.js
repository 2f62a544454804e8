// Scales, ticks and the frame of a chart.
(function (N) {
  N.extent = function (values) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
      if (value === null || value === undefined) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) return [0, 1];
    if (low === high) return [low - (Math.abs(low) || 1) * 0.05, high + (Math.abs(high) || 1) * 0.05];
    return [low, high];
  };

  N.padded = function ([low, high], share) {
    const room = (high - low) * share;
    return [low - room, high + room];
  };

  N.scale = function ([low, high], [from, to]) {
    const at = (value) => from + ((value - low) / (high - low)) * (to - from);
    at.back = (place) => low + ((place - from) / (to - from)) * (high - low);
    at.domain = [low, high];
    return at;
  };

  N.ticks = function ([low, high], count, whole) {
    const rough = (high - low) / Math.max(count, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const nice = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.7);
    const step = whole ? Math.max(1, nice) : nice;
    const result = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) result.push(i * step);
    result.step = step;
    return result;
  };

  // Digits behind the point that tell ticks apart.
  const digits = (step) => Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));

  N.format = {
    percent: (step) => (v) => `${(100 * v).toFixed(digits(100 * step))} %`,
    plain: (step) => (v) => (Math.abs(v) >= 1000 ? N.integer(v) : v.toFixed(digits(step))),
    count(step, [, high]) {
      const [unit, size] = [
        ["G", 1e9],
        ["M", 1e6],
        ["k", 1e3],
        ["", 1],
      ].find(([, s]) => Math.abs(high) >= s) || ["", 1];
      return (v) => `${(v / size).toFixed(digits(step / size))}${unit && ` ${unit}`}`;
    },
    ms: (step) => (v) => (v / 1e6).toFixed(digits(step / 1e6)),
  };

  // box: {left, top, right, bottom} in pixels; x and y are scales.
  N.frame = function (svg, box, x, y, options) {
    const across = N.ticks(x.domain, Math.max(2, Math.floor((box.right - box.left) / 80)), options.wholeX);
    const up = N.ticks(y.domain, Math.max(2, Math.floor((box.bottom - box.top) / 40)));
    const formatX = options.formatX(across.step, x.domain);
    const formatY = options.formatY(up.step, y.domain);
    for (const value of up) {
      svg.append(
        N.svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }),
        N.svg("text", { class: "soft", x: box.left - 5, y: y(value) + 4, "text-anchor": "end" }, formatY(value)),
      );
    }
    for (const value of across) {
      const text = formatX(value);
      // The last one may not fit behind the end of the axis.
      const anchor = x(value) + 3.4 * text.length > box.right + 8 ? "end" : "middle";
      svg.append(
        N.svg("line", { class: "axis", x1: x(value), x2: x(value), y1: box.bottom, y2: box.bottom + 4 }),
        N.svg("text", { class: "soft", x: x(value), y: box.bottom + 16, "text-anchor": anchor }, text),
      );
    }
    svg.append(N.svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
    if (options.labelX) {
      svg.append(N.svg("text", { x: box.right, y: box.bottom + 32, "text-anchor": "end" }, options.labelX));
    }
    if (options.labelY) svg.append(N.svg("text", { x: 2, y: 12 }, options.labelY));
  };
})(NEAS);
