"""Rounds a layer's weights to a grid so that its outputs, not its weights, stay as they were.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (2022),
algorithm 1, with bfloat16's numbers or those of 8 bits for the grid, and the bias as one more weight, whose input
is always 1.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np

from core.signature import NUMPY_DTYPES

Array = np.ndarray[Any, Any]
DAMPING: Final = 0.03
"""Of the mean of the diagonal, added to it: what few samples say of rare inputs is not to be believed."""
LEVELS: Final = 127
"""Of a symmetric signed weight of 8 bits."""
_BLOCK: Final = 64
_TINY: Final = 1e-9


class Grid(Protocol):
    """The numbers that weights may have; column 0 is the bias."""

    @property
    def bias_first(self) -> bool:
        """Whether the others take over its error, or it takes over theirs."""

    def round(self, values: Array, column: int) -> Array:
        """The nearest numbers, float64 [groups, outputs]."""


class Bfloat16:
    """What bfloat16 holds."""

    bias_first: Final = True

    def round(self, values: Array, column: int) -> Array:
        """See Grid."""
        return to_bf16(values)


class Int8:
    """127 steps to each side, their size such that the largest of an output's `weights` is the last.

    That one stays where it is, so that who measures the weights anew finds the same steps. The bias has 32 bits,
    is not rounded, and takes over what the weights leave, where there is one.
    """

    def __init__(self, weights: Array, *, has_bias: bool = True) -> None:
        self.bias_first = not has_bias
        own = weights[..., 1:].astype(np.float64)
        largest = np.abs(own).max(axis=-1)
        self._step = np.where(largest > 0, largest / LEVELS, 1.0)
        self._peak = 1 + np.abs(own).argmax(axis=-1)
        self._peak_steps = np.sign(np.take_along_axis(own, self._peak[..., None] - 1, axis=-1)[..., 0]) * LEVELS

    def round(self, values: Array, column: int) -> Array:
        """See Grid."""
        if column == 0:
            return values
        steps = np.clip(np.round(values / self._step), -LEVELS, LEVELS)
        return np.asarray(np.where(self._peak == column, self._peak_steps, steps) * self._step)


def to_bf16(array: Array) -> Array:
    """The nearest values that bfloat16 holds, ties to even, as float64."""
    rounded: Array = array.astype(np.float32).astype(NUMPY_DTYPES["BF16"]).astype(np.float64)
    return rounded


def compensated(weights: Array, moments: Array, damping: float = DAMPING, grid: Grid | None = None) -> Array:
    """Weights on the grid, bfloat16's by default, whose products with the inputs come close to those of `weights`.

    `weights` are float [groups, outputs, inputs], and `moments` E[x x'] of their inputs, float64 [groups, inputs,
    inputs]; the first input is the bias's. One column after the other is rounded, those with the largest inputs
    first, and the columns after it take over the error as far as their inputs go along with its input.
    """
    grid = grid or Bfloat16()
    size = moments.shape[-1]
    spread = np.diagonal(moments, axis1=1, axis2=2)
    kept = moments + (damping * spread[:, 1:].mean(axis=1) + _TINY)[:, None, None] * np.eye(size)
    others = 1 + np.argsort(-spread[:, 1:].mean(axis=0))
    order = np.concatenate([[0], others] if grid.bias_first else [others, [0]])
    upper = np.linalg.cholesky(np.linalg.inv(kept[:, order][:, :, order])).swapaxes(1, 2)
    found = np.empty(weights.shape, np.float64)
    found[..., order] = _rounded(weights[..., order].astype(np.float64), upper, order, grid)
    return found


def _rounded(left: Array, upper: Array, order: Array, grid: Grid) -> Array:
    """`upper` [groups, inputs, inputs] is Cholesky's factor of the inverse moments; `left` is used up."""
    done = np.empty_like(left)
    for start in range(0, left.shape[-1], _BLOCK):
        end = min(start + _BLOCK, left.shape[-1])
        errors = np.empty((*left.shape[:2], end - start))
        for column in range(start, end):
            done[..., column] = grid.round(left[..., column], int(order[column]))
            lost = (left[..., column] - done[..., column]) / upper[:, None, column, column]
            left[..., column:end] -= lost[..., None] * upper[:, None, column, column:end]
            errors[..., column - start] = lost
        left[..., end:] -= errors @ upper[:, start:end, end:]
    return done
