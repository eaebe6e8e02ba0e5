from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from core.control import reconciler as reconciler_module
from core.control import rollout as rollout_module
from core.control.actor import SYSTEM
from core.control.deploying import roll_back
from core.control.watching import WATCH_EVERY_S
from core.database.repositories.models import Models
from core.errors import PlatformError
from core.serving.catalogue import Catalogue
from tests.unit.control.fakes import House, broken, running_house

Test = Callable[[House], Awaitable[None]]
Run = Callable[..., None]


@pytest.fixture
def run(sqlite_url: str, tmp_path: Path) -> Run:
    """Runs a coroutine function on a House with one model, `m`, of three versions."""

    def run_(test: Test, **options: Any) -> None:
        async def inside() -> None:
            async with running_house(sqlite_url, tmp_path, **options) as house:
                await house.model("m")
                await test(house)

        asyncio.run(inside())

    return run_


def live(number: int, weight: float = 1.0) -> dict[str, Any]:
    return {"version": number, "weight": weight}


def shadow(number: int) -> dict[str, Any]:
    return {"version": number, "mode": "shadow"}


def states(rows: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(row["version"], row["state"]) for row in rows]


async def answering(house: House) -> set[int]:
    return {(await house.infer("m")).version for _ in range(20)}


def test_deploy_swap_and_undeploy(run: Run) -> None:
    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1)))
        assert await answering(house) == {1}
        second = await house.rests("m", await house.put("m", live(2)))
        assert await answering(house) == {2}
        assert second.versions[-1] == {"version": 2, "state": "serving", "weight": 1.0}
        await house.until(lambda: house.loader.open_versions() == [2])
        gone = await house.rests("m", await house.remove("m"), "stopped")
        assert (gone.versions, house.loader.open_versions()) == ([], [])
        await house.rests("m", await house.put("m", live(1)))
        assert await answering(house) == {1}

    run(test)


def test_weights_change_without_a_load(run: Run) -> None:
    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1, 9), live(2, 1)))
        row = await house.rests("m", await house.put("m", live(2, 5), shadow(1)))
        assert house.loader.loads == [("m", 1), ("m", 2)]
        assert states(row.versions) == [(1, "shadow"), (2, "serving")]
        await house.rests("m", await house.put("m", live(2, 5), shadow(1), max_batch=7))
        assert len(house.loader.loads) == 4, "other options need another load"

    run(test)


def test_a_failed_load_leaves_the_old_one_and_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler_module, "RETRY_FIRST_S", 0.05)

    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1)))
        house.loader.fails[3] = broken()
        generation = await house.put("m", live(2), live(3))
        row = await house.rests("m", generation, "failed")
        assert row.reason == "The file is not a model. Version 1 keeps serving."
        assert await answering(house) == {1}
        await house.until(lambda: house.loader.open_versions() == [1])
        del house.loader.fails[3]
        row = await house.rests("m", generation)
        assert row.reason == ""
        assert await answering(house) == {2, 3}

    run(test)


def test_an_unexpected_error_is_a_failure_that_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler_module, "RETRY_FIRST_S", 0.05)

    async def test(house: House) -> None:
        house.loader.fails[1] = ZeroDivisionError("a bug")
        generation = await house.put("m", live(1))
        assert (await house.rests("m", generation, "failed")).reason == reconciler_module.UNEXPECTED
        house.loader.fails.clear()
        await house.rests("m", generation)

    run(test)


def test_a_newer_state_ends_a_load_under_way(run: Run) -> None:
    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1)))
        house.loader.held.clear()
        generation = await house.put("m", live(2))
        row = await house.rests("m", generation, "loading")
        assert states(row.versions) == [(1, "serving"), (2, "loading")]
        assert await answering(house) == {1}
        generation = await house.put("m", live(3))
        await house.until(lambda: ("m", 3) in house.loader.loads)
        house.loader.held.set()
        await house.rests("m", generation)
        assert await answering(house) == {3}
        await house.until(lambda: house.loader.open_versions() == [3])

    run(test)


