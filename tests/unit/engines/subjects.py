"""What the models of the conformance suite do, and how one sees that an answer is right.

Every row that goes in stands for a whole number, and so does every row that comes out: whatever the engine, it
must answer the numbers it was asked, in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from core.signature import NUMPY_DTYPES, Signature, TensorSpec
from tests import whisper_models

Shape = Sequence[int]
Arrays = dict[str, np.ndarray[Any, Any]]
TEXTS = ("", "a", "ü", "two words")


class Subject(Protocol):
    """One thing that a model does."""

    open_shape: ClassVar[Shape]
    """Of its first input, with an inner axis that may have any length."""
    concurrent: ClassVar[bool]
    fixed_batch: ClassVar[bool]
    """Whether a model of it can be written for one batch size alone."""
    calls: ClassVar[int]
    """That make a good try of many at once: as many as take a second or two."""

    def signature(self, dtype: str, shape: Shape) -> Signature:
        """Of a model of that dtype and shape."""
        ...

    def numbers(self, count: int, dtype: str = "FP32") -> list[int]:
        """So many that can be asked, unlike their neighbours."""
        ...

    def ask(self, numbers: Sequence[int], dtype: str = "FP32", length: int | None = None) -> Arrays:
        """The inputs, with so long an inner axis."""
        ...

    def answered(self, outputs: Mapping[str, np.ndarray[Any, Any]], dtype: str = "FP32") -> list[int]:
        """The numbers that these outputs are the right answer to; others are an AssertionError."""
        ...


class Doubling:
    """y = 2x, all of a row being one number; y = x for BOOL and BYTES."""

    open_shape: ClassVar[Shape] = (-1, -1, 2)
    concurrent: ClassVar[bool] = True
    fixed_batch: ClassVar[bool] = True
    calls: ClassVar[int] = 200

    def signature(self, dtype: str, shape: Shape) -> Signature:
        return Signature((TensorSpec("x", dtype, tuple(shape)),), (TensorSpec("y", dtype, tuple(shape)),))

    def numbers(self, count: int, dtype: str = "FP32") -> list[int]:
        most = {"BOOL": 2, "BYTES": len(TEXTS)}.get(dtype, 100)
        return [number % most for number in range(1, count + 1)]

    def ask(self, numbers: Sequence[int], dtype: str = "FP32", length: int | None = None) -> Arrays:
        values = [TEXTS[number] if dtype == "BYTES" else number for number in numbers]
        inner = (3,) if length is None else (length, 2)
        column = np.array(values, NUMPY_DTYPES[dtype]).reshape(-1, *[1] * len(inner))
        return {"x": np.tile(column, (1, *inner))}

    def answered(self, outputs: Mapping[str, np.ndarray[Any, Any]], dtype: str = "FP32") -> list[int]:
        (y,) = outputs.values()
        assert y.dtype == NUMPY_DTYPES[dtype]
        assert y.shape[1:] == (3,) or y.shape[2:] == (2,)
        firsts = y.reshape(len(y), -1)[:, :1] if len(y) else y.reshape(0, 1)
        assert (y.reshape(len(y), -1) == firsts).all() if len(y) else True
        if dtype == "BYTES":
            return [TEXTS.index(text) for (text,) in firsts.tolist()]
        times = 1 if dtype == "BOOL" else 2
        assert all(value % times == 0 for (value,) in firsts.tolist())
        return [int(value) // times for (value,) in firsts.tolist()]


class Loudest:
    """A Whisper that says which mel is loudest (tests/whisper_models.py)."""

    dtypes: ClassVar[tuple[str, ...]] = ("FP32",)
    """Of what is heard. Prompts and tokens are always INT64."""
    open_shape: ClassVar[Shape] = (-1, whisper_models.MELS, whisper_models.FRAMES)
    """The prompt's length is what varies."""
    concurrent: ClassVar[bool] = False
    fixed_batch: ClassVar[bool] = False
    calls: ClassVar[int] = 20

    def signature(self, dtype: str, shape: Shape) -> Signature:
        one = (-1, 1)
        inputs = (
            TensorSpec("features", dtype, tuple(self.open_shape)),
            TensorSpec("prompt", "INT64", (-1, -1)),
            TensorSpec("temperature", "FP32", one),
            TensorSpec("beam_size", "INT64", one),
        )
        outputs = (
            TensorSpec("tokens", "INT64", (-1, 448)),
            TensorSpec("log_probability", "FP32", one),
            TensorSpec("no_speech", "FP32", one),
        )
        return Signature(inputs, outputs)

    def numbers(self, count: int, dtype: str = "FP32") -> list[int]:
        return [number % whisper_models.SAYABLE for number in range(1, count + 1)]

    def ask(self, numbers: Sequence[int], dtype: str = "FP32", length: int | None = None) -> Arrays:
        # A prompt's length: of start and "no times", or of as many words that were said before.
        before = [0] * ((length or 2) - 2)
        prompt = [*before, whisper_models.START, whisper_models.NO_TIMES]
        rows = len(numbers)
        return {
            "features": whisper_models.heard(numbers),
            "prompt": np.array([prompt] * rows, np.int64).reshape(rows, len(prompt)),
            "temperature": np.zeros((rows, 1), np.float32),
            "beam_size": np.ones((rows, 1), np.int64),
        }

    def answered(self, outputs: Mapping[str, np.ndarray[Any, Any]], dtype: str = "FP32") -> list[int]:
        for spec in self.signature(dtype, self.open_shape).outputs:
            assert outputs[spec.name].dtype == NUMPY_DTYPES[spec.dtype]
            assert outputs[spec.name].shape[1:] == spec.shape[1:]
        said = [set(row[row >= 0].tolist()) for row in outputs["tokens"]]
        assert all(len(words) == 1 for words in said)
        return [words.pop() for words in said]
