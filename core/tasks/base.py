"""The contract of a task: what turns a caller's media into tensors, and tensors into an answer.

A task knows the model's manifest and signature, and nothing of HTTP, queues or engines. Both calls block and
are made from worker threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np

from core.signature import Signature

if TYPE_CHECKING:
    from core.media.images import Decoded
    from core.tasks.vectors import Pooled

Tensors = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Payload:
    """One piece of media as the caller sent it: its bytes, the media type claimed for it, and its part's name.

    An image that was decoded already, as between the nodes of a pipeline, is `image`, and has no bytes.
    """

    data: bytes
    media_type: str = ""
    name: str = ""
    image: Decoded | None = None

    @property
    def size_bytes(self) -> int:
        """What it holds."""
        return len(self.data) + (self.image.pixels.nbytes if self.image is not None else 0)


class Padding(NamedTuple):
    """What fills an input up to the longest item of its batch, and along which axis."""

    value: float = 0
    axis: int = 1


@dataclass(slots=True)
class Prepared:
    """Tensors whose first axis counts the items, and one context an item for the way back.

    Items of different length say their `lengths`, and in `padding` which inputs are padded to the longest. Then
    each item waits for a slot by itself and runs with others of like length, its own request's or not; its outputs
    are as long as the longest of the batch it ran in, and `postprocess` gets them item by item.
    """

    inputs: dict[str, np.ndarray[Any, Any]]
    contexts: list[Any]
    lengths: Sequence[int] | None = None
    padding: Mapping[str, Padding] = field(default_factory=dict)

    def each(self) -> list[dict[str, np.ndarray[Any, Any]]]:
        """The items one by one, without their padding."""
        return [
            {name: self._cut(name, array[i : i + 1], length) for name, array in self.inputs.items()}
            for i, length in enumerate(self.lengths or ())
        ]

    def _cut(self, name: str, item: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
        padding = self.padding.get(name)
        return item if padding is None else item[(slice(None),) * padding.axis + (slice(length),)]


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Caps on what one piece of media may unpack to."""

    max_pixels: int = 50_000_000
    max_audio_s: float = 600.0
    max_audio_bytes: int = 512 << 20
    """What a recording may unpack to at its own rate, 4 bytes a sample and channel."""
    max_text_bytes: int = 1 << 20


DEFAULT_LIMITS: Final = MediaLimits()


class Task(ABC):
    """One kind of question that a model answers. `modality` is image, text, audio or tensor."""

    name: ClassVar[str]
    modality: ClassVar[str]

    @classmethod
    @abstractmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Check the manifest's task section alone. Raises InvalidPackage with the field's name."""

    @classmethod
    def other_models(cls, config: Mapping[str, Any]) -> list[str]:
        """ONNX files of the package that the task runs beside the model; validation looks at them as at it."""
        return []

    @classmethod
    def pooled(cls, config: Mapping[str, Any], signature: Signature) -> Pooled | None:
        """How one vector an item is made of the outputs, where that is all that is answered; None elsewhere."""
        return None

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

    def example(self) -> Payload | None:
        """A piece of media that the task takes; None for pictures and recordings, which are alike, and tensors."""
        return None

    def example_parameters(self) -> dict[str, Any]:
        """What a call has to say beside its media, where the model has no default for it."""
        return {}

    def probe(self, run: Callable[[Tensors], Tensors]) -> None:  # noqa: B027 (most have no bounds of their own)
        """Try the model in validation at the bounds of what may be sent; `run` raises RunFailed.

        Raises InvalidPackage, saying what to mend.
        """

    def check_outputs(self, outputs: Tensors) -> None:  # noqa: B027 (most tasks see all they need in the signature)
        """Look at what the model answered to a made-up example, in validation.

        Raises InvalidPackage, saying what to mend, where the manifest cannot be true of such outputs.
        """
