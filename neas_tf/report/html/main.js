// Puts the page together from the data block.
(function (N) {
  const data = JSON.parse(document.getElementById("data").textContent);

  N.runIndex = function () {
    const asked = N.state.number("run");
    return asked !== null && asked >= 0 && asked < data.runs.length ? asked : 0;
  };
  N.chooseRun = function (index) {
    N.state.set({ run: index, candidate: null, shrink: null }, true);
    N.start();
  };

  function selector() {
    const select = N.el(
      "select",
      { id: "run" },
      data.runs.map((run, i) => N.el("option", { value: i, selected: i === N.runIndex() }, run.name)),
    );
    select.addEventListener("change", () => {
      N.chooseRun(parseInt(select.value, 10));
      document.getElementById("run").focus();
    });
    return N.el("div", { class: "controls" }, N.el("label", null, "Run shown below", select));
  }

  N.start = function () {
    N.state.forget();
    N.hideTip();
    const main = N.clear(document.getElementById("main"));
    document.getElementById("title").textContent = data.title;
    const run = data.runs[N.runIndex()];
    if (data.notes.length) {
      main.append(
        N.el(
          "ul",
          { id: "notes" },
          data.notes.map((text) => N.el("li", null, text)),
        ),
      );
    }
    N.guard(() => main.append(...N.studyTables(data.tables), ...N.studyPictures(data.pictures)));
    if (!run) return;
    if (data.runs.length > 1) N.guard(() => main.append(N.comparison(data.runs), selector()));
    for (const make of [
      N.summarySection,
      N.searchSection,
      N.trainingSection,
      N.shrinkSection,
      N.testSection,
      N.remarks,
    ]) {
      N.guard(() => {
        const section = make(run);
        if (section) main.append(section);
      });
      N.guard(N.flush);
    }
  };
  N.start();
  N.live(data.reload);
})(NEAS);
