// Figures that move: one event stream a page, and only while it is seen. The page reads without it.
"use strict";
(() => {
  const place = document.querySelector("[data-live-url]");
  if (!place) return;
  const history = new Map();
  const kept = 60;
  const parts = document.getElementById("parts");
  const rest = 5000;
  let edition = null;
  let renewed = Date.now();
  let due = 0;
  let source = null;

  function spark(key, value) {
    const line = document.querySelector(`[data-spark="${key}"] polyline`);
    if (!line) return;
    const values = history.get(key) ?? [];
    values.push(value);
    if (values.length > kept) values.shift();
    history.set(key, values);
    if (values.length < 5) return; // what the server has drawn says more until then
    const top = Math.max(...values) || 1;
    line.setAttribute("points", values.map((one, i) =>
      `${(100 * i / (values.length - 1)).toFixed(1)},${(23 - one / top * 22).toFixed(1)}`).join(" "));
  }

  function write(element, text) {
    if (element && element.textContent !== text) element.textContent = text;
  }

  // The parts that stand still are asked for as soon as they are others, but not all the time, nor by all at once.
  function renew(said) {
    const before = edition;
    edition = said;
    if (before === null || before === said || due) return;
    due = setTimeout(() => {
      due = 0;
      if (document.hidden) { edition = ""; return; } // the next figures that are seen tell of it again
      renewed = Date.now();
      parts?.setAttribute("hx-get", `${parts.dataset.parts}?edition=${edition}`);
      parts?.dispatchEvent(new Event("refresh"));
      dispatchEvent(new Event("pulvinar:changed"));
    }, Math.max(1000 * Math.random(), renewed + rest - Date.now()));
  }

  function show(figures) {
    renew(figures.parts);
    for (const [key, tile] of Object.entries(figures.tiles)) {
      const box = document.querySelector(`[data-tile="${key}"]`);
      if (!box) continue;
      write(box.querySelector("[data-live]"), tile.text);
      write(box.querySelector("[data-note]"), tile.note);
      box.className = tile.tone ? `tile tile-${tile.tone}` : "tile";
      spark(key, tile.value);
    }
    for (const row of document.querySelectorAll("tr[data-model]")) {
      const one = figures.models[row.dataset.model];
      if (!one) continue;
      for (const cell of row.querySelectorAll("[data-figure]")) write(cell, one[cell.dataset.figure]);
    }
    figures.cores.forEach((percent, i) => {
      const bar = document.querySelector(`[data-core="${i}"]`);
      bar?.setAttribute("y", (40 - percent * 0.4).toFixed(1));
      bar?.setAttribute("height", (percent * 0.4).toFixed(1));
    });
    dispatchEvent(new CustomEvent("pulvinar:figures", { detail: figures }));
  }

  function watch() {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (!source) {
      source = new EventSource(place.dataset.liveUrl);
      source.onmessage = (event) => show(JSON.parse(event.data));
      source.onerror = () => {
        if (source?.readyState !== EventSource.CLOSED) return; // the browser comes back by itself
        source = null;
        setTimeout(watch, 10000);
      };
    }
  }
  document.addEventListener("visibilitychange", watch);
  addEventListener("pagehide", () => { source?.close(); source = null; });
  addEventListener("pageshow", watch);
  watch();
})();
