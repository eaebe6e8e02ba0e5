from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.readings import Reading, Step, Tally, percentile_ms, step_between
from app.recorder import hours_of, rows_of
from core.database.repositories.history import HOUR_S, MINUTE_S
from core.database.tables import HistoryRow
from core.metrics import STAGE_BOUNDS_MS

SIZE = len(STAGE_BOUNDS_MS) + 1
AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def buckets(**counts: int) -> list[int]:
    """`ms5=3` are three answers in the bucket up to 5 ms."""
    found = [0] * SIZE
    for name, count in counts.items():
        found[STAGE_BOUNDS_MS.index(float(name.removeprefix("ms")))] = count
    return found


def reading(at: float, models: dict[str, Tally], queues: dict[str, int] | None = None) -> Reading:
    return Reading(at, models, queues or {}, {}, {"a": 7}, 50.0, 1000, 4000)


@pytest.mark.parametrize(
    ("counted", "share", "expected"),
    [
        (buckets(), 0.5, None),
        (buckets(ms5=10), 0.5, 3.5),
        (buckets(ms5=10), 1.0, 5.0),
        (buckets(ms5=50, ms10=50), 0.75, 7.5),
        ([*[0] * (SIZE - 1), 4], 0.5, 30_000.0),
    ],
)
def test_a_percentile_is_read_from_buckets(counted: list[int], share: float, expected: float | None) -> None:
    assert percentile_ms(counted, share) == pytest.approx(expected)


def test_between_two_readings_lies_what_was_asked_meanwhile() -> None:
    before = reading(10, {"a": Tally(5, 1, buckets(ms5=4)), "idle": Tally(3, 0, buckets(ms1=3))})
    after = reading(15, {"a": Tally(9, 2, buckets(ms5=7)), "idle": Tally(3, 0, buckets(ms1=3))}, {"a": 2, "b": 3})
    step = step_between(before, after)
    assert (step.seconds, step.queue_depth) == (5, 5)
    assert step.models == {"a": Tally(4, 1, buckets(ms5=3))}


def test_counts_that_began_anew_are_not_negative() -> None:
    step = step_between(reading(0, {"a": Tally(100, 9)}), reading(5, {"a": Tally(4, 1, buckets(ms5=3))}))
    assert step.models == {"a": Tally(4, 1, buckets(ms5=3))}


def test_a_minute_has_a_row_for_the_machine_and_for_each_model_that_was_asked() -> None:
    steps = [
        Step(AT.timestamp() + 5, 5, {"a": Tally(2, 0, buckets(ms5=2))}, 4, 20.0, 100),
        Step(AT.timestamp() + 10, 5, {"a": Tally(1, 1, buckets())}, 1, 40.0, 300),
    ]
    machine, model = rows_of(steps, reading(AT.timestamp() + 10, {}), AT)
    assert (machine["model"], machine["queue_depth"], machine["cpu_percent"]) == ("", 4, 30.0)
    assert machine["memory_bytes"] == 300
    assert (machine["requests"], machine["errors"], machine["buckets"]) == (3, 1, buckets(ms5=2))
    assert (model["model"], model["requests"], model["errors"]) == ("a", 3, 1)
    assert (model["buckets"], model["memory_bytes"], model["step_s"]) == (buckets(ms5=2), 7, MINUTE_S)


def test_minutes_add_up_to_hours() -> None:
    def row(minute: int, model: str, requests: int, depth: int) -> HistoryRow:
        at = AT.replace(minute=0) + timedelta(minutes=minute)
        counts = buckets(ms5=requests)
        return HistoryRow(
            step_s=MINUTE_S,
            at=at,
            model=model,
            requests=requests,
            errors=1,
            buckets=counts,
            queue_depth=depth,
            cpu_percent=float(depth),
            memory_bytes=depth,
        )

    found = hours_of([row(0, "a", 2, 1), row(59, "a", 3, 5), row(60, "a", 4, 1), row(1, "b", 9, 0)])
    told = {(one["at"].hour, one["model"]): one for one in found}
    assert sorted(told) == [(3, "a"), (3, "b"), (4, "a")]
    first = told[3, "a"]
    assert (first["requests"], first["errors"], first["buckets"]) == (5, 2, buckets(ms5=5))
    assert (first["queue_depth"], first["cpu_percent"], first["step_s"]) == (5, 3.0, HOUR_S)