def test_a_load_that_is_slow_to_end_holds_up_nobody_else(run: Run) -> None:
    async def test(house: House) -> None:
        await house.model("other")
        clearing, cleared = asyncio.Event(), asyncio.Event()
        load = house.loader.load

        async def stubborn(desired: Any, version: int, on_state: Any) -> Any:
            if (desired.model, version) != ("m", 1):
                return await load(desired, version, on_state)
            try:
                await asyncio.Event().wait()
            finally:
                clearing.set()
                await cleared.wait()

        house.loader.load = stubborn  # type: ignore[method-assign]
        await house.put("m", live(1))
        await house.until(lambda: house.reconciler.states() == {"m": "pending"})
        last = await house.put("m", live(2))
        await clearing.wait()
        await house.rests("other", await house.put("other", live(1)))
        last = await house.put("m", live(3))  # takes its turn after the first, not only after the second
        await house.until(lambda: house.reconciler._states["m"].generation == last)
        assert ("m", 3) not in house.loader.loads
        cleared.set()
        await house.rests("m", last)
        assert ("m", 2) not in house.loader.loads

    run(test)


def test_a_drain_that_is_interrupted_is_not_lost(run: Run) -> None:
    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1)))
        lease = house.catalogue.lease("m")
        row = await house.rests("m", await house.remove("m"), "draining")
        assert states(row.versions) == [(1, "draining")]
        row = await house.rests("m", await house.put("m", live(2)))
        assert states(row.versions) == [(1, "draining"), (2, "serving")]
        assert house.loader.open_versions() == [1, 2]
        lease.release()
        await house.until(lambda: house.loader.open_versions() == [2])
        await house.until(lambda: house.reconciler._states["m"].draining == [])

        async def told() -> bool:
            row = await house.status("m")
            return row is not None and states(row.versions) == [(2, "serving")]

        await house.until(told)

    run(test)


def test_a_swap_whose_task_is_cancelled_right_after_still_drains(run: Run) -> None:
    told = asyncio.Event()

    async def published(model: str) -> None:
        told.set()
        await asyncio.Event().wait()

    async def test(house: House) -> None:
        house.reconciler._published = None
        await house.rests("m", await house.put("m", live(1)))
        house.reconciler._published = published
        await house.put("m", live(2))
        await told.wait()
        house.reconciler._published = None
        await house.rests("m", await house.put("m", live(3)))
        await house.until(lambda: house.loader.open_versions() == [3])

    run(test)


def test_a_version_that_cannot_be_closed_keeps_no_other_from_it(run: Run) -> None:
    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1), live(2)))
        first = next(one for one in house.loader.opened if one.version == 1)
        close = first.close

        async def fail() -> None:
            await close()
            raise OSError("the socket is gone")

        first.close = fail  # type: ignore[method-assign]
        await house.rests("m", await house.remove("m"), "stopped")
        assert house.loader.open_versions() == []
        assert house.reconciler._states["m"].attempts == 0, "the removal failed"

    run(test)


def test_a_model_made_again_with_the_same_generation_is_another(run: Run) -> None:
    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1)))
        house.loader.fields[1] = {"scale": 10.0}

        async def remake() -> None:
            async with house.database.transaction() as session:
                models = Models(session)
                model = await models.by_name("m")
                assert model is not None
                await session.delete(model)
            await house.model("m")

        before = await house.infer("m")
        await remake()
        await house.rests("m", await house.put("m", live(1)))
        after = await house.infer("m")
        assert before.outputs is not None
        assert after.outputs is not None
        assert (before.outputs["y"][0, 0], after.outputs["y"][0, 0]) == (1.0, 10.0)

    run(test)


