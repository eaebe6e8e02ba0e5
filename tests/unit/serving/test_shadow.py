from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.serving import runner as runner_module
from core.serving import shadow as shadow_module
from core.serving.catalogue import Catalogue, Served, Share
from core.serving.request import InferenceResult, Timing
from core.serving.shadow import compare
from tests.unit.control.fakes import fake_deployment, request


def tensors(*values: Any, dtype: Any = np.float32, name: str = "y") -> InferenceResult:
    return InferenceResult("m", 1, "tensor", Timing(), None, {name: np.array(values, dtype)})


def answers(*items: dict[str, Any]) -> InferenceResult:
    return InferenceResult("m", 1, "some-task", Timing(), list(items), None)


def predicted(*labels: str) -> dict[str, Any]:
    return {"predictions": [{"label": label, "index": i, "score": 0.5} for i, label in enumerate(labels)]}


COMPARED: dict[str, tuple[InferenceResult, InferenceResult, bool, float]] = {
    "equal tensors": (tensors(1, 2), tensors(1, 2), True, 0.0),
    "within a hundredth": (tensors(1, 100), tensors(1.5, 100), True, 0.5),
    "further apart": (tensors(1, 2), tensors(1, 3), False, 1.0),
    "half precision": (tensors(1, 2), tensors(1, 2.001, dtype=np.float16), True, 0.001953125),
    "other shape": (tensors(1, 2), tensors(1), False, 0.0),
    "other name": (tensors(1), tensors(1, name="z"), False, 0.0),
    "both not a number": (tensors(np.nan, np.inf), tensors(np.nan, np.inf), True, 0.0),
    "one not a number": (tensors(1, 2), tensors(np.nan, 2), False, 0.0),
    "whole numbers are exact": (tensors(1000, dtype=np.int64), tensors(1001, dtype=np.int64), False, 1.0),
    "text": (tensors(b"a", dtype=object), tensors(b"a", dtype=object), True, 0.0),
    "other text": (tensors(b"a", dtype=object), tensors(b"b", dtype=object), False, 0.0),
    "nothing at all": (tensors(dtype=np.float32), tensors(dtype=np.float32), True, 0.0),
    "the same first label": (answers(predicted("cat", "dog")), answers(predicted("cat", "fox")), True, 0.0),
    "another first label": (answers(predicted("cat", "dog")), answers(predicted("dog", "cat")), False, 0.0),
    "one item of two differs": (
        answers(predicted("cat"), predicted("dog")),
        answers(predicted("cat"), predicted("cat")),
        False,
        0.0,
    ),
    "fewer items": (answers(predicted("cat"), predicted("cat")), answers(predicted("cat")), False, 0.0),
    "an embedding that is close": (
        answers({"embedding": [1.0, 2.0]}),
        answers({"embedding": [1.001, 2.0]}),
        True,
        0.0,
    ),
    "an embedding that is not": (
        answers({"embedding": [1.0, 2.0]}),
        answers({"embedding": [2.0, 1.0]}),
        False,
        0.0,
    ),
    "an embedding that differs near nought": (
        answers({"embedding": [1.0, 0.0001]}),
        answers({"embedding": [1.0, -0.0001]}),
        True,
        0.0,
    ),
    "an embedding of another size": (
        answers({"embedding": [1.0, 0.0]}),
        answers({"embedding": [1.0]}),
        False,
        0.0,
    ),
    "the same entities": (
        answers({"entities": [{"label": "PER", "start": 0, "end": 4, "score": 0.9}]}),
        answers({"entities": [{"label": "PER", "start": 0, "end": 4, "score": 0.5}]}),
        True,
        0.0,
    ),
    "entities elsewhere": (
        answers({"entities": [{"label": "PER", "start": 0, "end": 4, "score": 0.9}]}),
        answers({"entities": [{"label": "PER", "start": 0, "end": 5, "score": 0.9}]}),
        False,
        0.0,
    ),
    "other text in an answer": (answers({"text": "a"}), answers({"text": "b"}), False, 0.0),
}


@pytest.mark.parametrize("case", COMPARED)
def test_compare(case: str) -> None:
    live, shadow, agrees, difference = COMPARED[case]
    assert compare(live, shadow) == (agrees, pytest.approx(difference))


@pytest.fixture(autouse=True)
def nobody_waits_for_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "FINISH_S", 0.2)


