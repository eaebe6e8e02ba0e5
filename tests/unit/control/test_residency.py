"""Idle models and the memory budget, with a real database, reconciler and catalogue, and fake engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from core.control import reconciler as reconciler_module
from core.errors import DeadlineExceeded, ModelNotFound, NotReady, QueueFull
from tests.unit.control.fakes import House, broken, running_house

Test = Callable[[House], Awaitable[None]]
Run = Callable[..., None]
SIZE = 1000
V1 = {"version": 1}


@pytest.fixture
def run(sqlite_url: str, tmp_path: Path) -> Run:
    """Runs a coroutine function on a House with the models a to d, of which each version takes SIZE bytes."""

    def run_(test: Test, *, budget: int = 2 * SIZE, **options: Any) -> None:
        async def inside() -> None:
            async with running_house(sqlite_url, tmp_path, memory_budget_bytes=budget, **options) as house:
                for version in (1, 2, 3):
                    house.loader.fields[version] = {"memory_bytes": SIZE}
                for name in "abcd":
                    await house.model(name)
                await test(house)

        asyncio.run(inside())

    return run_


async def deploy(house: House, *names: str, **wanted: Any) -> None:
    for name in names:
        await house.rests(name, await house.put(name, V1, **wanted))


def loaded(house: House) -> list[str]:
    return sorted(one.model for one in house.loader.opened if not one._closing)


async def is_idle(house: House, name: str) -> bool:
    row = await house.status(name)
    return row is not None and row.state == "idle"


def test_the_least_recently_used_makes_room_and_comes_back_when_called(run: Run) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a", "b")
        await house.infer("a")
        await deploy(house, "c")
        assert loaded(house) == ["a", "c"]
        row = await house.rests("b", 1, "idle")
        assert row.reason == "Unloaded to make room for others."
        assert row.versions == [{"version": 1, "state": "idle", "memory_bytes": SIZE}]
        assert house.reconciler.not_ready() == {}
        assert (await house.infer("b", 3.0)).version == 1
        assert loaded(house) == ["b", "c"]
        await house.until(lambda: is_idle(house, "a"))

    run(test)


def test_many_callers_share_one_load_and_who_leaves_harms_nobody(run: Run) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a", "b", "c")
        house.loader.held.clear()
        callers = [asyncio.create_task(house.infer("a")) for _ in range(50)]
        await house.until(lambda: house.loader.loads.count(("a", 1)) == 2)
        for caller in callers[:20]:
            caller.cancel()
        late = asyncio.create_task(house.infer("a"))
        await asyncio.sleep(0)
        house.loader.held.set()
        answers = await asyncio.gather(*callers[20:], late)
        assert {answer.version for answer in answers} == {1}
        assert house.loader.loads.count(("a", 1)) == 2, "one at first, one for all callers"

    run(test)


def test_a_load_goes_on_without_those_whose_deadline_has_passed(run: Run) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a", "b", "c", timeout_ms=200)
        house.loader.held.clear()
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="while the model was being loaded"):
            await house.infer("a")
        assert time.monotonic() - began < 10
        house.loader.held.set()
        await house.rests("a", 1)
        assert house.loader.loads.count(("a", 1)) == 2

    run(test)


def test_only_so_many_may_wait(run: Run) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a", "b", "c", queue_size=3)
        house.loader.held.clear()
        callers = [asyncio.create_task(house.infer("a")) for _ in range(3)]
        await house.until(lambda: house.reconciler.states()["a"] == "loading")
        with pytest.raises(QueueFull):
            await house.infer("a")
        house.loader.held.set()
        await asyncio.gather(*callers)

    run(test)


def test_a_failed_load_answers_all_who_wait(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a", "b", "c")
        house.loader.fails[1] = broken()
        answers = await asyncio.gather(*(house.infer("a") for _ in range(5)), return_exceptions=True)
        assert {(type(one), str(one)) for one in answers} == {
            (NotReady, "The model 'a' could not be loaded: The file is not a model.")
        }
        began = house.loader.loads.count(("a", 1))
        with pytest.raises(NotReady) as refused:
            await house.infer("a")
        assert refused.value.retry_after_s
        assert house.loader.loads.count(("a", 1)) == began, "not tried again for each call"
        assert "a" in house.reconciler.not_ready()
        house.loader.fails.clear()
        await house.rests("a", 1)

    monkeypatch.setattr(reconciler_module, "RETRY_FIRST_S", 0.3)
    run(test)


def test_pinned_models_stay_and_what_cannot_fit_says_so(run: Run) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a", "b", pinned=True)
        row = await house.rests("c", await house.put("c", V1), "failed")
        assert "pinned" in row.reason
        with pytest.raises(NotReady, match="pinned") as refused:
            await house.infer("c")
        assert refused.value.retry_after_s
        assert loaded(house) == ["a", "b"]
        await house.remove("a")
        house.reconciler._states["c"].retry_at = 0
        house.reconciler.wake()
        await house.rests("c", 1)

    run(test)


def test_a_model_larger_than_the_budget_is_refused_once_that_is_known(run: Run) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a")
        house.loader.fields[2] = {"memory_bytes": 5 * SIZE}
        house.loader.guesses[2] = SIZE  # as the size of its file may tell
        row = await house.rests("b", await house.put("b", {"version": 2}), "failed")
        assert row.reason.startswith("It needs ")
        assert loaded(house) == ["a"]
        before = len(house.loader.loads)
        house.reconciler._states["b"].retry_at = 0
        house.reconciler.wake()
        await house.until(lambda: house.reconciler._states["b"].attempts == 2)
        assert len(house.loader.loads) == before, "its size is known now"

    run(test)


def test_a_version_of_unknown_size_serves_on_when_one_beside_it_is_too_large(run: Run) -> None:
    async def test(house: House) -> None:
        house.loader.fields[1] = {}
        house.loader.fields[2] = {"memory_bytes": 5 * SIZE}
        house.loader.guesses[2] = SIZE
        await deploy(house, "a")
        await house.rests("a", await house.put("a", V1, {"version": 2}), "failed")
        assert house.loader.open_versions() == [1]
        assert (await house.infer("a")).version == 1

    run(test)


def test_a_wrong_guess_makes_others_leave(run: Run) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a", "b")
        house.loader.guesses[2] = 0
        await house.rests("c", await house.put("c", {"version": 2}))
        assert loaded(house) == ["b", "c"]

    run(test)


def test_a_guess_refuses_nothing_that_fits(run: Run) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a", "b")
        house.loader.guesses[2] = 100 * SIZE
        await house.rests("c", await house.put("c", {"version": 2}))
        assert loaded(house) == ["b", "c"]

    run(test)


def test_what_a_load_takes_for_a_while_is_set_aside_before_it_begins(run: Run) -> None:
    async def test(house: House) -> None:
        house.loader.file_bytes = SIZE // 2
        await deploy(house, "a", "b", "c")
        assert loaded(house) == ["b", "c"], "the file twice, and what stays: as much as two models"
        house.loader.held.clear()
        call = asyncio.create_task(house.infer("a"))
        await house.until(lambda: house.loader.under_way)
        assert loaded(house) == ["c"], "and so much again when it comes back"
        house.loader.held.set()
        await call
        assert loaded(house) == ["a", "c"]

    run(test, budget=3 * SIZE)


def test_requests_under_way_are_answered_before_their_model_leaves(run: Run) -> None:
    async def test(house: House) -> None:
        house.loader.fields[1]["latency_ms"] = 60
        await deploy(house, "a")
        runs = asyncio.create_task(house.infer("a"))
        await house.until(lambda: house.catalogue.usage("a")[1])
        waits = asyncio.create_task(house.infer("a"))  # until the one slot is free
        await asyncio.sleep(0)
        await house.rests("b", await house.put("b", V1))
        assert all(one.done() for one in (runs, waits)), "nothing was loaded before the memory was back"
        assert [(await one).version for one in (runs, waits)] == [1, 1]
        assert loaded(house) == ["b"]

    run(test, budget=SIZE, drain_s=0.01)


def test_a_call_for_what_is_just_leaving_brings_it_back(run: Run) -> None:
    async def test(house: House) -> None:
        house.loader.fields[1]["latency_ms"] = 1500  # long enough to be seen leaving, also on a busy machine
        await deploy(house, "a")
        busy = asyncio.create_task(house.infer("a"))
        await house.until(lambda: house.catalogue.usage("a")[1])
        await house.put("b", V1)
        await house.until(lambda: house.reconciler.states()["a"] == "draining")
        assert house.catalogue.is_idle("a")
        house.loader.fields[1]["latency_ms"] = 0  # of the load to come
        assert (await house.infer("a")).version == 1
        assert (await busy).version == 1

    run(test, budget=SIZE)


def test_more_wanted_than_fits_all_are_answered_in_turn(run: Run) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a", "b", "c", "d")
        calls = [house.infer(name) for name in "abcd" * 10]
        answers = await asyncio.gather(*calls)
        assert len(answers) == 40
        assert len(loaded(house)) == 1

    run(test, budget=SIZE)


def test_idle_for_long_enough(run: Run) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a", idle_unload_s=0.5)
        await deploy(house, "b", pinned=True)
        began = time.monotonic()
        while time.monotonic() - began < 0.8:
            await house.infer("a")
            await asyncio.sleep(0.02)
        assert house.reconciler.states()["a"] == "serving"
        row = await house.rests("a", 1, "idle")
        assert row.reason == "No request for 0.5 s."
        assert loaded(house) == ["b"]
        assert (await house.infer("a")).version == 1

    run(test, budget=0, poll_s=30.0)


def test_all_versions_of_a_split_leave_and_come_together(run: Run) -> None:
    async def test(house: House) -> None:
        await house.rests("a", await house.put("a", V1, {"version": 2}, {"version": 3, "mode": "shadow"}))
        await deploy(house, "b")
        await house.rests("a", 1, "idle")
        assert house.catalogue.splits("a")
        with pytest.raises(ModelNotFound):
            house.catalogue.lease("a", 3)
        assert (await house.infer("a", version=2)).version == 2
        assert sorted(one.version for one in house.loader.opened if not one._closing) == [1, 2, 3]

    run(test, budget=3 * SIZE)


def test_an_idle_model_can_be_undeployed_and_changed(run: Run) -> None:
    async def test(house: House) -> None:
        await deploy(house, "a", "b", "c")
        await house.rests("a", await house.put("a", {"version": 2}))
        assert (await house.infer("a")).version == 2
        await house.rests("b", 1, "idle")
        await house.rests("b", await house.remove("b"), "stopped")
        with pytest.raises(ModelNotFound):
            await house.infer("b")

    run(test)


def test_the_start_fills_the_budget_and_evicts_nobody(sqlite_url: str, tmp_path: Path) -> None:
    async def first() -> None:
        async with running_house(sqlite_url, tmp_path) as house:
            house.loader.fields[1] = {"memory_bytes": SIZE}
            for name in "abcd":
                await house.model(name)
            await deploy(house, "a", "b", "c")
            await deploy(house, "d", pinned=True)

    async def again() -> list[str]:
        async with running_house(sqlite_url, tmp_path, memory_budget_bytes=2 * SIZE) as house:
            house.loader.fields[1] = {"memory_bytes": SIZE}
            house.loader.guesses[1] = 50 * SIZE  # what was measured before counts, not the guess
            await house.until(lambda: len(house.reconciler.states()) == 4)
            await house.until(lambda: set(house.reconciler.states().values()) == {"serving", "idle"})
            assert house.reconciler.not_ready() == {}
            assert len(house.loader.loads) == 2
            assert (await house.infer("c")).version == 1
            await house.until(lambda: is_idle(house, "a"))
            found = loaded(house)
            await house.until(house.reconciler.caught_up.is_set)
            return found

    asyncio.run(first())
    assert asyncio.run(again()) == ["c", "d"]
