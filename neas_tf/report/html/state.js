// What is chosen (run, candidate, shrink, cost) lies in the address behind '#', so that a link or a reload keeps it.
(function (N) {
  const listeners = [];
  let values = {};

  function parse() {
    values = {};
    for (const [key, value] of new URLSearchParams(window.location.hash.slice(1))) values[key] = value;
  }

  function remember(change) {
    const kept = Object.assign({}, window.history.state, change);
    try {
      window.history.replaceState(kept, "", `#${new URLSearchParams(values)}`);
    } catch (error) {
      // Some browsers forbid it for files on disk; the choice then lasts until the next reload.
    }
  }

  N.state = {
    get: (key) => (key in values ? values[key] : null),
    number(key) {
      const value = parseInt(values[key], 10);
      return Number.isFinite(value) ? value : null;
    },
    set(change, quiet) {
      for (const [key, value] of Object.entries(change)) {
        if (value === null) delete values[key];
        else values[key] = String(value);
      }
      remember({});
      if (!quiet) N.state.tell(Object.keys(change));
    },
    // action(keys): called with the keys that changed.
    on: (action) => listeners.push(action),
    forget: () => {
      listeners.length = 0;
    },
    tell: (keys) => [...listeners].forEach((action) => N.guard(() => action(keys))),
  };
  parse();
  window.addEventListener("hashchange", () => {
    const before = values;
    parse();
    const keys = [...new Set([...Object.keys(before), ...Object.keys(values)])].filter((k) => before[k] !== values[k]);
    if (keys.includes("run")) N.start();
    else N.state.tell(keys);
  });

  // While a run goes on the page reloads itself, at the same place with the same choice.
  N.live = function (seconds) {
    if (!seconds) return;
    const saved = window.history.state || {};
    if (typeof saved.scroll === "number") window.scrollTo(0, saved.scroll);
    if (saved.focus && document.getElementById(saved.focus)) {
      document.getElementById(saved.focus).focus({ preventScroll: true });
    }
    const button = document.getElementById("live-pause");
    let paused = Boolean(saved.paused);
    const show = () => {
      document.getElementById("live").hidden = false;
      document.getElementById("live-text").textContent = paused
        ? "This run goes on; the page waits."
        : `This run goes on: the page reloads itself every ${seconds} s.`;
      button.textContent = paused ? "Go on" : "Pause";
      button.setAttribute("aria-pressed", String(paused));
    };
    button.addEventListener("click", () => {
      paused = !paused;
      remember({ paused });
      show();
    });
    show();
    window.setInterval(() => {
      if (paused || document.hidden) return;
      const focused = document.activeElement && document.activeElement.id;
      remember({ scroll: window.scrollY, focus: focused || null });
      window.location.reload();
    }, 1000 * seconds);
  };
})(NEAS);
