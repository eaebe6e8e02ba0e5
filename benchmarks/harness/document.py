"""Writes the kept results between the markers of docs/benchmarks.md, engines.md and optimising.md."""

from __future__ import annotations

import json
import re

from benchmarks.harness.places import RESULTS, ROOT

PAGES = tuple(ROOT / "docs" / name for name in ("benchmarks.md", "engines.md", "optimising.md"))
MARKED = re.compile(r"(<!-- results: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refresh() -> None:
    """Replace what stands between each `<!-- results: name -->` and `<!-- end -->`."""
    for page in PAGES:
        page.write_text(MARKED.sub(_section, page.read_text()))


def _section(match: re.Match[str]) -> str:
    name = match["name"]
    source = RESULTS / f"{name}.json"
    if not source.is_file():
        return f"{match[1]}\nNot measured yet.\n\n{match[3]}"
    kept = json.loads(source.read_text())
    machine = kept["machine"]
    revision, changes, _ = machine["revision"].partition("+")
    where = (
        f"{machine['at'][:10]}, {machine['cpu']}, {len(machine['cores'])} cores, Python {machine['python']}, "
        f"revision {revision[:12]}{' with changes' if changes else ''}."
    )
    plot = f"\n\n![{name}](../benchmarks/results/{name}.svg)" if (RESULTS / f"{name}.svg").is_file() else ""
    tables = (RESULTS / f"{name}.md").read_text().strip()
    return f"{match[1]}\n{where}\n\n{tables}{plot}\n\n{match[3]}"


if __name__ == "__main__":
    refresh()
