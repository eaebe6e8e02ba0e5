"""Whether the tensors of a request fit a model, said in words that help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.errors import InvalidInput
from core.signature import NUMPY_DTYPES, Signature, TensorSpec, dtype_name

Tensors = Mapping[str, np.ndarray[Any, Any]]


class InputCheck:
    """The inputs of one signature, made ready for quick checking."""

    def __init__(self, signature: Signature) -> None:
        self._specs = tuple((s.name, s, NUMPY_DTYPES.get(s.dtype)) for s in signature.inputs)
        self._batchable = signature.why_not_batchable() is None
        # The commonest model by far: one input, of which only the batch axis is dynamic.
        spec = signature.inputs[0] if signature.inputs else None
        simple = len(self._specs) == 1 and self._batchable and spec is not None and -1 not in spec.shape[1:]
        self._simple = (spec.name, self._specs[0][2], spec.shape[1:]) if simple and spec is not None else None

    def items(self, inputs: Tensors) -> int:
        """Check names, dtypes and shapes, and return how many items the request counts for.

        Raises InvalidInput, which names the input, what was expected and what came.
        """
        if self._simple is not None and len(inputs) == 1:
            name, dtype, inner = self._simple
            array = inputs.get(name)
            if array is not None and array.dtype == dtype and array.shape and array.shape[1:] == inner:
                items: int = array.shape[0]
                if items:
                    return items
        return self._items(inputs)

    def _items(self, inputs: Tensors) -> int:
        if len(inputs) != len(self._specs):
            self._refuse_names(inputs)
        for name, spec, dtype in self._specs:
            array = inputs.get(name)
            if array is None:
                self._refuse_names(inputs)
            elif array.dtype != dtype or not _fits(spec.shape, array.shape):
                raise InvalidInput(_mismatch(spec, array))
        return self._count(inputs) if self._batchable else 1

    def _count(self, inputs: Tensors) -> int:
        lengths: dict[str, int] = {name: inputs[name].shape[0] for name, _, _ in self._specs}
        first, items = next(iter(lengths.items()))
        if items == 0:
            raise InvalidInput(f"Input {first!r} has no items: its first axis is empty.")
        for name, length in lengths.items():
            if length != items:
                raise InvalidInput(
                    f"Input {name!r} has {length} items on its first axis, but input {first!r} has {items}."
                )
        return items

    def _refuse_names(self, inputs: Tensors) -> None:
        expected = [name for name, _, _ in self._specs]
        missing = [name for name in expected if name not in inputs]
        if missing:
            raise InvalidInput(f"Input {missing[0]!r} is missing; the model takes {', '.join(expected)}.")
        unknown = next(name for name in inputs if name not in expected)
        raise InvalidInput(f"Input {unknown!r} is not known; the model takes {', '.join(expected)}.")


def _fits(expected: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(expected) == len(shape) and all(
        want in (-1, got) for want, got in zip(expected, shape, strict=True)
    )


def _mismatch(spec: TensorSpec, array: np.ndarray[Any, Any]) -> str:
    return (
        f"Input {spec.name!r} must be {spec.dtype} of shape {list(spec.shape)}, "
        f"but came as {dtype_name(array.dtype)} of shape {list(array.shape)}."
    )
