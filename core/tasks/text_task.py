"""What text tasks have in common: the way in, and what validation tries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from core.signature import Signature
from core.tasks.base import MediaLimits, Payload, Task, Tensors
from core.tasks.text_input import EXAMPLE, TextConfig, TextInput


class TextTask(Task):
    """Texts in, as UTF-8."""

    modality: ClassVar[str] = "text"

    def __init__(self, config: TextConfig, signature: Signature, root: Path, limits: MediaLimits) -> None:
        self._input = TextInput(config, signature, root, limits.max_text_bytes)

    def example(self) -> Payload:
        """A sentence."""
        return Payload(EXAMPLE.encode(), "text/plain")

    def probe(self, run: Callable[[Tensors], Tensors]) -> None:
        """See TextInput."""
        self._input.probe(run)
