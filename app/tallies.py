"""What is counted, over all processes: with several workers, the control process adds it up.

A worker hands over what it has counted every half second and before it asks; without workers, this process's own
counts are all there is. Answers are only put down where they are given (`app.answer_book`), and counted here, many
at once, before anybody reads.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from app.external.oip_statistics import VersionStatistics
from app.state import Platform
from core.control.totals import Report
from core.metrics import Counts, ModelTraffic, VersionCounts
from core.serving.deployment import Deployment
from core.serving.request import InferenceResult
from core.serving.target import Target
from core.serving.version_health import Snapshot

NO_MODEL = "*"
"""In reports, for what belongs to no model; no model is called so."""


def note_answer(platform: Platform, target: Target, result: InferenceResult, load_ms: float = 0.0) -> None:
    """Count an answered request in metrics and statistics, and how long it waited for its model's load."""
    if result.cache is None and not load_ms:
        if platform.answers.put_down(target, result):
            settle(platform)
        return
    timing = result.timing
    platform.statistics.of(target).succeeded(result)
    platform.traffic[result.model].note(200, timing.total, time.time())
    counts = platform.counts.of(result.model, result.version)
    counts.answered(
        timing.queue, timing.batch_wait, timing.preprocess, timing.infer, timing.postprocess, timing.total
    )
    if load_ms:
        counts.waited(load_ms)
    if result.cache is not None:
        counts.looked_up(result.cache)


def settle(platform: Platform) -> None:
    """Count the answers that were only put down. On the event loop: they belong to it."""
    for target, rows in platform.answers.take():
        at, items, times_ms = rows[:, 0], rows[:, 1], rows[:, 2:]
        platform.statistics.of(target).succeeded_all(int(items.sum()), times_ms, float(at[-1]))
        platform.traffic[target.model].note_all(float(times_ms[:, -1].sum()), at)
        platform.counts.of(target.model, target.version).answered_all(times_ms)


def take_counted(platform: Platform) -> Report:
    """What this worker has counted since the last call, by model, in JSON's types."""
    settle(platform)
    report: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for (model, version), counts in platform.counts.take().items():
        report[model].setdefault("versions", {})[str(version)] = counts.to_json()
    traffic, platform.traffic = platform.traffic, defaultdict(ModelTraffic)
    for model, one in traffic.items():
        report[model]["traffic"] = one.to_json()
    for target, statistics in platform.statistics.take():
        if isinstance(target, Deployment) and target.recipe:
            report[target.model].setdefault("loaded", {})[target.recipe["key"]] = statistics.to_numbers()
    for model, streams in platform.stream_counts.take().items():
        report[model]["streams"] = streams
    failures = platform.counts.take_limit_failures()
    if failures:
        report[NO_MODEL]["limit_failures"] = failures
    if platform.spans is not None:
        counted = platform.spans.counts()
        report[NO_MODEL]["spans"] = {name: n - platform.spans_told.get(name, 0) for name, n in counted.items()}
        platform.spans_told = counted
    return dict(report)


def streams_of(platform: Platform, totals: Report | None) -> Mapping[str, Mapping[str, Any]]:
    """The streams of each model, as `core.metrics.StreamCounts` counts them."""
    if totals is None:
        return deepcopy(platform.stream_counts.models)  # what is read in a thread must stand still
    return {model: total["streams"] for model, total in totals.items() if "streams" in total}


def spans_of(platform: Platform, totals: Report | None) -> Mapping[str, int]:
    """What became of the spans of traces, by outcome; empty where requests are not traced."""
    if totals is None:
        return {} if platform.spans is None else platform.spans.counts()
    spans: Mapping[str, int] = totals.get(NO_MODEL, {}).get("spans", {})
    return spans


def counts_of(platform: Platform, totals: Report | None) -> Counts:
    """The counts behind the metrics."""
    if totals is None:
        settle(platform)
        return platform.counts
    counts = Counts()
    for model, total in totals.items():
        for version, said in total.get("versions", {}).items():
            counts.versions[model, int(version)] = VersionCounts.from_json(said)
    counts.limit_failures = totals.get(NO_MODEL, {}).get("limit_failures", 0)
    return counts


def traffic_of(platform: Platform, totals: Report | None) -> Mapping[str, ModelTraffic]:
    """The traffic of each model."""
    if totals is None:
        settle(platform)
        return platform.traffic
    return {
        model: ModelTraffic.from_json(total["traffic"]) for model, total in totals.items() if "traffic" in total
    }


def statistics_of(platform: Platform, target: Target, totals: Report | None) -> VersionStatistics:
    """What a loaded version has done since it was loaded."""
    settle(platform)
    own = platform.statistics.of(target)
    if totals is None or not isinstance(target, Deployment):
        return own
    said = totals.get(target.model, {}).get("loaded", {}).get(target.recipe["key"])
    return own if said is None else VersionStatistics.from_numbers(said)


def health_of(platform: Platform, model: str, totals: Report | None) -> Snapshot:
    """The counters of a model's versions in service, and of its shadows."""
    if totals is None:
        return platform.catalogue.snapshot(model)
    health: Snapshot = totals.get(model, {}).get("health", {})
    return health
