"use strict";
// What is chosen (run, candidate, shrink, cost) lies in the address after '#', so that a link or a reload keeps it.
const NEAS = {};
(function (N) {
  const listeners = [];
  let values = {};

  const parse = () => {
    values = Object.fromEntries(new URLSearchParams(window.location.hash.slice(1)));
  };
  function remember(change) {
    try {
      window.history.replaceState({ ...window.history.state, ...change }, "", `#${new URLSearchParams(values)}`);
    } catch (error) {
      // Some browsers forbid it for files on disk; the choice then lasts until the next reload.
    }
  }

  // The data are JSON, packed, for they repeat themselves a lot.
  N.load = async () => {
    const bytes = Uint8Array.from(atob(document.getElementById("data").textContent), (c) => c.charCodeAt(0));
    N.data = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  };
  N.get = (key) => values[key] ?? null;
  N.number = (key) => (Number.isFinite(parseInt(values[key], 10)) ? parseInt(values[key], 10) : null);
  N.set = (change) => {
    for (const [key, value] of Object.entries(change)) {
      if (value === null) delete values[key];
      else values[key] = String(value);
    }
    remember({});
    N.tell();
  };
  // Calls an action now and whenever the choice has changed.
  N.follow = (action) => {
    listeners.push(action);
    N.guard(action);
  };
  N.tell = () => listeners.forEach(N.guard);

  // A failure is told, not swallowed.
  N.report = (text) => {
    const line = document.createElement("p");
    line.textContent = `A part of this report could not be drawn: ${text}`;
    document.getElementById("errors").append(line);
  };
  N.guard = (action) => {
    try {
      action();
    } catch (error) {
      N.report(error.stack || String(error));
    }
  };
  N.el = (tag, text, attributes = {}) => {
    const node = document.createElement(tag);
    node.textContent = text ?? "";
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  N.all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // While a run is going on the page reloads itself, at the same place with the same choice.
  N.live = (seconds, drawn) => {
    if (!seconds) return;
    const saved = window.history.state || {};
    const back = () => typeof saved.scroll === "number" && window.scrollTo(0, saved.scroll);
    back();
    drawn.then(back); // charts have grown by their legends
    if (saved.focus) document.getElementById(saved.focus)?.focus({ preventScroll: true });
    const button = document.getElementById("live-pause");
    let paused = Boolean(saved.paused);
    const show = () => {
      document.getElementById("live").hidden = false;
      document.getElementById("live-text").textContent = paused
        ? "This run is going on; the page waits."
        : `This run is going on: the page reloads itself every ${seconds} s.`;
      button.textContent = paused ? "Continue" : "Pause";
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
      remember({ scroll: window.scrollY, focus: document.activeElement?.id || null });
      window.location.reload();
    }, 1000 * seconds);
  };

  parse();
  window.addEventListener("hashchange", () => {
    parse();
    N.tell();
  });
  window.addEventListener("error", (event) => N.report(event.message));
})(NEAS);
