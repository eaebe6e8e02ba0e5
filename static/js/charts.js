// Charts over time with uPlot. A figure names its source, which answers {times, series: [{name, values}]}; see
// docs/dashboard-pages.md. [data-span] chooses the span of a page's charts, but for sources that name their own.
"use strict";
(() => {
  const colours = ["#2f7ed8", "#2a9d8f", "#e09f3e", "#9b5de5", "#d1495b", "#5fa8d3", "#7a9e3f", "#8d6e63", "#6c757d"];
  const every = { "15m": 15000, day: 60000, month: 600000 };
  const stepS = 5;
  const steps = 180;
  const fedAgain = 120000; // charts that live figures feed are asked for so seldom
  const charts = [];
  let point = null; // the last of the live figures
  const round = (value) => value == null ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(2)));

  const ask = (url) => fetch(url, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(20000) });
  const two = (number) => String(number).padStart(2, "0");
  const clock = (date) => `${two(date.getHours())}:${two(date.getMinutes())}`;
  const day = (date) => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;

  // The time under an axis: of the day where ticks are close, else the date; seconds only where they differ.
  function times(ticks) {
    const step = ticks.length > 1 ? ticks[1] - ticks[0] : 60;
    return ticks.map((at) => {
      const date = new Date(at * 1000);
      if (step >= 86400) return day(date).slice(5);
      return step < 60 ? `${clock(date)}:${two(date.getSeconds())}` : clock(date);
    });
  }

  // A figure between two empty steps has no line, and is shown as a point.
  function alone(values) {
    return values.flatMap((value, i) => value != null && values[i - 1] == null && values[i + 1] == null ? [i] : []);
  }

  function stacked(series) {
    const below = [];
    return series.map((one) => one.values.map((value, i) => (below[i] = (below[i] ?? 0) + (value ?? 0))));
  }

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.area = figure.querySelector(".chart-area");
      this.plot = null;
      this.names = "";
      this.changes = [];
      new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.area);
    }

    size() {
      return { width: Math.max(200, this.area.clientWidth), height: 190 };
    }

    async load(span, changes) {
      this.changes = changes;
      const url = new URL(this.figure.dataset.chart, location.origin);
      if (!url.searchParams.has("span")) url.searchParams.set("span", span);
      const answer = await ask(url);
      if (answer.status === 401) { location.reload(); return; }
      if (!answer.ok) return;
      this.draw(await answer.json());
      this.span = span;
      if (point && this.of(point)) this.add(point); // it may have come meanwhile
    }

    // What a step of all models says for this chart, if anything.
    of(point) {
      const url = new URL(this.figure.dataset.chart, location.origin);
      return url.search ? undefined : point[url.pathname.split("/").pop()];
    }

    // One step more, from the live figures. False where the whole has to be asked for.
    add(point) {
      const by = this.of(point);
      const last = this.times?.at(-1);
      if (this.span !== "15m" || last === undefined || point.at > last + 2.5 * stepS) return false;
      if (point.at <= last) return true;
      const values = this.next(by);
      if (!values) return false;
      const from = Math.max(0, this.times.length + 1 - steps);
      const times = [...this.times, point.at].slice(from);
      this.draw({ times, series: this.series.map((one, i) => ({ ...one, values: [...one.values, values[i]].slice(from) })) });
      return true;
    }

    // What comes next in each line; a model that has none counts among the others.
    next(by) {
      const own = new Set(this.series.map((one) => one.name));
      const rest = Object.entries(by).filter(([name]) => !own.has(name)).map(([, value]) => value);
      const others = this.series.findIndex((one) => / others$/.test(one.name));
      if (rest.length && others < 0) return null;
      const missing = this.figure.dataset.kind === "stack" ? 0 : null;
      return this.series.map((one, i) => i === others ? rest.reduce((sum, value) => sum + value, 0) : by[one.name] ?? missing);
    }

    draw({ times, series }) {
      this.times = times;
      this.figure.dataset.until = times.at(-1) ?? "";
      this.series = series;
      const stack = this.figure.dataset.kind === "stack";
      if (times.length < 2 || !series.length) {
        this.plot?.destroy();
        this.plot = null;
        this.names = "";
        this.area.textContent = times.length < 2 ? "Figures come in the next seconds." : "Nothing was asked in this time.";
        return;
      }
      const lines = stack ? stacked(series) : series.map((one) => one.values);
      // What lies on top is drawn first, so that each keeps its own strip.
      const order = stack ? series.map((_, i) => series.length - 1 - i) : series.map((_, i) => i);
      const data = [times, ...order.map((i) => lines[i])];
      const names = JSON.stringify(series.map((one) => one.name));
      if (this.plot && this.names === names) {
        this.plot.setData(data);
        return;
      }
      this.plot?.destroy();
      this.area.replaceChildren();
      this.names = names;
      this.plot = new uPlot(this.options(order, stack), data, this.area);
    }

    // A dashed line where a deployment changed, with its name where that of the one after it leaves room.
    mark(plot, colour) {
      const { ctx, bbox } = plot;
      let free = Infinity;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = colour;
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.textAlign = "left";
      ctx.textBaseline = "alphabetic";
      ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
      for (const change of this.changes) {
        const x = plot.valToPos(change.at, "x", true);
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        const words = `${change.model} ${change.versions}`.trim();
        const width = ctx.measureText(words).width;
        const left = Math.min(x + 4 * devicePixelRatio, bbox.left + bbox.width - width);
        if (left + width > free) continue;
        ctx.fillText(words, left, bbox.top + 11 * devicePixelRatio);
        free = left - 8 * devicePixelRatio;
      }
      ctx.restore();
    }

    options(order, stack) {
      const unit = this.figure.dataset.unit;
      // A canvas knows no variables: the colours are read where they are in use.
      const text = getComputedStyle(this.area).color;
      const grid = getComputedStyle(document.querySelector(".bar")).borderBottomColor;
      const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
      const line = (i) => ({
        label: this.series[i].name,
        stroke: colours[i % colours.length],
        fill: stack ? colours[i % colours.length] + "cc" : undefined,
        width: stack ? 1 : 1.75,
        points: { show: !stack, size: 5, filter: (plot, at) => alone(plot.data[at]) },
        value: (_, value, __, at) => at == null ? "–" : `${round(this.series[i].values[at])} ${unit}`,
      });
      return {
        ...this.size(),
        cursor: { drag: { x: false, y: false }, sync: { key: "page" } },
        hooks: { draw: [(plot) => this.mark(plot, text)] },
        scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
        axes: [{ ...axis, space: 72, values: (_, ticks) => times(ticks) }, { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => round(tick)) }],
        series: [{ label: "Time", value: (_, at) => at == null ? "–" : `${day(new Date(at * 1000))} ${clock(new Date(at * 1000))}` }, ...order.map(line)],
      };
    }
  }

  // The span stands in the address, so that a link shows what was looked at.
  const chosen = document.querySelector("[data-span]");
  const asked = new URL(location).searchParams.get("span");
  if (chosen && asked in every) chosen.value = asked;
  const span = () => chosen?.value ?? "15m";
  function keep() {
    const url = new URL(location);
    url.searchParams.set("span", span());
    history.replaceState(history.state, "", url);
    return load();
  }

  // What was put into service or taken out meanwhile: of the model that the page is about, or of all. Seldom anything.
  let told = { url: "", at: 0, changes: [] };
  async function changed() {
    const url = new URL("/dashboard/history/changes", location.origin);
    const model = new URL(charts[0].figure.dataset.chart, location.origin).searchParams.get("model");
    if (model) url.searchParams.set("model", model);
    url.searchParams.set("span", span());
    if (told.url === url.href && Date.now() - told.at < 30000) return told.changes;
    const answer = await ask(url);
    const changes = answer.ok ? (await answer.json()).map((one) => ({ ...one, model: model ? "" : one.model })) : [];
    told = { url: url.href, at: Date.now(), changes };
    return changes;
  }
  let loaded = 0;
  let fed = 0;
  let loading = false;
  let more = false;
  async function load() {
    more = loading;
    if (loading || document.hidden || !charts.length) return;
    loading = true;
    await loadAll().finally(() => { loading = false; });
    if (more) await load();
  }
  async function loadAll() {
    loaded = Date.now();
    const changes = await changed().catch(() => []);
    await Promise.allSettled(charts.map((chart) => chart.load(span(), changes)));
  }
  function again() {
    setTimeout(async () => {
      const pause = span() === "15m" && Date.now() - fed < every["15m"] ? fedAgain : 0;
      if (Date.now() - loaded >= pause) await load();
      again();
    }, every[span()]);
  }
  addEventListener("pulvinar:figures", ({ detail }) => {
    if (!detail.point) return;
    point = detail.point;
    if (span() !== "15m") return;
    const feeds = charts.filter((chart) => chart.of(point));
    const whole = feeds.filter((chart) => !chart.add(point)).length;
    if (whole && !loading) load();
    else if (feeds.length === charts.length) fed = Date.now();
  });
  // A mark where something went into service, once the server tells of it: its answer may be some seconds old.
  async function mark() {
    told.at = 0;
    const changes = await changed().catch(() => null);
    for (const chart of changes ? charts : []) {
      chart.changes = changes;
      chart.plot?.redraw();
    }
  }
  addEventListener("pulvinar:changed", () => { if (charts.length) setTimeout(mark, 5000); });
  for (const figure of document.querySelectorAll("[data-chart]")) charts.push(new Chart(figure));
  chosen?.addEventListener("change", keep);
  document.addEventListener("visibilitychange", load);
  addEventListener("pulvinar:theme", () => { for (const chart of charts) chart.names = ""; load(); });
  load();
  again();
})();