class Pair:
    """Version 1 live, version 2 its shadow."""

    def __init__(self, live: Served, shadow: Served) -> None:
        self.live, self.shadow = live, shadow
        self.catalogue = Catalogue()

    def swap(self, weight: float = 1.0, *, shadow: bool = True) -> None:
        shares = [Share(self.live)]
        self.catalogue.swap("m", [*shares, Share(self.shadow, weight, "shadow")] if shadow else shares)

    @property
    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.catalogue.snapshot("m")["2"]["shadow"]
        return found

    async def infer(self, value: float = 1.0) -> float:
        async with self.catalogue.lease("m") as target:
            result = await target.infer(request(value))
        assert result.outputs is not None
        return float(result.outputs["y"][0, 0])

    async def settle(self) -> None:
        """Wait until no copy is under way."""
        async with asyncio.timeout(10):
            while self.shadow.leases:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def pair(folder: Path, **fields: Any) -> AsyncIterator[Pair]:
    with ThreadPoolExecutor(1) as threads:
        live = fake_deployment(folder, threads, "m", 1)
        shadow = fake_deployment(folder, threads, "m", 2, **fields)
        await live.start()
        await shadow.start()
        made = Pair(Served(live), Served(shadow))
        made.swap()
        try:
            yield made
        finally:
            made.catalogue.swap("m", [])
            await live.close()
            await shadow.close()


def run(folder: Path, test: Callable[[Pair], Awaitable[None]], **fields: Any) -> None:
    async def inside() -> None:
        async with pair(folder, **fields) as made:
            await test(made)

    asyncio.run(inside())


def test_copies_are_compared_and_callers_see_the_live_version_alone(tmp_path: Path) -> None:
    async def test(made: Pair) -> None:
        for i in range(20):
            assert await made.infer(float(i)) == i
            await made.settle()
        assert (made.stats["compared"], made.stats["agreed"]) == (20, 1), "only nought doubled is nought"
        assert made.stats["max_abs_difference"] == 19.0
        assert made.stats["live_ms"] > 0 < made.stats["shadow_ms"]
        counters = made.catalogue.snapshot("m")
        assert (counters["1"]["requests"], counters["2"]["requests"]) == (20, 20)

    run(tmp_path, test)


def test_the_same_answers_agree(tmp_path: Path) -> None:
    async def test(made: Pair) -> None:
        for i in range(10):
            await made.infer(float(i))
            await made.settle()
        assert (made.stats["compared"], made.stats["agreed"], made.stats["errors"]) == (10, 10, 0)

    run(tmp_path, test, scale=1.0)


@pytest.mark.parametrize(("weight", "copies"), [(0.1, 10), (0.25, 25), (1.0, 100), (7.0, 100)])
def test_a_part_of_the_requests_is_copied(tmp_path: Path, weight: float, copies: int) -> None:
    async def test(made: Pair) -> None:
        made.swap(weight)
        for _ in range(100):
            await made.infer()
            await made.settle()
        assert made.stats["compared"] == copies

    run(tmp_path, test)


def test_a_shadow_that_hangs_delays_nobody_and_the_rest_is_dropped(tmp_path: Path) -> None:
    async def test(made: Pair) -> None:
        before = asyncio.get_running_loop().time()
        for _ in range(100):
            assert await made.infer() == 1.0
        assert asyncio.get_running_loop().time() - before < 5
        assert made.shadow.leases == shadow_module.MAX_UNDER_WAY
        assert made.stats["dropped"] == 100 - shadow_module.MAX_UNDER_WAY
        made.swap(shadow=False)  # cancels what is under way
        assert await made.shadow.drained(5)
        assert await made.infer() == 1.0

    run(tmp_path, test, fail="hang", fail_on=1.0)


def test_a_shadow_that_fails_is_counted_and_nothing_else(tmp_path: Path) -> None:
    async def test(made: Pair) -> None:
        for _ in range(10):
            assert await made.infer() == 1.0
            await made.settle()
        assert (made.stats["errors"], made.stats["compared"]) == (10, 0)
        assert made.catalogue.snapshot("m")["1"]["errors"] == 0

    run(tmp_path, test, fail="run", fail_on=1.0)


def test_large_requests_are_held_up_to_a_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "MAX_BYTES", 40)  # of 12 bytes each

    async def test(made: Pair) -> None:
        for _ in range(10):
            await made.infer()
        assert (made.shadow.leases, made.stats["dropped"]) == (3, 7)

    run(tmp_path, test, fail="hang", fail_on=1.0)


def test_other_weights_keep_the_counts_and_a_shadow_that_goes_live_has_none(tmp_path: Path) -> None:
    async def test(made: Pair) -> None:
        await made.infer()
        await made.settle()
        made.swap(0.5)
        assert made.stats["compared"] == 1
        made.catalogue.swap("m", [Share(made.live), Share(made.shadow)])
        for _ in range(4):
            await made.infer()
        assert made.shadow.leases == 0
        assert "shadow" not in made.catalogue.snapshot("m")["2"]

    run(tmp_path, test)


def test_copies_come_last(tmp_path: Path) -> None:
    async def test(made: Pair) -> None:
        priorities: list[int] = []
        infer = made.shadow.target.infer

        async def spy(copied: Any) -> Any:
            priorities.append(copied.priority)
            return await infer(copied)

        made.shadow.target.infer = spy  # type: ignore[method-assign]
        await made.infer()
        await made.settle()
        assert priorities == [9]

    run(tmp_path, test)
