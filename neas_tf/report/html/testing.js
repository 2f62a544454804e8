// The test: which classes are taken for which, and how far the paths disagree.
(function (N) {
  const MOST_CLASSES = 40;

  function confusionPlot(data, width) {
    const names = data.class_names;
    const n = data.num_classes;
    const longest = Math.min(14, Math.max(...names.map((name) => name.length)));
    const left = 12 + 6.5 * longest;
    const cell = Math.max(9, Math.min(44, (width - left - 4) / n));
    const head = left;
    const svg = N.svg("svg", {
      id: "confusion",
      width: left + cell * n + 4,
      height: head + cell * n + 4,
      role: "img",
      "aria-label": `Confusion matrix of ${n} classes. The table of the most frequent confusions says what stands out.`,
    });
    const row = new Array(n).fill(0);
    for (const [label, , count] of data.counts) row[label] += count;
    const counts = new Map(data.counts.map(([label, named, count]) => [label * n + named, count]));
    const short = (name) => (name.length > 14 ? `${name.slice(0, 13)}…` : name);
    for (let i = 0; i < n; i += 1) {
      const x0 = left + cell * (i + 0.5);
      svg.append(
        N.svg("text", { x: left - 5, y: head + cell * (i + 0.5) + 4, "text-anchor": "end" }, short(names[i])),
        N.svg("text", { x: x0, y: head - 5, transform: `rotate(-90 ${x0} ${head - 5})`, dy: 4 }, short(names[i])),
      );
      for (let j = 0; j < n; j += 1) {
        const count = counts.get(i * n + j) || 0;
        const share = row[i] ? count / row[i] : 0;
        const [x, y] = [left + cell * j, head + cell * i];
        // Errors are few: their square root makes them visible beside the diagonal.
        const strength = Math.sqrt(share);
        svg.append(
          N.shade(
            N.svg(
              "rect",
              { class: "cell", x, y, width: cell, height: cell },
              N.svg("title", null, `${names[i]} taken for ${names[j]}: ${N.integer(count)} of ${N.integer(row[i])}`),
            ),
            strength,
          ),
        );
        if (count && 6 * N.integer(count).length + 4 <= cell) {
          const text = N.svg(
            "text",
            { class: "small", x: x + cell / 2, y: y + cell / 2 + 3.5, "text-anchor": "middle" },
            N.integer(count),
          );
          if (strength > 0.55) text.style.fill = "var(--high-ink)";
          svg.append(text);
        }
      }
    }
    return N.el("div", { class: "scroll" }, svg);
  }

  function confusions(data) {
    const row = new Array(data.num_classes).fill(0);
    for (const [label, , count] of data.counts) row[label] += count;
    const wrong = data.counts
      .filter(([label, named]) => label !== named)
      .sort((a, b) => b[2] - a[2] || a[0] - b[0] || a[1] - b[1])
      .slice(0, 10);
    return N.table(
      [
        { label: "class" },
        { label: "taken for" },
        { label: "images", num: true },
        { label: "of its images", num: true },
      ],
      wrong.map(([label, named, count]) => [
        data.class_names[label],
        data.class_names[named],
        N.integer(count),
        N.percent(count / row[label], 1),
      ]),
      "The most frequent confusions",
    );
  }

  function disagreement(data) {
    const size = data.differ.length;
    const columns = [{ label: "" }, ...Array.from({ length: size }, (_, k) => ({ label: `path ${k + 1}`, num: true }))];
    const share = (count) => (data.examples ? N.percent(count / data.examples) : "–");
    const rows = data.differ.map((row, i) => [
      `path ${i + 1}`,
      ...row.map((count, j) => (i === j ? "–" : share(count))),
    ]);
    const wrong = data.both_wrong.map((row, i) => [`path ${i + 1}`, ...row.map(share)]);
    return N.el(
      "div",
      { id: "disagreement" },
      N.el("h3", null, "Path disagreement"),
      N.el("p", { class: "note" }, "Share of the test images for which two paths name different classes."),
      N.table(columns, rows, "Path disagreement"),
      N.el("h3", null, "Errors in common"),
      N.el(
        "p",
        { class: "note" },
        "Share of the test images that both paths get wrong; on the diagonal each path's own errors.",
      ),
      N.table(columns, wrong, "Errors in common"),
    );
  }

  N.testSection = function (run) {
    const section = N.el("section", { class: "card", id: "test" }, N.el("h2", null, "Test of the retrained ensemble"));
    const data = run.confusion;
    if (!data) {
      section.append(
        N.el(
          "p",
          { class: "missing" },
          "confusion matrix and path disagreement; they need retrain/confusion.json, which the retraining writes (runs of older versions have none).",
        ),
      );
      return section;
    }
    const plot = N.el("div", null);
    const left = N.el("div", null, N.el("h3", null, "Confusion matrix of the ensemble"));
    if (data.num_classes > MOST_CLASSES) {
      left.append(
        N.el(
          "p",
          { class: "note" },
          `${N.integer(data.num_classes)} classes are too many for a picture (up to ${MOST_CLASSES}).`,
        ),
      );
    } else {
      left.append(
        N.el(
          "p",
          { class: "note" },
          "Rows: the right class; columns: the class that the ensemble names. The colour follows the square root of the share.",
        ),
        plot,
      );
      N.redrawn(plot, (width) => N.clear(plot).append(confusionPlot(data, width)));
    }
    section.append(
      N.el("p", { class: "note" }, `${N.plural(data.examples, "test image")}.`),
      N.el(
        "div",
        { class: "columns two" },
        left,
        N.el("div", null, N.el("h3", null, "The most frequent confusions"), confusions(data), disagreement(data)),
      ),
    );
    return section;
  };
})(NEAS);
