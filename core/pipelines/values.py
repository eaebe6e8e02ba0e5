"""Whether a value is of a type: for what callers give, for constants, for json that should hold something."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from core.pipelines.types import Type
from core.signature import dtype_name

MAX_DEPTH = 32


def problem_with(value: Any, wanted: Type) -> str | None:
    """Why a value is not of a type, as `is text, not a number`; None where it is."""
    if wanted.kind == "json":
        return None
    if wanted.kind == "list":
        return _list_problem(value, wanted)
    if wanted.kind == "record":
        return _record_problem(value, wanted)
    if wanted.kind in ("tensor", "embedding"):
        return _tensor_problem(value, wanted)
    good = {
        "text": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "number": is_number(value),
        "box": isinstance(value, list) and len(value) == 4 and all(map(is_number, value)),
        "polygon": isinstance(value, list) and len(value) == 4 and all(map(_is_point, value)),
    }
    return None if good.get(wanted.kind, True) else f"is {_said(value)}, not {wanted}"


def is_number(value: Any) -> bool:
    """A finite number that is no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _list_problem(value: Any, wanted: Type) -> str | None:
    if not isinstance(value, list):
        return f"is {_said(value)}, not {wanted}"
    assert wanted.item is not None
    for place, one in enumerate(value):
        problem = problem_with(one, wanted.item)
        if problem is not None:
            return f"has an item at {place} that {problem}"
    return None


def _record_problem(value: Any, wanted: Type) -> str | None:
    if not isinstance(value, dict):
        return f"is {_said(value)}, not {wanted}"
    for name, type_ in wanted.fields:
        if name not in value:
            return f"has no {name}"
        if value[name] is None and name == "score":
            continue  # a score that is not a number
        problem = problem_with(value[name], type_)
        if problem is not None:
            return f"has a {name} that {problem}"
    return None


def _tensor_problem(value: Any, wanted: Type) -> str | None:
    if isinstance(value, np.ndarray):
        dtype = dtype_name(value.dtype)
        return None if wanted.dtype in ("", dtype) else f"is {dtype}, not {wanted}"
    if wanted.kind == "embedding" and isinstance(value, list) and all(map(is_number, value)):
        return None
    return f"is {_said(value)}, not {wanted}"


def _said(value: Any) -> str:
    names = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")
