"""The report as one HTML page that needs nothing else: plots, and beside each the table it is drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from app.bench.figures import Point
from app.bench.page_style import STYLE
from app.bench.plots import Bar, bars, milliseconds, stacks
from app.bench.report import Report, how_line, is_busy, machine_line, subject_line
from app.bench.table import ms, signed_ms

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_WORDS = {
    "engine": "the engine alone, one item a run, as many threads calling it as there are callers",
    "core": "the serving core in one process: pre- and post-processing, queue, batching and engine",
    "http": "a server in a process of its own, called over connections that stay open",
}


def page(report: Report) -> str:
    """The whole document; nothing in it is loaded from elsewhere."""
    title = f"Benchmark of {report.about['model']}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join([*_head(report, title), *_sections(report), *_details(report)])
        + "\n</main></body></html>\n"
    )


def _head(report: Report, title: str) -> Iterator[str]:
    yield f"<h1>{escape(title)}</h1>"
    lines = [subject_line(report), how_line(report), machine_line(report), report.machine["measured_at"]]
    yield '<p class="about">' + "<br>".join(escape(line) for line in lines) + "</p>"
    if not report.complete:
        yield '<p class="warning">Not complete: this is what was measured before the end.</p>'
    if is_busy(report.machine):
        yield (
            '<p class="warning">Others were at work on this machine when the measurement began: the figures are '
            "lower than they would be on a quiet one, and differences between layers are less sure.</p>"
        )
    layers = dict.fromkeys(point.layer for point in report.points)
    terms = "".join(f'<dt class="{layer}">{layer}</dt><dd>{_WORDS[layer]}</dd>' for layer in layers)
    yield f"<dl>{terms}</dl>"


def _sections(report: Report) -> Iterator[str]:
    closed, opened = report.loads("closed"), report.loads("open")
    if closed:
        named = {_callers(load): points for load, points in closed.items()}
        yield _section("Calls a second", _CLOSED, _throughput_plot(named), _throughput_table(named))
        yield _section("Latency", _WHISKERS, _latency_plot("closed", named), _latency_table(named, "callers"))
    if report.costs():
        yield _section("What each layer costs", _COSTS, _cost_plot(report), _cost_table(report))
    if opened:
        named = {f"{load:g} calls/s due": points for load, points in opened.items()}
        yield _section("Under an open loop", _OPEN, _latency_plot("open", named), _latency_table(named, "load"))


_CLOSED = "Closed loop: each caller asks again as soon as it is answered. Longer is better."
_WHISKERS = (
    "The bar is the median, the whisker reaches to the 99th percentile; both are written behind. Each number of "
    "callers has a scale of its own. Shorter is better."
)
_COSTS = (
    "The median of the lowest layer, and what each layer above it adds to that, at the same number of callers. "
    "Batches can make the core faster than runs of one item; it then adds less than nothing, and has no length."
)
_OPEN = (
    "Calls are due at random moments, whatever the answers, and are timed from when they were due, so waiting "
    "to be sent counts. The bar is the median, the whisker reaches to the 99th percentile."
)


def _section(title: str, words: str, plot: str, table: str) -> str:
    return (
        f'<section><h2>{title}</h2><p>{words}</p><div class="pair"><figure>{plot}</figure>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}, as a table">{table}</div></div>'
        "</section>"
    )


def _throughput_plot(groups: Mapping[str, Sequence[Point]]) -> str:
    drawn = {
        name: [Bar(p.layer, p.calls_per_s, _count(p.calls_per_s)) for p in points]
        for name, points in groups.items()
    }
    told = _told(groups, lambda p: f"{p.layer} {_count(p.calls_per_s)} calls a second")
    return bars("throughput", "Calls a second by number of callers and layer", told, drawn, common=True)


def _latency_plot(loop: str, groups: Mapping[str, Sequence[Point]]) -> str:
    drawn = {
        name: [
            Bar(p.layer, p.p50_ms or 0.0, f"{ms(p.p50_ms)} / {milliseconds(p.p99_ms)}", p.p99_ms) for p in points
        ]
        for name, points in groups.items()
    }
    told = _told(groups, lambda p: f"{p.layer} median {milliseconds(p.p50_ms)}, 99th {milliseconds(p.p99_ms)}")
    return bars(f"latency-{loop}", f"Latency by load and layer, {loop} loop", told, drawn, common=False)


def _cost_plot(report: Report) -> str:
    drawn: dict[str, list[Bar]] = {}
    for load, points in (report.loads("closed") or report.loads("open")).items():
        lowest = points[0]
        parts = [Bar(lowest.layer, lowest.p50_ms or 0.0, milliseconds(lowest.p50_ms))]
        added = [cost for cost in report.costs() if (cost.loop, cost.load) == (lowest.loop, load)]
        parts += [Bar(cost.layer, cost.added_p50_ms, signed_ms(cost.added_p50_ms)) for cost in added]
        drawn[_callers(load) if lowest.loop == "closed" else f"{load:g} calls/s due"] = parts
    told = ". ".join(
        f"{name}: " + ", ".join(f"{b.name} {b.label}" for b in group) for name, group in drawn.items()
    )
    return stacks("costs", "What the median latency is made of", told, drawn)


def _throughput_table(groups: Mapping[str, Sequence[Point]]) -> str:
    rows = [
        [name, p.layer, _count(p.calls_per_s), f"{p.calls:,}", str(p.failed), _batch(p)]
        for name, points in groups.items()
        for p in points
    ]
    return _table("Calls a second", ["callers", "layer", "calls/s", "answered", "failed", "items a batch"], rows)


def _latency_table(groups: Mapping[str, Sequence[Point]], load: str) -> str:
    heads = [load, "layer", "p50", "p90", "p99", "mean", "max"]
    unsent = any(p.unsent for points in groups.values() for p in points)
    rows = []
    for name, points in groups.items():
        for p in points:
            values = [ms(value) for value in (p.p50_ms, p.p90_ms, p.p99_ms, p.mean_ms, p.max_ms)]
            rows.append([name, p.layer, *values, *([f"{p.unsent:,}"] if unsent else [])])
    return _table("Latency in milliseconds", [*heads, *(["not sent in time"] if unsent else [])], rows)


def _cost_table(report: Report) -> str:
    heads = ["load", "layer", "adds to", "at the median", "keeps of its calls/s"]
    rows = [
        [
            _callers(cost.load) if cost.loop == "closed" else f"{cost.load:g} calls/s due",
            cost.layer,
            cost.below,
            signed_ms(cost.added_p50_ms),
            "–" if cost.throughput_share is None or cost.loop == "open" else f"{cost.throughput_share:.0%}",
        ]
        for cost in report.costs()
    ]
    return _table("What each layer adds to the one below it", heads, rows)


def _details(report: Report) -> Iterator[str]:
    staged = [point for point in report.points if point.stages_ms]
    if staged:
        heads = ["load", *staged[0].stages_ms]
        rows = [[_load(p), *[ms(value) for value in p.stages_ms.values()]] for p in staged]
        yield _alone(
            "Inside the core", "Mean milliseconds of a call in each stage.", _table("Stages", heads, rows)
        )
    failed = [
        [_load(p), p.layer, f"{count:,}", message] for p in report.points for message, count in p.errors.items()
    ]
    if failed:
        table = _table("Failed calls", ["load", "layer", "failed", "why"], failed)
        yield _alone("What failed", "The commonest reasons of each line.", table)


def _alone(title: str, words: str, table: str) -> str:
    region = f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">{table}</div>'
    return f"<section><h2>{title}</h2><p>{words}</p>{region}</section>"


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _told(groups: Mapping[str, Sequence[Point]], words: Callable[[Point], str]) -> str:
    return ". ".join(f"{name}: " + "; ".join(map(words, points)) for name, points in groups.items()) + "."


def _callers(load: float) -> str:
    return "1 caller" if load == 1 else f"{load:g} callers"


def _load(point: Point) -> str:
    return _callers(point.load) if point.loop == "closed" else f"{point.load:g} calls/s due"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _batch(point: Point) -> str:
    return "–" if point.mean_batch is None else f"{point.mean_batch:.1f}"
