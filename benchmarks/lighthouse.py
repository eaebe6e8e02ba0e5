"""Lighthouse's scores of the overview, and of other pages: performance, accessibility, best practices.

`python -m benchmarks.lighthouse --rounds 3`

It is Lighthouse itself, installed with npm into `build/lighthouse`, with its own throttling (of a phone over a
slow network, and of a desktop), against a server with a model in service that was asked something. Where several
rounds differ, the middle counts. Needs node, npm and Chromium.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.dashboard import sign_in
from benchmarks.harness import load, options, report
from benchmarks.harness.places import ROOT, scratch
from benchmarks.harness.pulvinar import PulvinarPeer
from benchmarks.harness.report import at_least
from benchmarks.harness.server import Server
from benchmarks.harness.workload import TINY

VERSION = "12.8.2"
LEAST = 95.0
CATEGORIES = ("performance", "accessibility", "best-practices")
FIGURES = {
    "first-contentful-paint": "FCP ms",
    "largest-contentful-paint": "LCP ms",
    "total-blocking-time": "TBT ms",
    "speed-index": "SI ms",
    "cumulative-layout-shift": "CLS",
}
PAGES = {"overview": "/dashboard/", "models": "/dashboard/models", "a model": "/dashboard/models/tiny"}
FORMS: dict[str, tuple[str, ...]] = {"phone": (), "desktop": ("--preset=desktop",)}


def installed() -> Path:
    """Lighthouse's program."""
    folder = ROOT / "build" / "lighthouse"
    program = folder / "node_modules" / "lighthouse" / "cli" / "index.js"
    manifest = folder / "node_modules" / "lighthouse" / "package.json"
    if not manifest.is_file() or json.loads(manifest.read_text())["version"] != VERSION:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"lighthouse@{VERSION}"]
        env = {**os.environ, "PUPPETEER_SKIP_DOWNLOAD": "1"}
        subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
    return program


def _run(command: Sequence[str], env: dict[str, str]) -> None:
    """Now and then Lighthouse finds no beginning of the page's load in its own trace, and asks to be run again."""
    for last in (False, False, True):
        if not subprocess.run(command, check=last, env=env, timeout=180).returncode:
            return


def look(server: Server, cookie: str, path: str, flags: Sequence[str]) -> dict[str, Any]:
    """One run: scores from 0 to 100, figures, and the audits that are not met."""
    target = scratch("lighthouse") / "report.json"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("This needs Chromium.")
    command = [
        *("node", str(installed()), f"http://127.0.0.1:{server.port}{path}", "--quiet", "--output=json"),
        *(f"--output-path={target}", f"--only-categories={','.join(CATEGORIES)}", *flags),
        f"--extra-headers={json.dumps({'Cookie': cookie})}",
        "--chrome-flags=--headless=new --no-sandbox --disable-gpu",
    ]
    _run(command, {**os.environ, "CHROME_PATH": chromium})
    said = json.loads(target.read_text())
    scores = {name: said["categories"][name]["score"] * 100 for name in CATEGORIES}
    weighty = {one["id"] for name in CATEGORIES for one in said["categories"][name]["auditRefs"] if one["weight"]}
    missed = {
        key: audit["title"]
        for key, audit in said["audits"].items()
        if key in weighty and key not in FIGURES and audit["score"] is not None and audit["score"] < 0.9
    }
    figures = {key: said["audits"][key]["numericValue"] for key in FIGURES}
    return {"scores": scores, "figures": figures, "missed": missed}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    chosen = options.parser(__doc__ or "", rounds=3).parse_args(arguments)
    peer = PulvinarPeer()
    peer.prepare(TINY.kind)
    rows, reaches, kept = [], [], {}
    with peer.start(TINY.kind, None) as server:
        load.run(server.port, peer.call(TINY), 1, 12, None)
        client = sign_in(server)
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        for page, path in PAGES.items():
            for form, flags in FORMS.items():
                runs = [look(server, cookie, path, flags) for _ in range(chosen.rounds)]
                kept[f"{page}, {form}"] = runs
                scores = {name: median(run["scores"][name] for run in runs) for name in CATEGORIES}
                figures = [median(run["figures"][key] for run in runs) for key in FIGURES]
                rows.append([page, form, *(f"{one:.0f}" for one in scores.values()),
                             *(f"{one:.0f}" for one in figures[:-1]), f"{figures[-1]:.3f}"])  # fmt: skip
                print(rows[-1], runs[-1]["missed"], flush=True)
                if page == "overview":
                    reaches += [at_least(f"{name}, {form}", LEAST, score, "") for name, score in scores.items()]
        client.close()
    head = ["page", "as on a", *(name.replace("-", " ") for name in CATEGORIES), *FIGURES.values()]
    settings = {**vars(chosen), "lighthouse": VERSION}
    report.save("lighthouse", settings, {"runs": kept}, [report.table(head, rows)], reaches)


if __name__ == "__main__":
    main()
