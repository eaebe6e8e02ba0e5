"""Exported programs (`.pt2`), read without `torch.export.load`.

That one runs what a file tells it to: it unpickles sample inputs, and weights and constants where the file asks
for it; it evaluates the texts of shapes and guards as Python; it runs generated code with names from the file in
it; and it loads shared libraries. Here the graph's JSON is read as data, its operators are looked up among ATen's,
and they are called one after the other. Pickles are not even opened.

Source: pytorch torch/_export/serde/schema.py, schema version 8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from core.engines.torch_archive import TorchArchive
from core.engines.torch_graph import Graph, check_targets
from core.engines.torch_tensors import TORCH_DTYPES, check_dtypes
from core.errors import LoadFailed, PlatformError
from core.signature import Signature, TensorSpec

_SCHEMA_MAJOR: Final = 8
# schema.py, ScalarType.
SCALARS: Final = {
    1: "UINT8",
    2: "INT8",
    3: "INT16",
    4: "INT32",
    5: "INT64",
    6: "FP16",
    7: "FP32",
    8: "FP64",
    12: "BOOL",
    13: "BF16",
    28: "UINT16",
    34: "UINT32",
    35: "UINT64",
}
_PAYLOAD: Final = re.compile(r"(?:weight|tensor)_\d{1,9}")
_LIFTED: Final = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}
_REFUSED_RECORDS: Final = {
    "data/aotinductor/": "compiled libraries",
    "data/constants/opaque_obj_": "pickled objects",
    "data/constants/custom_obj_": "objects of native classes",
}


def read_program(archive: TorchArchive) -> dict[str, Any]:
    """The program's JSON. Raises LoadFailed for what is not a program, or is more than one."""
    names = archive.names()
    for start, what in _REFUSED_RECORDS.items():
        if any(name.startswith(start) for name in names):
            raise LoadFailed(f"The archive holds {what}, which are never loaded; export the plain program again.")
    models = [name for name in names if name.startswith("models/")]
    if models != ["models/model.json"]:
        raise LoadFailed("The archive must hold one program called model, as torch.export.save writes it.")
    program = _json(archive, models[0])
    version = program.get("schema_version")
    if not isinstance(version, dict) or version.get("major") != _SCHEMA_MAJOR:
        raise LoadFailed(
            "The program was written by another generation of torch.export; export it with torch 2.8+."
        )
    return program


