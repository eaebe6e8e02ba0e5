"""Everything that can be called."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from core.serving.request import InferenceRequest, InferenceResult
from core.signature import Signature


class Target(Protocol):
    """A live model version, a pipeline, a router, a model on another node: the HTTP side sees only this."""

    @property
    def model(self) -> str:
        """The name it is called by."""

    @property
    def version(self) -> int:
        """The version that answers."""

    @property
    def task(self) -> str:
        """What kind of question it answers."""

    @property
    def modality(self) -> str:
        """image, text, audio or tensor."""

    @property
    def signature(self) -> Signature:
        """Its tensors."""

    def check_room(self) -> None:
        """Raise at once what `infer` would for want of room, before a body is even read."""

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        """Answer one request. Raises PlatformError; may be cancelled at any moment."""


class StreamingTarget(Target, Protocol):
    """A target that answers piece by piece."""

    def stream(self, request: InferenceRequest) -> AsyncIterator[Any]:
        """Yield pieces of the answer as they come."""
