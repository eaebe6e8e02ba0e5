"""First runs: zeros where the signature says all, an example where it does not."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from core.engines.base import Engine, EngineInfo
from core.errors import RunFailed
from core.serving.batch_size_policy import BatchCosts
from core.serving.warm_up import pack_inputs, unpack_inputs, warm_up
from core.signature import Signature, TensorSpec


class NotingEngine(Engine):
    """Notes what it is given; fails where that is told."""

    name = "noting"
    formats = ()

    def __init__(self, *, fails: bool = False) -> None:
        self.ran: list[tuple[tuple[int, ...], int]] = []
        self.shrunk = 0
        self._fails = fails

    @classmethod
    def info(cls) -> EngineInfo:
        """Always available."""
        return EngineInfo(cls.name, available=True)

    def load(self, artifact: Any, options: Any) -> Signature:
        """Nothing to load."""
        raise NotImplementedError

    def run(self, inputs: Any) -> dict[str, Any]:
        """See run_wide."""
        return self.run_wide(inputs, 0)

    def run_wide(self, inputs: Any, threads: int) -> dict[str, Any]:
        """Note it."""
        self.ran.append((inputs["x"].shape, threads))
        if self._fails:
            raise RunFailed("No.")
        return {"y": inputs["x"]}

    def shrink(self, inputs: Any) -> None:
        """Note it."""
        self.shrunk += 1

    def memory(self) -> int:
        """None."""
        return 0

    def close(self) -> None:
        """Nothing to close."""


def signature(*shape: int) -> Signature:
    return Signature((TensorSpec("x", "FP32", shape),), (TensorSpec("y", "FP32", shape),))


def example(signature: Signature) -> dict[str, Any]:
    return {"x": np.ones((1, 9), np.float32)}


def test_an_example_is_run_on_every_engine_with_every_width_where_lengths_vary() -> None:
    engines, costs = [NotingEngine(), NotingEngine()], BatchCosts(8)
    warm_up(engines, signature(-1, -1), example, (2, 1), costs)
    for engine in engines:
        assert engine.ran == [((1, 9), 2), ((1, 9), 1)]
        assert engine.shrunk == 1
    assert not costs.seconds_an_item  # one length tells nothing of others


def test_zeros_are_run_and_measured_where_the_signature_says_all() -> None:
    engine, costs = NotingEngine(), BatchCosts(8)
    warm_up([engine], signature(-1, 4), example, (1,), costs)
    assert engine.ran[0] == ((1, 4), 1)
    assert costs.seconds_an_item


def test_a_model_without_an_example_waits_for_its_first_caller() -> None:
    engine = NotingEngine()
    warm_up([engine], signature(-1, -1), lambda _: None, (1,), BatchCosts(8))
    assert engine.ran == []


def test_an_example_that_fails_is_not_the_last_word_but_zeros_that_fail_are() -> None:
    warm_up([NotingEngine(fails=True)], signature(-1, -1), example, (1,), BatchCosts(8))
    with pytest.raises(RunFailed):
        warm_up([NotingEngine(fails=True)], signature(-1, 4), example, (1,), BatchCosts(8))


def test_inputs_survive_the_way_to_another_process() -> None:
    inputs = {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": np.ones((1, 2), ml_dtypes.bfloat16)}
    packed = unpack_inputs(pack_inputs(inputs))
    assert packed is not None
    for name, array in inputs.items():
        assert packed[name].dtype == array.dtype
        assert (packed[name] == array).all()
        assert packed[name].flags.writeable
    assert unpack_inputs(pack_inputs({"texts": np.array(["a"], object)})) is None
