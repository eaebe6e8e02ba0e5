"""The dashboards and alert rules of `deploy/`, and what their expressions speak of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus/rules.yml"
BOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\$\w+|[A-Za-z_:][\w:]*|\d[\w.]*|=~|!~|!=|>=|<=|==|\S')
_OPERATORS = {"or", "and", "unless", "bool", "offset"}
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}


class Asked(NamedTuple):
    """One expression, and where it stands."""

    place: str
    expression: str


class Series(NamedTuple):
    """A metric as an expression names it, and the labels that are matched."""

    name: str
    labels: dict[str, str]


@cache
def board(path: Path) -> dict[str, Any]:
    """A dashboard."""
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard that show something."""
    return [panel for panel in board(path)["panels"] if panel["type"] != "row"]


def of_boards() -> Iterator[Asked]:
    """The expressions of all dashboards."""
    for path in BOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                yield Asked(f"{path.stem}: {panel['title']}", target["expr"])


def of_rules() -> Iterator[Asked]:
    """The expressions of all alerts."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield Asked(f"alert {rule['alert']}", rule["expr"])


def series_of(expression: str) -> list[Series]:
    """The metrics that an expression asks for."""
    tokens = _TOKEN.findall(expression)
    found, place = [], 0
    while place < len(tokens):
        token, following = tokens[place], (*tokens[place + 1 :], "")[0]
        place += 1
        if token == "[":
            place = tokens.index("]", place) + 1
        elif token in _GROUPING and following == "(":
            place = tokens.index(")", place) + 1
        elif _names_a_metric(token, following):
            labels = {}
            if following == "{":
                end = tokens.index("}", place)
                inside = tokens[place + 1 : end]
                labels = {inside[at]: inside[at + 2].strip('"') for at in range(0, len(inside), 4)}
                place = end + 1
            found.append(Series(token, labels))
    return found


def _names_a_metric(token: str, following: str) -> bool:
    if not re.match(r"[A-Za-z_:]", token) or token in _OPERATORS | _GROUPING:
        return False
    return following != "(" and following not in _GROUPING  # a function, or an aggregation such as `sum by (x)`


def grouped_by(expression: str) -> set[str]:
    """The labels that an expression groups or joins by."""
    groups = re.findall(rf"\b(?:{'|'.join(_GROUPING)})\s*\(([^)]*)\)", expression)
    return {label.strip() for group in groups for label in group.split(",") if label.strip()}