def test_a_hundred_changes_at_once_load_a_few_at_a_time(run: Run) -> None:
    async def test(house: House) -> None:
        names = [f"model-{i}" for i in range(100)]
        for name in names:
            await house.model(name, 1)
        house.loader.held.clear()
        for name in names:
            await house.put(name, live(1))
        await house.until(lambda: house.loader.under_way == rollout_module.CONCURRENT_LOADS)
        house.loader.held.set()
        await house.until(lambda: all(house.catalogue.serving(name) for name in names), 30)
        assert house.loader.most_under_way == rollout_module.CONCURRENT_LOADS

    run(test)


def test_a_load_that_never_ends_gives_its_place_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler_module, "RETRY_FIRST_S", 60)

    async def test(house: House) -> None:
        house.reconciler._rollout._load_timeout_s = 0.05
        house.loader.held.clear()
        row = await house.rests("m", await house.put("m", live(1)), "failed")
        assert row.reason == "Version 1 was not loaded within 0.05 s."
        assert house.loader.under_way == 0

    run(test)


def test_an_error_in_one_round_does_not_end_the_loop(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(house: House) -> None:
        healthy = house.reconciler._write_observed

        async def fail() -> None:
            monkeypatch.setattr(house.reconciler, "_write_observed", healthy)
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(house.reconciler, "_write_observed", fail)
        await house.rests("m", await house.put("m", live(1)))
        assert house.reconciler._write_observed == healthy, "the error was never raised"

    run(test)


def test_what_is_served_is_told_though_something_else_fails_in_every_round(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(house: House) -> None:
        async def fail() -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(house.reconciler._forms, "look", fail)
        await house.rests("m", await house.put("m", live(1)))

    run(test)


def test_a_locked_database_delays_what_is_told_and_nothing_else(run: Run, sqlite_url: str) -> None:
    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1)))
        generation = await house.put("m", live(2))
        path = sqlite_url.removeprefix("sqlite:///")
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # In a thread: whoever writes now needs the event loop to come to an end.
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
        try:
            await house.until(lambda: house.catalogue.serving("m")[0].target.version == 2)
            assert await answering(house) == {2}
        finally:
            other.execute("ROLLBACK")
            other.close()
        await house.rests("m", generation)

    run(test)


# Watched rollouts

BAD = {"fail": "run", "fail_on": 1.0}
"""Loads and warms, and fails every request."""
WATCH = {"window_s": 30, "max_error_rate": 0.05, "max_latency_ratio": 2.0, "min_requests": 10}


def test_a_version_that_fails_is_rolled_back(run: Run) -> None:
    async def test(house: House) -> None:
        house.loader.fields[2] = {"fail": "run", "fail_on": 7.0}
        first = await house.put("m", live(1))
        await house.rests("m", first)
        second = await house.put("m", live(2), watch=WATCH)
        row = await house.rests("m", second)
        assert states(row.versions)[-1] == (2, "serving")
        await house.until(lambda: house.loader.open_versions() == [1, 2])
        assert await house.infer_many("m", 8) == []
        assert len(await house.infer_many("m", 2, value=7.0)) == 2
        row = await house.rests("m", second + 1)
        assert row.reason == "Version 2 was rolled back: 20 % of 10 requests failed (limit 5 %)."
        assert await house.infer_many("m", 20, value=7.0) == []
        assert house.loader.loads == [("m", 1), ("m", 2)], "version 1 was on standby"
        await house.until(lambda: house.loader.open_versions() == [1])
        async with house.database.session() as session:
            from core.database.repositories.audit import Audit

            entries, _ = await Audit(session).page(limit=1)
        assert (entries[0].actor, entries[0].action) == ("system", "deployment.rollback")
        assert entries[0].detail["reason"] == row.reason
        assert entries[0].detail["to_generation"] == first

    run(test)


