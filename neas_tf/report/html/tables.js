// Numbers: the summary of a run, the comparison of several, tables of a study.
(function (N) {
  const COMPARED = [
    ["ensemble", "test accuracy", (v) => N.percent(v)],
    ["gain", "over its best path", (v) => `${v >= 0 ? "+" : "−"}${Math.abs(100 * v).toFixed(2)} points`],
    ["best_search", "best in the search", (v) => N.percent(v)],
    ["macs", "MACs", N.count],
    ["params", "parameters", N.count],
    ["latency_ns", "predicted latency", (v) => `${(v / 1e6).toFixed(3)} ms`],
    ["num_paths", "paths", String],
    ["split_point", "split after layer", (v, f) => `${v} of ${f.num_layers}`],
    ["candidates", "candidates", N.integer],
    ["tflite_bytes", "TFLite file", (v) => `${(v / 1e6).toFixed(2)} MB`],
    ["seconds", "wall time", N.duration],
  ];

  const STATE_WORDS = { done: "✓ ", begun: "… ", none: "○ " };
  const STATE_TOLD = { done: "finished", begun: "begun", none: "not begun" };

  N.summarySection = function (run) {
    const f = run.figures;
    const shown = COMPARED.filter(
      ([key]) =>
        ["ensemble", "gain", "macs", "params", "latency_ns", "candidates", "seconds"].includes(key) && f[key] !== null,
    );
    const stages = N.el(
      "ul",
      { class: "stages", "aria-label": "Stages" },
      run.stages.map((stage) =>
        N.el(
          "li",
          { "data-state": stage.state },
          STATE_WORDS[stage.state],
          `${stage.name}: ${STATE_TOLD[stage.state]}${stage.text ? `, ${stage.text}` : ""}`,
        ),
      ),
    );
    const tables = run.sections.map(([title, rows]) =>
      N.el(
        "div",
        null,
        N.el("h3", null, title),
        N.el(
          "table",
          { class: "facts" },
          N.el(
            "tbody",
            null,
            rows.map(([label, text]) =>
              N.el(
                "tr",
                null,
                N.el("th", { scope: "row" }, label),
                N.el("td", null, label === "architecture" ? N.el("code", null, text) : text),
              ),
            ),
          ),
        ),
      ),
    );
    return N.el(
      "section",
      { class: "card", id: "summary" },
      N.el("h2", null, "Summary of ", run.name),
      stages,
      shown.length
        ? N.el(
            "dl",
            { class: "figures" },
            shown.map(([key, label, text]) =>
              N.el("div", null, N.el("dt", null, label), N.el("dd", null, text(f[key], f))),
            ),
          )
        : null,
      N.el("div", { class: "flow" }, tables),
    );
  };

  N.remarks = function (run) {
    if (!run.missing.length && !run.problems.length) return null;
    const list = (title, items) =>
      items.length
        ? [
            N.el("h3", null, title),
            N.el(
              "ul",
              null,
              items.map((item) => N.el("li", null, item)),
            ),
          ]
        : [];
    return N.el(
      "section",
      { class: "card", id: "remarks" },
      N.el("h2", null, "What the folder lacks"),
      list("Not there (yet)", run.missing),
      list("Problems", run.problems),
    );
  };

  // Runs as rows; their names choose which one is shown below.
  N.comparison = function (runs) {
    const used = COMPARED.filter(([key]) => runs.some((run) => run.figures[key] !== null));
    const rows = runs.map((run, i) => {
      const button = N.el(
        "button",
        { type: "button", class: "link", "aria-pressed": String(i === N.runIndex()) },
        run.name,
      );
      button.addEventListener("click", () => N.chooseRun(i));
      return [
        button,
        ...used.map(([key, , text]) => (run.figures[key] === null ? null : text(run.figures[key], run.figures))),
      ];
    });
    const same = new Set(runs.map((run) => JSON.stringify(run.space && run.space.layers))).size === 1;
    return N.el(
      "section",
      { class: "card", id: "comparison" },
      N.el("h2", null, "Comparison of the runs"),
      N.el(
        "p",
        { class: "note" },
        same ? "All runs have layers of the same shapes." : "The runs' spaces have layers of different shapes.",
        " Accuracies in the search are those of each run's own supernet.",
      ),
      N.table([{ label: "run" }, ...used.map(([, label]) => ({ label, num: true }))], rows, "Comparison of the runs"),
    );
  };

  N.studyPictures = (pictures) =>
    pictures.map((picture) =>
      N.el(
        "section",
        { class: "card study" },
        N.el("h2", null, picture.title),
        N.el("img", { class: "picture", alt: picture.title, src: `data:image/png;base64,${picture.data}` }),
      ),
    );

  N.studyTables = (tables) =>
    tables.map((table) =>
      N.el(
        "section",
        { class: "card study" },
        N.el("h2", null, table.title),
        table.note ? N.el("p", { class: "note" }, table.note) : null,
        N.table(
          table.columns.map((label, i) => ({
            label,
            num: table.rows.length > 0 && table.rows.every((row) => typeof row[i] === "number" || row[i] === null),
          })),
          table.rows,
          table.title,
        ),
      ),
    );
})(NEAS);
