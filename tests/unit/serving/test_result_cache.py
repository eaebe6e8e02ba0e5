"""Kept answers: what is the same request, how much is kept, and who computes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from core.errors import DeadlineExceeded, QueueFull
from core.serving.request import InferenceRequest, InferenceResult, SequencePart, Timing
from core.serving.result_cache import ENTRY_BYTES, ResultCache, ResultStore, content_key, keeps_results, size_of
from core.tasks.base import Payload

pytestmark = pytest.mark.anyio


class Model:
    """Answers what it was asked, once it may, and counts how often it had to."""

    def __init__(self, *, held: bool = False, size: int = 4) -> None:
        self.runs = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.size = size
        if not held:
            self.go.set()

    async def compute(self, request: InferenceRequest) -> InferenceResult:
        self.runs += 1
        try:
            left_s = None if request.deadline is None else max(0.0, request.deadline - time.monotonic())
            async with asyncio.timeout(left_s):
                await self.go.wait()
        except TimeoutError:
            raise DeadlineExceeded("The deadline passed in the queue.") from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        data = (request.payloads or [Payload(b"")])[0].data
        if data == b"full":
            raise QueueFull("The queue is full.")
        answers = [{"embedding": [1.0] * self.size, "of": data.decode()}]
        return InferenceResult("m", 1, "text-embedding", Timing(infer=5, total=6), answers)


def asked(data: bytes = b"one", **options: Any) -> InferenceRequest:
    return InferenceRequest([Payload(data, "text/plain")], **options)


def cached(model: Model, max_bytes: int = 1 << 20) -> tuple[ResultStore, ResultCache]:
    store = ResultStore(max_bytes)
    return store, ResultCache(store, model.compute, 10_000)


async def test_the_same_content_is_computed_once() -> None:
    model = Model()
    _, cache = cached(model)
    first, again, other = [await cache.infer(asked(data)) for data in (b"one", b"one", b"two")]
    assert [one.cache for one in (first, again, other)] == ["miss", "hit", "miss"]
    assert again.answers == first.answers
    assert again.timing.infer == 0
    assert again.timing.total < 6
    assert model.runs == 2


OTHERS: list[Callable[[], InferenceRequest]] = [
    lambda: asked(b"two"),
    lambda: InferenceRequest([Payload(b"one", "text/html")]),
    lambda: asked(parameters={"k": 1}),
    lambda: asked(raw=True),
    lambda: InferenceRequest([Payload(b"on", "text/plain"), Payload(b"e", "text/plain")]),
    lambda: InferenceRequest(inputs={"x": np.zeros((1, 4), np.float32)}),
    lambda: InferenceRequest(inputs={"x": np.zeros((4, 1), np.float32)}),
    lambda: InferenceRequest(inputs={"x": np.zeros((1, 4), np.int32)}),
    lambda: InferenceRequest(inputs={"y": np.zeros((1, 4), np.float32)}),
    lambda: InferenceRequest(inputs={"x": np.zeros((0, 4), np.float32)}),
]


def test_all_that_an_answer_depends_on_makes_a_difference() -> None:
    keys = [content_key(request()) for request in (asked, *OTHERS)]
    assert len(set(keys)) == len(keys)
    assert content_key(asked(request_id="a", priority=1, deadline=7.0)) == keys[0]
    assert content_key(asked(parameters={"a": 1, "b": 2})) == content_key(asked(parameters={"b": 2, "a": 1}))
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    strided, whole = InferenceRequest(inputs={"x": x.T}), InferenceRequest(inputs={"x": x.T.copy()})
    assert content_key(strided) == content_key(whole)


async def test_one_computation_however_many_ask() -> None:
    model = Model(held=True)
    _, cache = cached(model)
    tasks = [asyncio.create_task(cache.infer(asked())) for _ in range(20)]
    await asyncio.sleep(0)
    model.go.set()
    results = await asyncio.gather(*tasks)
    assert model.runs == 1
    assert sorted(result.cache or "" for result in results) == ["miss", *["shared"] * 19]


async def test_a_caller_who_leaves_fails_no_other() -> None:
    model = Model(held=True)
    _, cache = cached(model)
    first, *others = [asyncio.create_task(cache.infer(asked())) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    model.go.set()
    assert [(await other).answers[0]["of"] for other in others] == ["one", "one"]  # type: ignore[index]
    assert (model.runs, model.cancelled) == (1, 0)


async def test_what_nobody_waits_for_is_cancelled_and_begun_anew_by_the_next() -> None:
    model = Model(held=True)
    _, cache = cached(model)
    tasks = [asyncio.create_task(cache.infer(asked())) for _ in range(2)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    late = asyncio.create_task(cache.infer(asked()))
    await asyncio.sleep(0)
    model.go.set()
    assert (await late).cache == "miss"
    assert (model.runs, model.cancelled) == (2, 1)


async def test_an_error_is_everybodys_who_waits_and_is_not_kept() -> None:
    model = Model(held=True)
    store, cache = cached(model)
    tasks = [asyncio.create_task(cache.infer(asked(b"full"))) for _ in range(2)]
    await asyncio.sleep(0)
    model.go.set()
    assert all(isinstance(one, QueueFull) for one in await asyncio.gather(*tasks, return_exceptions=True))
    with pytest.raises(QueueFull):
        await cache.infer(asked(b"full"))
    assert (model.runs, len(store)) == (2, 0)


async def test_a_deadline_is_its_callers_own() -> None:
    model = Model(held=True)
    _, cache = cached(model)
    hasty = asyncio.create_task(cache.infer(asked(deadline=time.monotonic() + 0.02)))
    await asyncio.sleep(0)
    patient = asyncio.create_task(cache.infer(asked(deadline=time.monotonic() + 20)))
    with pytest.raises(DeadlineExceeded):
        await hasty
    model.go.set()
    assert (await patient).answers
    assert model.runs == 2


async def test_bytes_are_bounded_and_the_one_used_longest_ago_goes_first() -> None:
    model = Model(size=100)
    one_bytes = ENTRY_BYTES + size_of((await model.compute(asked())).answers) + size_of(None)
    store, cache = cached(model, max_bytes=one_bytes * 10)
    for i in range(10):
        await cache.infer(asked(b"%03d" % i))
    await cache.infer(asked(b"000"))
    await cache.infer(asked(b"new"))
    assert store.size_bytes <= store.max_bytes
    assert (await cache.infer(asked(b"000"))).cache == "hit"
    assert (await cache.infer(asked(b"001"))).cache == "miss"
    model.size = 10_000
    await cache.infer(asked(b"huge"))
    assert (await cache.infer(asked(b"huge"))).cache == "miss"
    assert len(store) == 10


async def test_a_version_that_is_closed_takes_its_answers_along() -> None:
    model = Model()
    store, cache = cached(model)
    other = ResultCache(store, model.compute, 10_000)
    await cache.infer(asked())
    assert (await other.infer(asked())).cache == "miss"  # another version's answer is none of its own
    cache.close()
    assert len(store) == 1
    other.close()
    assert (len(store), store.size_bytes) == (0, 0)


async def test_a_part_of_a_sequence_is_never_kept() -> None:
    model = Model()
    _, cache = cached(model)
    for _ in range(2):
        assert (await cache.infer(asked(sequence=SequencePart("s")))).cache is None
    assert model.runs == 2


async def test_kept_tensors_hold_no_batch_and_stay_as_they_are() -> None:
    batch = np.ones((32, 4), np.float32)

    async def compute(request: InferenceRequest) -> InferenceResult:
        return InferenceResult("m", 1, "tensor", Timing(), outputs={"y": batch[3:4]})

    cache = ResultCache(ResultStore(1 << 20), compute, 1000)
    for _ in range(2):
        outputs = (await cache.infer(asked())).outputs
        assert outputs is not None
        assert outputs["y"].base is None
        with pytest.raises(ValueError, match="read-only"):
            outputs["y"][0, 0] = 7


def test_embeddings_are_kept_unless_it_is_said_otherwise() -> None:
    assert keeps_results(None, "text-embedding")
    assert keeps_results(None, "image-embedding")
    assert not keeps_results(None, "text-classification")
    assert not keeps_results(False, "text-embedding")
    assert keeps_results(True, "tensor")