def test_a_slow_version_is_rolled_back(run: Run) -> None:
    async def test(house: House) -> None:
        house.loader.fields[2] = {"latency_ms": 20}
        await house.rests("m", await house.put("m", live(1)))
        assert await house.infer_many("m", 20) == []
        generation = await house.put("m", live(1, 1), live(2, 1), watch=WATCH)
        await house.rests("m", generation)

        async def gone_back() -> bool:
            assert await house.infer_many("m", 2) == []
            row = await house.status("m")
            return row is not None and row.generation == generation + 1

        await house.until(gone_back, 60)  # a moment in which the machine did other things is outweighed in time
        row = await house.rests("m", generation + 1)
        told = re.fullmatch(
            r"Version 2 was rolled back: \d+ requests took (\S+) ms on average, against (\S+) ms before "
            r"\(limit 2 times as long\)\.",
            row.reason,
        )
        assert told is not None, row.reason
        assert float(told[1]) >= max(20, 2 * float(told[2]))  # 20 ms of its own, and what the machine adds
        assert await answering(house) == {1}

    run(test)


def test_a_version_that_does_well_stays_and_the_old_one_goes(run: Run) -> None:
    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1)))
        row = await house.rests("m", await house.put("m", live(2), watch={**WATCH, "window_s": 0.4}))
        assert states(row.versions) == [(1, "standby"), (2, "serving")]
        assert await answering(house) == {2}
        await house.until(lambda: house.loader.open_versions() == [2])
        assert house.reconciler._states["m"].watch is None
        assert (await house.status("m")).generation == row.generation  # type: ignore[union-attr]

    run(test)


def test_no_memory_to_spare_means_no_standby(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_module, "SPARE_MEMORY", 2.0)

    async def test(house: House) -> None:
        house.loader.fields[2] = BAD
        await house.rests("m", await house.put("m", live(1)))
        generation = await house.put("m", live(2), watch=WATCH)
        await house.rests("m", generation)
        await house.until(lambda: house.loader.open_versions() == [2])
        assert len(await house.infer_many("m", 10)) == 10
        await house.rests("m", generation + 1)
        assert house.loader.loads == [("m", 1), ("m", 2), ("m", 1)]

    run(test)


def test_a_rollback_waits_for_a_locked_database(run: Run, sqlite_url: str) -> None:
    async def test(house: House) -> None:
        house.loader.fields[2] = BAD
        await house.rests("m", await house.put("m", live(1)))
        generation = await house.put("m", live(2), watch=WATCH)
        await house.rests("m", generation)
        house.database._timeout_s = 0.1
        async with house.database._turn:  # type: ignore[union-attr]
            assert len(await house.infer_many("m", 10)) == 10
            await asyncio.sleep(0.4)
        await house.rests("m", generation + 1)

    run(test)


def test_what_somebody_desires_meanwhile_is_never_overruled(run: Run) -> None:
    async def test(house: House) -> None:
        house.loader.fields[2] = BAD
        await house.rests("m", await house.put("m", live(1)))
        await house.rests("m", await house.put("m", live(2), watch=WATCH))
        house.loader.held.clear()
        last = await house.put("m", live(3))
        await house.until(lambda: ("m", 3) in house.loader.loads)
        assert len(await house.infer_many("m", 10)) == 10
        await house.until(lambda: house.reconciler._states["m"].watch is None)
        house.loader.held.set()
        await house.rests("m", last)
        assert await answering(house) == {3}

    run(test)


def test_a_rollback_by_hand_forgets_why_the_platform_went_back(run: Run) -> None:
    async def test(house: House) -> None:
        house.loader.fields[2] = BAD
        await house.rests("m", await house.put("m", live(1)))
        generation = await house.put("m", live(2), watch=WATCH)
        await house.rests("m", generation)
        await house.infer_many("m", 10)
        await house.rests("m", generation + 1)
        await house.rests("m", await house.put("m", live(3)))
        async with house.database.transaction() as session:
            back = await roll_back(session, "m", SYSTEM)
        house.reconciler.wake()
        row = await house.rests("m", back.generation)
        assert (row.reason, await answering(house)) == ("", {1})

    run(test)


