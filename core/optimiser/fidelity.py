"""How closely one model's answers follow another's: a function of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.optimiser.candidate import Fidelity

Outputs = Mapping[str, np.ndarray[Any, Any]]
_TINY = 1e-12


class Comparison:
    """Gathers batch by batch. `classes` names the output [items, classes] whose largest is the answer, if any."""

    def __init__(self, classes: str | None = None) -> None:
        self._classes = classes
        self._items = 0
        self._cosines: dict[str, float] = {}
        self._max_error = 0.0
        self._agreed = 0
        self._labelled = self._right = self._reference_right = 0

    def add(self, reference: Outputs, outputs: Outputs, labels: Sequence[int | None] = ()) -> None:
        """Compare one batch; `labels` holds the true class of each item, or None.

        Raises ValueError where outputs are missing or of other shapes.
        """
        for name, wanted in reference.items():
            if name not in outputs or outputs[name].shape != wanted.shape:
                raise ValueError(f"The output {name!r} is missing or has another shape than the reference's.")
        items = next(iter(reference.values())).shape[0]
        self._items += items
        for name, wanted in reference.items():
            theirs, ours = _flat(wanted, outputs[name], items)
            self._cosines[name] = self._cosines.get(name, 0.0) + float(_cosines(theirs, ours).sum())
            self._max_error = max(self._max_error, _largest(theirs, ours))
        if self._classes is not None:
            self._add_classes(reference[self._classes], outputs[self._classes], labels)

    def _add_classes(
        self, reference: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any], labels: Sequence[int | None]
    ) -> None:
        theirs, ours = reference.argmax(axis=1), outputs.argmax(axis=1)
        self._agreed += int((theirs == ours).sum())
        for label, their, our in zip(labels, theirs, ours, strict=False):
            if label is not None:
                self._labelled += 1
                self._right += int(our == label)
                self._reference_right += int(their == label)

    def result(self) -> Fidelity:
        """The figures over everything added. Raises ValueError for nothing."""
        if not self._items:
            raise ValueError("There is nothing to compare.")
        accuracy = self._right / self._labelled if self._labelled else None
        return Fidelity(
            items=self._items,
            cosine=min(self._cosines.values()) / self._items,
            max_error=self._max_error,
            top1_agreement=self._agreed / self._items if self._classes is not None else None,
            accuracy=accuracy,
            reference_accuracy=self._reference_right / self._labelled if self._labelled else None,
            labelled=self._labelled,
        )


def class_output(outputs: Outputs) -> str | None:
    """The output that looks like scores of classes: the only one, floating-point, [items, 2 or more]."""
    found = [name for name, array in outputs.items() if array.dtype.kind == "f"]
    if len(outputs) != 1 or not found or outputs[found[0]].ndim != 2 or outputs[found[0]].shape[1] < 2:
        return None
    return found[0]


def _flat(
    theirs: np.ndarray[Any, Any], ours: np.ndarray[Any, Any], items: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Both as [items, everything]. Texts count as one where they are the same, and nothing where they are not."""
    if theirs.dtype.kind in "OSU":
        same = (theirs.astype(np.str_) == ours.astype(np.str_)).reshape(items, -1).astype(np.float64)
        return np.ones_like(same), same
    return theirs.reshape(items, -1).astype(np.float64), ours.reshape(items, -1).astype(np.float64)


def _cosines(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    a, b = _finite(a), _finite(b)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = np.all(np.abs(a - b) <= _TINY, axis=1)
    cosines = np.sum(a * b, axis=1) / np.maximum(lengths, _TINY)
    return np.where(same, 1.0, cosines)


def _finite(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # Masked logits are minus infinity on purpose; where they are in both, they are alike.
    finite: np.ndarray[Any, Any] = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    return finite


def _largest(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    if not a.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        differences = np.where(a == b, 0.0, np.abs(a - b))
    largest = float(np.max(differences))
    return largest if np.isfinite(largest) else float(np.finfo(np.float32).max)
