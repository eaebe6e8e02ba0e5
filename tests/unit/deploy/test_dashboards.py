"""Dashboards and alerts speak of metrics and labels that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.metrics import METRICS, STAGES
from tests.dashboards import BOARDS, Asked, board, grouped_by, of_boards, of_rules, panels, series_of

KNOWN = {metric.name: metric for metric in METRICS}
# Prometheus' own, about its scrapes.
OWN = {"up", "scrape_duration_seconds"}
ASKED = [*of_boards(), *of_rules()]
SCRAPED = {"job", "instance"}


@pytest.mark.parametrize(
    ("expression", "names"),
    {
        'sum by (model, le) (rate(a_total{x="by (b)",y=~"$z"}[$window])) / on () group_left () vector(0)': {
            "a_total"
        },
        "max(a > 0) or (b offset 5m)": {"a", "b"},
        "histogram_quantile(0.99, a_bucket)": {"a_bucket"},
    }.items(),
)
def test_names_are_read_out_of_expressions(expression: str, names: set[str]) -> None:
    assert {series.name for series in series_of(expression)} == names


def _unknown(asked: Asked) -> list[str]:
    wrong, labels = [], set(SCRAPED)
    for name, matched in series_of(asked.expression):
        metric = KNOWN.get(name) or KNOWN.get(re.sub(r"_(bucket|sum|count)$", "", name))
        if metric is None:
            wrong += [] if name in OWN else [f"there is no {name}"]
            continue
        if (metric.kind == "histogram") == (metric.name == name):
            wrong.append(f"{name} is a {metric.kind}")
        has = {*metric.labels, *SCRAPED, *(["le"] if name.endswith("_bucket") else [])}
        labels |= has
        wrong += [f"{name} has no label {label}" for label in matched if label not in has]
        stages = set(matched.get("stage", "total").split("|"))
        wrong += [f"there is no stage {stage}" for stage in stages - set(STAGES)]
    return wrong + [f"nothing has the label {label}" for label in grouped_by(asked.expression) - labels]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.place)
def test_every_expression_speaks_of_what_there_is(asked: Asked) -> None:
    assert series_of(asked.expression)
    assert _unknown(asked) == []


@pytest.mark.parametrize(
    "expression",
    [
        "sum(pulvinar_requests)",
        'pulvinar_requests_total{models="x"}',
        "rate(pulvinar_stage_seconds[5m])",
        'pulvinar_stage_seconds_count{stage="wait"}',
        "sum by (token) (pulvinar_requests_total)",
    ],
)
def test_what_there_is_not_is_found(expression: str) -> None:
    assert len(_unknown(Asked("", expression))) == 1


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {series.name for asked in of_boards() for series in series_of(asked.expression)}
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert set(KNOWN) - plain - shown == set()


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_holds_together(path: Path) -> None:
    read = board(path)
    ids = [panel["id"] for panel in read["panels"]]
    assert len(ids) == len(set(ids))
    assert read["uid"] == f"pulvinar-{path.stem}"
    variables = {variable["name"] for variable in read["templating"]["list"]}
    for panel in panels(path):
        used = {name for target in panel["targets"] for name in re.findall(r"\$(\w+)", target["expr"])}
        assert used <= variables, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    taken = {
        (x, y)
        for panel in read["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    }
    assert len(taken) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in read["panels"])
    assert max(x for x, _ in taken) < 24


def test_the_dashboards_lead_to_each_other() -> None:
    uids = {f"/d/{board(path)['uid']}" for path in BOARDS}
    for path in BOARDS:
        assert {link["url"] for link in board(path)["links"]} == uids - {f"/d/{board(path)['uid']}"}
