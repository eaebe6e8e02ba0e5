"""The graph of an exported program, run operator by operator. Source: torch/_export/serde/schema.py."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from core.engines.torch_aliases import Value, names_in, written_weight
from core.errors import LoadFailed

_ATEN: Final = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
_NOT_THESE: Final = re.compile(
    # files and consoles; storages put in place of others; tensors whose indices nobody has checked
    r"from_file|save|_print|set_?|set_data|_sparse_\w*_unsafe|_nested_view_from_\w+|_nested_from_padded\w*"
)
# Of numbers, as dynamic shapes are reckoned with.
_NUMBERS: Final[Mapping[str, Callable[..., Any]]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            *("eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "mul", "add", "sub", "floordiv", "mod"),
            *("truediv", "and_", "or_", "lshift", "rshift", "getitem"),
        )
    },
    "_operator.pow": lambda base, power: _power(base, power),
    "math.trunc": math.trunc,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "torch.sym_not": operator.not_,
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch._sym_sqrt": math.sqrt,
    "torch.sym_sqrt": math.sqrt,
    "torch.sym_ite": lambda test, then, other: then if test else other,
}
# schema.py: ScalarType, MemoryFormat.
_DTYPES: Final = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    34: "uint32",
    35: "uint64",
}
_MEMORY_FORMATS: Final = {1: "contiguous_format", 2: "channels_last", 3: "channels_last_3d", 4: "preserve_format"}
_STRIDED: Final = 7
_KEYWORD: Final = 2


@dataclass(frozen=True, slots=True)
class _Step:
    run: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    outputs: list[str]
    several: bool
    done_with: tuple[str, ...] = ()


def check_targets(graph: Mapping[str, Any]) -> int:
    """How many operators a graph has. Raises LoadFailed for one that is not accepted."""
    for node in graph["nodes"]:
        target = str(node["target"])
        found = _ATEN.fullmatch(target)
        if target not in _NUMBERS and (found is None or _NOT_THESE.fullmatch(found[1])):
            raise LoadFailed(
                f"The program uses the operator {target[:120]}, which is not accepted: only ATen's own are, and "
                "none that reaches files. Export the model with torch.export under torch.no_grad()."
            )
    return len(graph["nodes"])


class Graph:
    """Called with its inputs, in order, it gives its outputs. Calls may run side by side."""

    def __init__(
        self,
        library: ModuleType,
        graph: Mapping[str, Any],
        fixed: Mapping[str, Any],
        inputs: Sequence[str],
        outputs: Sequence[str],
        device: str,
    ) -> None:
        """`fixed` are the weights by their names in the graph. Raises LoadFailed."""
        self._fixed = dict(fixed)
        self._inputs = list(inputs)
        self._outputs = list(outputs)
        reader = _Reader(library, device)
        steps = [reader.step(node) for node in graph["nodes"]]
        operations = ((step.run, step.args, step.kwargs, step.outputs) for step in steps)
        if written := written_weight(operations, self._fixed):
            raise LoadFailed(
                f"The program changes its own weight or buffer {written[:80]}; export it after model.eval()."
            )
        self._steps = _with_ends(steps, self._outputs)

    def __call__(self, tensors: Sequence[Any]) -> Sequence[Any]:
        """Run every step; what is needed no more is dropped on the way."""
        values = {**self._fixed, **dict(zip(self._inputs, tensors, strict=True))}
        for step in self._steps:
            result = step.run(*_filled(step.args, values), **_filled(step.kwargs, values))
            if step.several:
                values.update(zip(step.outputs, result, strict=True))
            elif step.outputs:
                values[step.outputs[0]] = result
            for name in step.done_with:
                values.pop(name, None)
        return [values[name] for name in self._outputs]


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with the graph's values in their places."""
    kind = type(template)
    if kind is Value:
        return values[template.name]
    if kind is list:
        return [_filled(inner, values) for inner in template]
    if kind is dict:
        return {key: _filled(inner, values) for key, inner in template.items()}
    return template


