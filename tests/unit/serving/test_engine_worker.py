"""A slot survives whatever an engine answers: over a real queue, batcher and thread."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.engines.base import Engine, EngineInfo, EngineOptions, Tensors
from core.errors import RunFailed
from core.serving.runner import LocalRunner, RunnerOptions
from core.signature import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("found", "FP32", (-1, -1)),))


class Finder(Engine):
    """Finds as many things as the largest number of its batch says, as detectors do."""

    name = "finder"
    formats = ()
    concurrent = True

    @classmethod
    def info(cls) -> EngineInfo:
        return EngineInfo(cls.name, available=True)

    def load(self, artifact: Path, options: EngineOptions) -> Signature:
        return SIGNATURE

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        x = inputs["x"]
        if x.max() < 0:
            return {"found": None}  # type: ignore[dict-item]
        return {"found": np.ones((len(x), int(x.max())), np.float32)}

    def memory(self) -> int:
        return 0

    def close(self) -> None:
        pass


async def find(runner: LocalRunner, *numbers: float) -> np.ndarray[Any, Any]:
    runner.admit(len(numbers))
    inputs = {"x": np.array(numbers, np.float32)[:, None]}
    found = await runner.run(inputs, len(numbers), priority=5, deadline=time.monotonic() + 30)
    return found.outputs["found"]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [((1, 1, 3, 3), "send at most 2 items"), ((-1, -1), "failed while running")],
    ids=["parts of different shapes", "no array"],
)
def test_a_slot_goes_on_after_an_answer_that_cannot_be_used(numbers: tuple[float, ...], message: str) -> None:
    async def test() -> None:
        runner = LocalRunner(RunnerOptions("m", max_batch=2), lambda: (Finder(), SIGNATURE))
        await runner.start(lambda state: None)
        try:
            with pytest.raises(RunFailed, match=message):
                await find(runner, *numbers)
            assert (await find(runner, 2, 2)).shape == (2, 2)
            assert (await runner.stats()).depth == 0
        finally:
            await runner.close()

    asyncio.run(test())