def check_program(archive: TorchArchive) -> int:
    """Look at a program without PyTorch and return its number of operators. Raises LoadFailed."""
    try:
        program = read_program(archive)
        for group in ("weights", "constants"):
            _payloads(archive, group)
        return check_targets(program["graph_module"]["graph"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _unreadable(error) from error


def open_program(
    library: ModuleType, path: Path, device: str
) -> tuple[Signature, Callable[[Sequence[Any]], Sequence[Any]]]:
    """A program's signature and a call of it. Raises LoadFailed, and what PyTorch raises."""
    with TorchArchive(path) as archive:
        check_program(archive)
        try:
            module = read_program(archive)["graph_module"]
            weights = {group: _tensors(library, archive, group, device) for group in ("weights", "constants")}
            return _signature(module), _call(library, module, weights, device)
        except PlatformError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise _unreadable(error) from error


def _call(
    library: ModuleType, module: Mapping[str, Any], weights: Mapping[str, Mapping[str, Any]], device: str
) -> Callable[[Sequence[Any]], Sequence[Any]]:
    fixed, inputs = {}, []
    for spec, given in zip(module["signature"]["input_specs"], module["graph"]["inputs"], strict=True):
        kind, inner = _only(spec)
        if kind in _LIFTED:
            group = "weights" if kind == "parameter" or inner.get("persistent") else "constants"
            fixed[given["as_tensor"]["name"]] = weights[group][inner[_LIFTED[kind]]]
        elif kind == "constant_input":
            fixed[inner["name"]] = _only(inner["value"])[1]
        else:
            inputs.append(given["as_tensor"]["name"])
    outputs = [arg["as_tensor"]["name"] for arg in _user_outputs(module)]
    return Graph(library, module["graph"], fixed, inputs, outputs, device)


def _signature(module: Mapping[str, Any]) -> Signature:
    values = module["graph"]["tensor_values"]
    inputs = [
        _only(spec["user_input"]["arg"]) for spec in module["signature"]["input_specs"] if "user_input" in spec
    ]
    if any(kind != "as_tensor" for kind, _ in inputs):
        raise LoadFailed("The program takes numbers beside tensors; export it with tensors as its only inputs.")
    outputs = [arg["as_tensor"]["name"] for arg in _user_outputs(module)]
    names = _output_names(module, outputs)
    signature = Signature(
        tuple(_spec(inner["name"], values[inner["name"]]) for _, inner in inputs),
        tuple(_spec(name, values[inner]) for name, inner in zip(names, outputs, strict=True)),
    )
    check_dtypes(signature)
    return signature


def _user_outputs(module: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The arguments that are answered. Raises LoadFailed for a program that changes itself or gives no tensors."""
    found = []
    for spec in module["signature"]["output_specs"]:
        kind, inner = _only(spec)
        if kind in ("buffer_mutation", "parameter_mutation"):
            raise LoadFailed(
                "The program changes its own weights or buffers as it runs; export it after model.eval()."
            )
        if kind == "user_output":
            if "as_tensor" not in inner["arg"]:
                raise LoadFailed("The program returns something besides tensors; export it with tensors only.")
            found.append(inner["arg"])
    return found


def _output_names(module: Mapping[str, Any], inner: Sequence[str]) -> Sequence[str]:
    """The keys where forward returned a flat dictionary, otherwise what the graph calls its values."""
    try:
        _, spec = json.loads(module["module_call_graph"][0]["signature"]["out_spec"])
        keys = json.loads(spec["context"]) if spec["type"] == "builtins.dict" else []
    except (KeyError, TypeError, ValueError, IndexError):
        keys = []
    if len(keys) == len(inner) and all(isinstance(key, str) for key in keys):
        return keys
    return inner if len(set(inner)) == len(inner) else [f"output_{place}" for place in range(len(inner))]


def _spec(name: str, value: Mapping[str, Any]) -> TensorSpec:
    sizes = tuple(int(size["as_int"]) if "as_int" in size else -1 for size in value["sizes"])
    return TensorSpec(name, _dtype(value["dtype"]), sizes)


def _dtype(number: Any) -> str:
    if number not in SCALARS:
        raise LoadFailed(f"The program holds tensors of a dtype that is not supported (number {str(number)[:8]}).")
    return SCALARS[number]


def _payloads(archive: TorchArchive, group: str) -> dict[str, Mapping[str, Any]]:
    """What the archive says of its weights or constants, by their names. Raises LoadFailed for pickled ones."""
    config = _json(archive, f"data/{group}/model_{group}_config.json")["config"]
    for name, payload in config.items():
        if payload["use_pickle"] is not False or not _PAYLOAD.fullmatch(payload["path_name"]):
            raise LoadFailed(
                f"The program keeps {str(name)[:80]} as a pickle, which can run code when it is loaded; export it "
                "with plain tensors as weights."
            )
    return dict(config)


def _tensors(library: ModuleType, archive: TorchArchive, group: str, device: str) -> dict[str, Any]:
    """Weights or constants, by their names; those that share a record share its memory."""
    records: dict[str, bytearray] = {}
    found = {}
    for name, payload in _payloads(archive, group).items():
        path, meta = payload["path_name"], payload["tensor_meta"]
        if path not in records:
            records[path] = bytearray(archive.read(f"data/{group}/{path}"))
        found[name] = _tensor(library, records[path], meta).to(device)
    return found


def _tensor(library: ModuleType, record: bytearray, meta: Mapping[str, Any]) -> Any:
    dtype = getattr(library, TORCH_DTYPES[_dtype(meta["dtype"])])
    sizes, strides = ([int(size["as_int"]) for size in meta[key]] for key in ("sizes", "strides"))
    if not record or 0 in sizes:
        return library.zeros(sizes, dtype=dtype)
    # as_strided refuses what does not lie within the record.
    return library.frombuffer(record, dtype=dtype).as_strided(
        sizes, strides, int(meta["storage_offset"]["as_int"])
    )


def _json(archive: TorchArchive, name: str) -> dict[str, Any]:
    try:
        value = json.loads(archive.text(name))
    except (ValueError, RecursionError) as error:
        raise LoadFailed(f"The archive's {name} is no JSON; export the model again.") from error
    if not isinstance(value, dict):
        raise LoadFailed(f"The archive's {name} holds no fields; export the model again.")
    return value


def _only(union: Mapping[str, Any]) -> tuple[str, Any]:
    """A field of a union: its one key and value."""
    ((key, value),) = union.items()
    return key, value


def _unreadable(error: Exception) -> LoadFailed:
    return LoadFailed(
        f"The exported program is not put together as expected ({type(error).__name__}); export it again."
    )
