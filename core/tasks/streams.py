"""The contract of a task that can listen: media in pieces in, partial answers out, one stream for each caller."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

from core.tasks.base import Tensors

Answers = Generator[dict[str, np.ndarray[Any, Any]], Tensors, list[dict[str, Any]]]
"""Yields the inputs of each run (first axis 1), is sent its outputs, and returns what there is to say."""


class TaskStream(ABC):
    """What is known of one stream. Its memory is bounded, however long the stream. One call at a time."""

    @abstractmethod
    def feed(self, chunk: bytes) -> Answers:
        """Take the next piece. Raises InvalidInput."""

    @abstractmethod
    def finish(self) -> Answers:
        """What is left to say at the end; nothing may be fed after it."""


class StreamedTask(ABC):
    """A task with streams, beside its answers to whole media."""

    @abstractmethod
    def open_stream(self, parameters: Mapping[str, Any]) -> TaskStream:
        """A fresh one. Raises InvalidInput for parameters that cannot be."""