class _Reader:
    """Makes steps of the graph's JSON."""

    def __init__(self, library: ModuleType, device: str) -> None:
        self._library = library
        self._device = device

    def step(self, node: Mapping[str, Any]) -> _Step:
        args, kwargs = [], {}
        for given in node["inputs"]:
            value = self._argument(given["arg"])
            if given.get("kind") == _KEYWORD:
                kwargs[str(given["name"])] = value
            else:
                args.append(value)
        outputs, several = _outputs(node["outputs"])
        return _Step(self._operator(str(node["target"])), args, kwargs, outputs, several)

    def _operator(self, target: str) -> Callable[..., Any]:
        if target in _NUMBERS:
            return _NUMBERS[target]
        found = _ATEN.fullmatch(target)
        packet = getattr(self._library.ops.aten, found[1], None) if found else None
        overload = getattr(packet, found[2], None) if found else None
        if not isinstance(overload, self._library._ops.OpOverload):
            raise LoadFailed(f"The program uses the operator {target[:120]}, which this PyTorch does not have.")
        run: Callable[..., Any] = overload
        return run

    def _argument(self, arg: Mapping[str, Any]) -> Any:
        ((kind, value),) = arg.items()
        if kind in _PLAIN:
            return _PLAIN[kind](value)
        if kind == "as_scalar_type":
            return getattr(self._library, _DTYPES[value])
        if kind == "as_memory_format":
            return getattr(self._library, _MEMORY_FORMATS[value])
        if kind == "as_layout" and value == _STRIDED:
            return self._library.strided
        if kind == "as_device":
            return self._library.device(self._device)  # where the model is loaded, wherever it was exported
        raise LoadFailed(f"The program passes an operator {kind[:40]}, which is not supported; export it plainly.")


def _name(value: Mapping[str, Any]) -> Value:
    return Value(str(value["name"]))


def _number(value: Mapping[str, Any]) -> Any:
    """A union of a name and a number: `as_name`, or `as_int` and its like."""
    ((kind, inner),) = value.items()
    return Value(str(inner)) if kind == "as_name" else _PLAIN[kind](inner)


def _optional(value: Mapping[str, Any]) -> Any:
    return _name(value["as_tensor"]) if "as_tensor" in value else None


def _list(of: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return lambda values: [of(value) for value in values]


_PLAIN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "as_none": lambda value: None,
    "as_int": int,
    "as_float": float,
    "as_bool": bool,
    "as_string": str,
    "as_ints": _list(int),
    "as_floats": _list(float),
    "as_bools": _list(bool),
    "as_strings": _list(str),
    "as_complex": lambda value: complex(float(value["real"]), float(value["imag"])),
    "as_tensor": _name,
    "as_tensors": _list(_name),
    "as_nested_tensors": _list(_list(_name)),
    "as_optional_tensor": _optional,
    "as_optional_tensors": _list(_optional),
    "as_sym_int": _number,
    "as_sym_float": _number,
    "as_sym_bool": _number,
    "as_sym_ints": _list(_number),
    "as_sym_floats": _list(_number),
    "as_sym_bools": _list(_number),
}


def _outputs(args: Sequence[Mapping[str, Any]]) -> tuple[list[str], bool]:
    """The names of a step's values, and whether it gives several; one list of tensors is several too."""
    if len(args) == 1 and "as_tensors" in args[0]:
        return [str(value["name"]) for value in args[0]["as_tensors"]], True
    names = []
    for arg in args:
        ((kind, value),) = arg.items()
        names.append("" if kind == "as_none" else str(value.get("name", value.get("as_name"))))
    return names, len(names) > 1


def _with_ends(steps: Sequence[_Step], outputs: Sequence[str]) -> list[_Step]:
    """The steps, each with the values that none after it needs."""
    needed = set(outputs)
    found = []
    for step in reversed(steps):
        seen = {*names_in(step.args), *names_in(step.kwargs), *step.outputs}
        ends = tuple(sorted(seen - needed))
        needed |= seen
        found.append(_Step(step.run, step.args, step.kwargs, step.outputs, step.several, ends))
    return found[::-1]


def _power(base: Any, power: Any) -> Any:
    # Numbers that grow without end would take all time and memory before any tensor does.
    if abs(power) > 64:
        raise ValueError("a power beyond 64 in a shape")
    return base**power
