"""The contract of a task whose answer takes several runs of the engine, each made of what the one before gave."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np

from core.errors import InvalidInput
from core.tasks.base import Payload, Prepared, Task, Tensors

Inputs = dict[str, np.ndarray[Any, Any]]
Steps = Generator[Inputs, Tensors, dict[str, Any]]
"""Yields the inputs of the next run (first axis 1), is sent its outputs, and returns the answer."""


State = dict[str, np.ndarray[Any, Any]]
"""What is kept of a sequence from part to part: small arrays, a few KB in all."""
PartSteps = Generator[Inputs, Tensors, tuple[dict[str, Any], State]]
"""As Steps, and returns the answer with the next state."""


def answer_of(steps: Steps, run: Callable[[Tensors], Tensors]) -> dict[str, Any]:
    """The answer to one item, every run made here and now. Raises as `steps` and `run` do."""
    try:
        inputs = next(steps)
        while True:
            inputs = steps.send(run(inputs))
    except StopIteration as stop:
        answer: dict[str, Any] = stop.value
        return answer


class SteppedTask(Task):
    """Asked item by item. Between two steps the engine is free for others; runs of several items share batches.

    Each step is made in a worker thread, never two at once, though not always in the same thread. Where the caller
    leaves or a run fails, the generator is closed.
    """

    @abstractmethod
    def steps(self, payload: Payload, parameters: Mapping[str, Any]) -> Steps:
        """The answer to one item. Raises UnsupportedMedia, TooLarge or InvalidInput, early where it can."""

    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """The inputs of the first run alone; there is no way on from these. Raises as `steps`."""
        if len(payloads) != 1:
            raise InvalidInput("The task takes its inputs one at a time.")
        steps = self.steps(payloads[0], parameters)
        try:
            return Prepared(next(steps), [None])
        except StopIteration:
            raise InvalidInput("The input needs no run of the model.") from None
        finally:
            steps.close()

    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Refused: the outputs of one run are no answer. Raises InvalidInput."""
        raise InvalidInput("The task's answers take several runs of the model.")


class StatefulTask(SteppedTask):
    """A task that can be asked part by part: what it has to know of the parts before is its state.

    The state is kept beside the model's queue, where every process that serves the model reaches it.
    """

    state_tensors: Mapping[str, str]
    """Inputs of the model that are state, by the outputs that hold them afterwards."""

    @abstractmethod
    def first_state(self) -> State:
        """The state before the first part."""

    @abstractmethod
    def part(self, payload: Payload, parameters: Mapping[str, Any], state: State, *, last: bool) -> PartSteps:
        """The answer to one part. `state` is not changed. Raises as `steps`."""
