// The chosen run, candidate, cost and shrink: what follows when one of them changes.
NEAS.load()
  .then(() => {
  const N = NEAS;
  const percent = (value) => `${(100 * value).toFixed(2)} %`;
  const integer = (value) => String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  const amount = (value) => {
    const [unit, size] = [["G", 1e9], ["M", 1e6], ["k", 1e3], ["", 1]].find(([, s]) => Math.abs(value) >= s) || ["", 1];
    return size === 1 ? String(value) : `${(value / size).toFixed(2)} ${unit}`;
  };
  const COSTS = {
    macs: (v) => `${amount(v)} MACs`,
    params: (v) => `${amount(v)} parameters`,
    paper_flops: (v) => `${amount(v)} FLOPs (paper)`,
    latency_ns: (v) => `${(v / 1e6).toFixed(3)} ms predicted`,
  };

  // "s1:k3e4|k3e6|k5e6" → {split: 1, paths: [[k3e4, k3e6], [k3e4, k5e6]]}
  function parsed(key) {
    const [head, rest] = [key.slice(0, key.indexOf(":")), key.slice(key.indexOf(":") + 1)];
    const parts = rest.split("|").map((part) => part.split(".").filter((name) => name));
    return { split: parseInt(head.slice(1), 10), paths: parts.slice(1).map((own) => parts[0].concat(own)) };
  }

  function facts(run, row) {
    const told = [`${percent(row.a)} in the search`];
    if ("r" in row) told[0] += ` (estimate, stopped after ${integer(row.r)} images)`;
    if ("looks" in row) told[0] += ` (mean of ${row.looks} looks)`;
    (run.search.numbers || []).filter((name) => name in row).forEach((name) => told.push(`${name.replace(/_/g, " ")} ${row[name].toFixed(4)}`));
    if (row.p.length) told.push(`paths alone: ${row.p.map(percent).join(", ")}`);
    run.search.metrics.forEach((metric) => told.push(COSTS[metric](row[metric])));
    const { split, paths } = parsed(row.key);
    return [...told, `generation ${row.g}, ${row.o}`, `${paths.length} paths, split after layer ${split}`];
  }

  // Layers of an ensemble: [place, path or "all", operator, shape, MACs, x, y].
  function layers(run, key, frame) {
    const { split, paths } = parsed(key);
    const [xs, ys] = [frame.dataset.x, frame.dataset.y].map((text) => text.split(" ").map(Number));
    const rows = [];
    paths.forEach((path, k) =>
      path.forEach((name, i) => {
        if (i < split && k) return;
        const macs = run.space.macs[i][run.space.operators.indexOf(name)];
        rows.push([i + 1, i < split ? "all" : k + 1, name, run.space.layers[i], macs, xs[i], i < split ? Number(frame.dataset.trunk) : ys[k]]);
      }),
    );
    return rows;
  }

  function diagram(node, id, run, key) {
    const place = document.getElementById(`${id}-picture`);
    if (!place) return;
    const { split, paths } = parsed(key);
    const frame = document.getElementById(`${id}-frame-${paths.length}-${split}`);
    const total = node.querySelector(".diagram-total");
    place.replaceChildren();
    if (!frame || paths.flat().some((name) => !run.space.operators.includes(name))) {
      total.textContent = "The ensemble does not lie in the run's search space.";
      return;
    }
    const svg = frame.content.firstChild.cloneNode(true);
    const rows = layers(run, key, frame);
    for (const [layer, path, name, , macs, x, y] of rows) {
      const use = document.createElementNS(svg.namespaceURI, "use");
      for (const [key, value] of Object.entries({ href: `#${id}-op-${name}`, x, y, "data-name": name })) use.setAttribute(key, value);
      const title = document.createElementNS(svg.namespaceURI, "title");
      title.textContent = `layer ${layer}, path ${path}: ${name}, ${amount(macs)} MACs`;
      use.append(title);
      svg.append(use);
    }
    const sum = (list) => list.reduce((a, row) => a + row[4], 0);
    const shared = run.space.trunk + sum(rows.filter((row) => row[1] === "all"));
    const all = run.space.trunk + sum(rows) + paths.length * run.space.head;
    const own = paths.map((path, k) => `path ${k + 1}: ${path.slice(split).join(", ") || "no layers of its own"}, head`);
    svg.setAttribute("aria-label", `Ensemble of ${paths.length} paths, ${amount(all)} MACs. Shared: stem, ${paths[0].slice(0, split).join(", ")}. ${own.join(". ")}. Their logits are averaged.`);
    total.dataset.macs = all;
    total.textContent = `${integer(all)} MACs: ${amount(shared)} shared, ${amount(all - shared)} in the ${paths.length === 1 ? "path" : `${paths.length} paths`} after the split.`;
    place.append(svg);
    const table = N.el("table");
    for (const [kind, cells] of [["th", ["layer", "path", "operator", "height×width×channels", "MACs"]], ...rows.map((row) => ["td", [...row.slice(0, 4), integer(row[4])]])]) {
      const line = N.el("tr");
      line.append(...cells.map((cell) => N.el(kind, cell)));
      table.append(line);
    }
    node.querySelector(".layers").replaceChildren(table);
  }

  function saves(node, id, run) {
    const key = () => node.querySelector(".candidate-key").textContent;
    node.querySelector(".json").addEventListener("click", () => {
      const { split, paths } = parsed(key());
      const value = { format: "neas-architecture/1", name: "", split_point: split, paths };
      N.saveText(`${run.name}-architecture.json`, "application/json", JSON.stringify(value, null, 1));
    });
    node.querySelector(".diagram-png")?.addEventListener("click", () => {
      const svg = document.querySelector(`#${id}-picture svg`);
      if (svg) N.savePicture(`${run.name}-architecture.png`, svg).catch((error) => N.report(error.stack));
    });
  }

  function search(node, id, run) {
    const rows = run.search.rows;
    const find = (n) => rows.find((row) => row.n === n);
    const chosen = () => find(N.number("candidate")) || find(run.search.start);
    const cost = () => (run.search.metrics.includes(N.get("cost")) ? N.get("cost") : run.search.cost);
    const choose = (n) => find(n) && N.set({ candidate: n });
    const box = node.querySelector(".number");
    const select = node.querySelector(".cost");
    const plots = N.all("[data-metric]", node).map((part) => ({ part, metric: part.dataset.metric, plot: part.querySelector(".chart") }));
    let shown = null;

    N.follow(() => {
      if (node.hidden) return;
      const row = chosen();
      select.value = cost();
      box.value = row.n;
      for (const { part, metric, plot } of plots) {
        part.hidden = metric !== cost();
        N.view(plot.id)?.signal("chosen", row.n).runAsync();
        plot.setAttribute("aria-valuenow", row.n);
        plot.setAttribute("aria-valuetext", [`Candidate ${row.n}`, ...facts(run, row)].join(", "));
      }
      N.draw();
      if (shown === row.n) return;
      shown = row.n;
      const names = [row.w && "the winner", row.key === run.architecture && "retrained"].filter(Boolean);
      node.querySelector(".candidate-title").textContent = [`Candidate ${row.n}`, ...names].join(", ");
      node.querySelector(".candidate-facts").textContent = facts(run, row).join(" · ");
      node.querySelector(".candidate-key").textContent = row.key;
      diagram(node, id, run, row.key);
    });

    for (const { metric, plot } of plots) {
      plot.setAttribute("aria-valuemin", rows[0].n);
      plot.setAttribute("aria-valuemax", rows[rows.length - 1].n);
      plot.addEventListener("drawn", ({ detail: view }) => {
        view.signal("chosen", chosen().n).runAsync();
        view.addSignalListener("pick", (_, value) => value.n && choose(value.n[0]));
      });
      const quality = run.search.quality.field;
      const byCost = [...rows].sort((a, b) => a[metric] - b[metric] || a[quality] - b[quality] || a.n - b.n);
      const byQuality = [...rows].sort((a, b) => a[quality] - b[quality] || a.n - b.n);
      const moved = (list, by) => list[Math.max(0, Math.min(list.length - 1, list.indexOf(chosen()) + by))];
      const moves = {
        ArrowLeft: () => moved(byCost, -1),
        ArrowRight: () => moved(byCost, 1),
        ArrowUp: () => moved(byQuality, 1),
        ArrowDown: () => moved(byQuality, -1),
        PageUp: () => moved(byQuality, 10),
        PageDown: () => moved(byQuality, -10),
        Home: () => byCost[0],
        End: () => byCost[byCost.length - 1],
      };
      plot.addEventListener("keydown", (event) => {
        if (!moves[event.key]) return;
        event.preventDefault();
        choose(moves[event.key]().n);
      });
    }
    select.addEventListener("change", () => N.set({ cost: select.value }));
    box.addEventListener("change", () => choose(parseInt(box.value, 10)) || N.tell());
    N.all("[data-candidate]", node).forEach((button) => button.addEventListener("click", () => choose(Number(button.dataset.candidate))));
    node.querySelector(".csv").addEventListener("click", () => {
      const head = ["n", "g", "o", "a", ...(run.search.numbers || []), ...run.search.metrics, "key"];
      const names = { n: "candidate", g: "generation", o: "origin", a: "accuracy" };
      const lines = rows.map((row) => head.map((name) => JSON.stringify(row[name])).join(","));
      N.saveText(`${run.name}-candidates.csv`, "text/csv", [head.map((name) => names[name] || name).join(","), ...lines].join("\n"));
    });
  }

  function shrinks(node) {
    const states = N.all(".state", node);
    const slider = node.querySelector(".shrink");
    if (!slider) return;
    const position = () => {
      const asked = states.findIndex((state) => Number(state.dataset.index) === N.number("shrink"));
      return asked < 0 ? states.length - 1 : asked;
    };
    const go = (i) => N.set({ shrink: states[Math.max(0, Math.min(states.length - 1, i))].dataset.index });
    slider.addEventListener("input", () => go(Number(slider.value)));
    N.all("[data-step]", node).forEach((button) => button.addEventListener("click", () => go(position() + Number(button.dataset.step))));
    N.follow(() => {
      const label = states[position()].dataset.label;
      states.forEach((state, i) => (state.hidden = i !== position()));
      slider.value = position();
      slider.setAttribute("aria-valuetext", label);
      node.querySelector(".shrink-label").textContent = label;
      N.draw();
    });
  }

  const parts = N.all(".run");
  const chosenRun = () => (parts[N.number("run")] ? N.number("run") : 0);
  const chooseRun = (index) => N.set({ run: index, candidate: null, shrink: null });
  const select = document.getElementById("run");
  select?.addEventListener("change", () => chooseRun(Number(select.value)));
  N.all("[data-choose-run]").forEach((button) => button.addEventListener("click", () => chooseRun(Number(button.dataset.chooseRun))));
  N.follow(() => {
    parts.forEach((part, i) => (part.hidden = i !== chosenRun()));
    N.all("[data-choose-run]").forEach((button, i) => button.setAttribute("aria-pressed", String(i === chosenRun())));
    if (select) select.value = chosenRun();
  });
  N.guard(N.charts);
  parts.forEach((node, i) => {
    const [run, id] = [N.data.runs[i], `r${i}`];
    if (run.search) N.guard(() => search(node, id, run));
    else if (run.architecture) {
      node.querySelector(".candidate-key").textContent = run.architecture;
      N.guard(() => diagram(node, id, run, run.architecture));
    }
    if (run.architecture || run.search) N.guard(() => saves(node, id, run));
    N.guard(() => shrinks(node));
  });
  // The address holds the choice, so that links within the page scroll only.
  const links = N.all(".contents a");
  links.forEach((link) =>
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const section = document.querySelector(link.hash);
      section.tabIndex = -1;
      section.scrollIntoView();
      section.focus({ preventScroll: true });
    }),
  );
  // The bar marks the section that is being read: the last that has come up to its lower edge.
  function mark() {
    for (const bar of N.all(".contents")) {
      const own = links.filter((link) => link.parentNode === bar && bar.offsetWidth);
      const edge = bar.getBoundingClientRect().bottom + 24;
      const reached = own.filter((link) => document.querySelector(link.hash).getBoundingClientRect().top <= edge);
      const end = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 2;
      const current = end && window.scrollY ? own[own.length - 1] : reached[reached.length - 1] || own[0];
      own.forEach((link) => (link === current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
      if (current) bar.scrollLeft = current.offsetLeft - bar.offsetLeft - 24;
    }
  }
  window.addEventListener("scroll", () => window.requestAnimationFrame(mark), { passive: true });
  N.follow(mark);
  N.live(N.data.reload, N.draw());
})
  .catch((error) => NEAS.report(error.stack || String(error)));