def test_a_standby_that_is_wanted_again_is_not_closed_while_another_version_loads(run: Run) -> None:
    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1)))
        await house.rests("m", await house.put("m", live(2), watch={**WATCH, "window_s": 2}))
        watch = house.reconciler._states["m"].watch
        assert watch is not None
        house.loader.held.clear()
        generation = await house.put("m", live(1), live(3))
        await house.until(lambda: house.loader.loads[-1] == ("m", 3))
        await house.until(lambda: time.monotonic() > watch.until + 3 * WATCH_EVERY_S)
        house.loader.held.set()
        await house.rests("m", generation)
        assert await answering(house) == {1, 3}
        await house.until(lambda: house.loader.open_versions() == [1, 3])

    run(test)


def test_a_standby_goes_after_a_load_that_outlasts_its_watch_and_fails(run: Run) -> None:
    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1)))
        await house.rests("m", await house.put("m", live(2), watch={**WATCH, "window_s": 2}))
        watch = house.reconciler._states["m"].watch
        assert watch is not None
        house.loader.held.clear()
        house.loader.fails[3] = broken()
        generation = await house.put("m", live(1), live(3))
        await house.until(lambda: time.monotonic() > watch.until + 3 * WATCH_EVERY_S)
        house.loader.held.set()
        await house.rests("m", generation, "failed")
        await house.until(lambda: house.loader.open_versions() == [2])
        assert await answering(house) == {2}

    run(test)


def test_undeploying_ends_a_watch_and_its_standby(run: Run) -> None:
    async def test(house: House) -> None:
        await house.rests("m", await house.put("m", live(1)))
        await house.rests("m", await house.put("m", live(2), watch=WATCH))
        await house.rests("m", await house.remove("m"), "stopped")
        assert house.loader.open_versions() == []

    run(test)


def test_the_watcher_looks_at_all_processes(sqlite_url: str, tmp_path: Path) -> None:
    elsewhere = {"2": {"requests": 0, "errors": 0, "broken": 0, "total_ms": 0.0, "recent_ms": 0.0}}

    async def test() -> None:
        catalogue = Catalogue()
        counts = lambda model: [catalogue.snapshot(model), elsewhere]  # noqa: E731
        async with running_house(sqlite_url, tmp_path, counts=counts) as house:
            await house.model("m")
            await house.rests("m", await house.put("m", live(1)))
            generation = await house.put("m", live(2), watch=WATCH)
            await house.rests("m", generation)
            elsewhere["2"].update(requests=30, errors=3)
            row = await house.rests("m", generation + 1)
            assert "10 % of 30 requests failed" in row.reason

    asyncio.run(test())


def test_ten_rollbacks_under_load_fail_nothing_but_what_the_bad_version_fails(run: Run) -> None:
    async def test(house: House) -> None:
        house.loader.fields[1] = house.loader.fields[2] = {"latency_ms": 1}
        house.loader.fields[2] = {"latency_ms": 1, **BAD}
        await house.rests("m", await house.put("m", live(1)))
        failed: list[str] = []
        stop = asyncio.Event()

        async def call() -> None:
            while not stop.is_set():
                async with house.catalogue.lease("m") as target:
                    version = target.version
                    try:
                        await target.infer(_request())
                    except PlatformError as error:
                        failed.append(f"{version} {error.code}")

        callers = [asyncio.create_task(call()) for _ in range(4)]
        for _ in range(10):
            generation = await house.put("m", live(2), watch=WATCH)
            await house.rests("m", generation + 1, "serving")
        stop.set()
        await asyncio.gather(*callers)
        assert set(failed) == {"2 run_failed"}

    run(test)


def _request() -> Any:
    from tests.unit.control.fakes import request

    return request()
