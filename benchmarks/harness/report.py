"""Tables, JSON and plots of what was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import quantiles
from typing import Any

from benchmarks.harness import machine
from benchmarks.harness.places import RESULTS
from benchmarks.harness.rounds import Comparison
from benchmarks.harness.svg import Bars, bar_chart

Row = Sequence[str]


@dataclass(frozen=True)
class Reach:
    """A figure aimed at. `met` is None where it could not be measured."""

    what: str
    aim: str
    measured: str
    met: bool | None


def at_least(what: str, aim: float, ratio: float | None, unit: str = "x") -> Reach:
    """A reach that a ratio meets by being as large as the aim."""
    measured = "not measured" if ratio is None else f"{ratio:.2f}{unit}"
    return Reach(what, f"at least {aim:g}{unit}", measured, None if ratio is None else ratio >= aim)


def at_most(what: str, aim: float, value: float | None, unit: str = "x") -> Reach:
    """A reach that a value meets by being no larger than the aim."""
    measured = "not measured" if value is None else f"{value:.2f}{unit}"
    return Reach(what, f"at most {aim:g}{unit}", measured, None if value is None else value <= aim)


def spread(percents: Sequence[float]) -> str:
    """Between what half of the single comparisons lie: a median alone does not say how sure it is."""
    low, _, high = quantiles(percents, n=4) if len(percents) > 1 else [*percents] * 3
    return f"half of {len(percents)} rounds {low:.1f} to {high:.1f} %"


def table(head: Row, rows: Sequence[Row]) -> str:
    """A Markdown table whose columns line up."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)) + " |"]
    lines.append("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in rows:
        lines.append("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    return "\n".join(lines)


def comparison_table(found: Comparison, peers: Sequence[str], workload: str, connections: int, of: str) -> str:
    """One line a peer; the last column says how many times as fast `of` is."""
    rows = []
    for peer in peers:
        middle = found.median(peer, workload, connections)
        if middle is None:
            rows.append([peer, *["–"] * 4, found.absent.get(peer, "not run")[:60]])
            continue
        ratio = found.ratio(of, peer, workload, connections)
        rows.append([
            peer, f"{middle.requests_per_s:,.0f}", f"{middle.p50_ms:.2f}", f"{middle.p99_ms:.2f}",
            str(middle.failures), "–" if ratio is None else f"{ratio:.2f}x",
        ])  # fmt: skip
    head = [f"{workload}, {connections} conn.", "requests/s", "p50 ms", "p99 ms", "failures", f"{of} is"]
    return table(head, rows)


def reach_table(reaches: Sequence[Reach]) -> str:
    """What was aimed at, and whether it was met."""
    words = {True: "met", False: "MISSED", None: "–"}
    return table(
        ["what", "aim", "measured", ""], [[one.what, one.aim, one.measured, words[one.met]] for one in reaches]
    )


def comparison_chart(found: Comparison, title: str, peers: Sequence[str], cases: Sequence[tuple[str, int]]) -> str:
    """Requests a second, a group of bars a case."""
    groups = {}
    for workload, connections in cases:
        middles = {peer: found.median(peer, workload, connections) for peer in peers}
        groups[f"{workload}, {connections} connections"] = {
            peer: middle.requests_per_s for peer, middle in middles.items() if middle is not None
        }
    return bar_chart(Bars(title, "requests/s", groups))


def save(
    name: str,
    settings: dict[str, Any],
    body: dict[str, Any],
    tables: Sequence[str],
    reaches: Sequence[Reach],
    chart: str | None = None,
) -> None:
    """Print the tables and keep everything as `benchmarks/results/<name>.json`, `.md` and `.svg`."""
    parts = [*tables, reach_table(reaches)] if reaches else list(tables)
    text = "\n\n".join(parts)
    print("\n" + text + "\n", flush=True)
    if settings.get("no_save"):
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {
        "name": name,
        "machine": machine.describe(),
        "settings": settings,
        **body,
        "reach": [asdict(one) for one in reaches],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text + "\n")
    if chart is not None:
        (RESULTS / f"{name}.svg").write_text(chart)
