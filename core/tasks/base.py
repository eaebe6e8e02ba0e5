"""The contract of a task: what turns a caller's media into tensors, and tensors into an answer.

A task knows the model's manifest and signature, and nothing of HTTP, queues or engines. Both calls block and
are made from worker threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from core.signature import Signature

Tensors = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Payload:
    """One piece of media as the caller sent it: its bytes, the media type claimed for it, and its part's name."""

    data: bytes
    media_type: str = ""
    name: str = ""


@dataclass(slots=True)
class Prepared:
    """Tensors whose first axis counts the items, and one context an item for the way back."""

    inputs: dict[str, np.ndarray[Any, Any]]
    contexts: list[Any]


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Caps on what one piece of media may unpack to."""

    max_pixels: int = 50_000_000


DEFAULT_LIMITS: Final = MediaLimits()


class Task(ABC):
    """One kind of question that a model answers. `modality` is image, text, audio or tensor."""

    name: ClassVar[str]
    modality: ClassVar[str]

    @classmethod
    @abstractmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Check the manifest's task section alone. Raises InvalidPackage with the field's name."""

    @abstractmethod
    def __init__(
        self, config: Mapping[str, Any], signature: Signature, root: Path, limits: MediaLimits = DEFAULT_LIMITS
    ) -> None:
        """Bind to a model: `root` holds its files (labels …). Raises InvalidPackage where they do not fit."""

    @abstractmethod
    def preprocess(self, payloads: Sequence[Payload], parameters: Mapping[str, Any]) -> Prepared:
        """Turn media into tensors, item by item. Raises UnsupportedMedia, TooLarge or InvalidInput."""

    @abstractmethod
    def postprocess(
        self, outputs: Tensors, contexts: Sequence[Any], parameters: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Turn outputs (first axis: items) into one answer an item, made of JSON's types only."""
