// What is known of a candidate: its architecture, its costs, and how it is told in words.
(function (N) {
  // "s1:k3e4|k3e6|k5e6" → {split: 1, paths: [[k3e4, k3e6], [k3e4, k5e6]]}
  N.parseKey = function (key) {
    const [head, rest] = [key.slice(0, key.indexOf(":")), key.slice(key.indexOf(":") + 1)];
    const parts = rest.split("|").map((part) => part.split(".").filter((name) => name));
    return { split: parseInt(head.slice(1), 10), paths: parts.slice(1).map((own) => parts[0].concat(own)), key };
  };

  // The candidates of a run's search, with rows by number.
  N.candidates = function (run) {
    const s = run.search;
    const rowOf = new Map(s.number.map((number, row) => [number, row]));
    const byKey = new Map(s.key.map((key, row) => [key, row]));
    const find = (key) => (key && byKey.has(key) ? byKey.get(key) : null);
    const best = s.accuracy.reduce((a, v, i) => (v > s.accuracy[a] && s.images[i] === null ? i : a), 0);
    const winner = find(s.winner) ?? find(run.architecture);
    return { s, rowOf, winner, start: find(run.architecture) ?? winner ?? best, size: s.number.length };
  };

  // Row of the chosen candidate.
  N.chosenRow = function (model) {
    const number = N.state.number("candidate");
    return number !== null && model.rowOf.has(number) ? model.rowOf.get(number) : model.start;
  };

  N.tellCandidate = function (run, model, row) {
    const s = model.s;
    const lines = [
      `Candidate ${s.number[row]}${row === model.winner ? ", the winner" : ""}${s.key[row] === run.architecture ? ", retrained" : ""}`,
      `${N.percent(s.accuracy[row])} in the search${s.images[row] === null ? "" : ` (estimate, stopped after ${N.integer(s.images[row])} images)`}`,
    ];
    if (s.paths[row].length) lines.push(`paths alone: ${s.paths[row].map((v) => N.percent(v)).join(", ")}`);
    for (const metric of s.metrics) lines.push(N.METRICS[metric].text(s.costs[metric][row]));
    lines.push(`generation ${s.generation[row]}, ${s.origin[row]}`);
    const { split, paths } = N.parseKey(s.key[row]);
    lines.push(`${paths.length} paths, split after layer ${split}`);
    return lines;
  };

  // The panel beside the scatter: facts of the chosen candidate and its diagram.
  N.candidatePanel = function (run, model) {
    const facts = N.el("div", { id: "candidate-facts" });
    const place = N.el("div", { id: "diagram" });
    const heading = N.el("h3", { id: "candidate-title" });
    const draw = () => {
      const row = model ? N.chosenRow(model) : null;
      const key = model ? model.s.key[row] : run.architecture;
      heading.textContent = model ? N.tellCandidate(run, model, row)[0] : "The ensemble";
      N.clear(facts);
      if (model) facts.append(N.el("p", null, N.tellCandidate(run, model, row).slice(1).join(" · ")));
      facts.append(N.el("p", null, N.el("code", null, key)));
      N.diagram(place, run, N.parseKey(key));
    };
    N.soon(draw);
    N.state.on((keys) => {
      if (keys.includes("candidate")) draw();
    });
    return N.el("div", { class: "right" }, heading, facts, place);
  };
})(NEAS);
