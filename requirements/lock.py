"""Writes the locks beside this file: every pinned package with the hashes of all its published files.

    python requirements/lock.py

`constraints.txt` says which versions; what is installed beside this Python says who needs what; the package index
that pip is set up for says the hashes (its simple pages, PEP 503 or PEP 691). Nothing is downloaded or run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.metadata import PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

HERE = Path(__file__).resolve().parent
# In this order each file holds what the ones before it lack.
LAYERS = {"base": (), "cpu": ("cpu",), "demo": ("cpu", "demo"), "test": ("cpu", "demo", "test")}
# One version of it is several builds, one of which fits a machine; see docs/decisions/111-locks-with-hashes.md.
UNLOCKED = frozenset({"torch"})
BUILD = ("setuptools",)
HEAD = "# Made by `make lock`; not to be edited.\n"
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


def pins() -> dict[str, str]:
    """The versions in `constraints.txt`, by canonical name."""
    lines = (HERE.parent / "constraints.txt").read_text().split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def layers() -> dict[str, list[str]]:
    """The names that belong into each lock, but for `gpu`."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    found, before = {}, set(UNLOCKED)
    for layer, extras in LAYERS.items():
        seen: set[tuple[str, str]] = set()
        wanted = [*project["dependencies"], *chain(*(project["optional-dependencies"][extra] for extra in extras))]
        names = {*BUILD, *(name for text in wanted for name in _applying(text, "", seen))}
        found[layer] = sorted(names - before)
        before |= names
    return found


def _needed(wanted: Requirement, seen: set[tuple[str, str]]) -> Iterator[str]:
    """A requirement's name and those of all that it needs on this machine."""
    name = canonicalize_name(wanted.name)
    yield name
    try:
        requires = distribution(name).requires or []
    except PackageNotFoundError:
        sys.exit(f"{name} is not installed here; run `make .venv/.test` first.")
    for extra in ("", *sorted(wanted.extras)):
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in requires:
            yield from _applying(text, extra, seen)


def _applying(text: str, extra: str, seen: set[tuple[str, str]]) -> Iterator[str]:
    wanted = Requirement(text)
    if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
        yield from _needed(wanted, seen)


class _Links(HTMLParser):
    """The files that a simple page links to, with their hashes."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        link, fragment = urldefrag(dict(attrs).get("href") or "")
        if tag == "a" and fragment.startswith("sha256="):
            self.files.append((unquote(urlsplit(link).path.rsplit("/", 1)[-1]), fragment.removeprefix("sha256=")))


def hashes(index: str, name: str, version: str) -> list[str]:
    """The SHA-256 of every file of that version, sorted."""
    request = urllib.request.Request(f"{index}/{name}/", headers={"Accept": _ACCEPT})
    with urllib.request.urlopen(request, timeout=60) as answer:
        page, kind = answer.read().decode(), answer.headers.get_content_type()
    if kind.endswith("+json"):
        listed: list[dict[str, Any]] = json.loads(page)["files"]
        files = [(one["filename"], one["hashes"].get("sha256", "")) for one in listed]
    else:
        links = _Links()
        links.feed(page)
        files = links.files
    found = sorted({digest for file, digest in files if digest and _version(file) == version})
    return found or sys.exit(f"The index knows no file of {name} {version}.")


def _version(file: str) -> str | None:
    try:
        parsed = parse_wheel_filename(file)[1] if file.endswith(".whl") else parse_sdist_filename(file)[1]
    except ValueError:
        return None
    return str(parsed)


def _index() -> str:
    asked = subprocess.run([sys.executable, "-m", "pip", "download", "--help"], capture_output=True, text=True)
    configured = re.search(r"--index-url.*?\(default\s+(\S+?)\)", re.sub(r"\s+", " ", asked.stdout))
    return configured[1].rstrip("/") if configured else sys.exit("pip does not say which index it uses.")


def main() -> None:
    """Write all locks."""
    index, versions, found = _index(), pins(), layers()
    # The same library built for another device; it needs what the first needs.
    found["gpu"] = ["onnxruntime-gpu" if name == "onnxruntime" else name for name in found["cpu"]]
    versions["onnxruntime-gpu"] = versions["onnxruntime"]
    known: dict[str, list[str]] = {}
    for layer, names in found.items():
        entries = []
        for name in names:
            if name not in known:
                known[name] = hashes(index, name, versions[name])
            lines = [f"{name}=={versions[name]}", *(f"    --hash=sha256:{digest}" for digest in known[name])]
            entries.append(" \\\n".join(lines))
        (HERE / f"{layer}.txt").write_text(HEAD + "\n".join(entries) + "\n")
        print(f"{layer}: {len(names)} packages")


if __name__ == "__main__":
    main()
