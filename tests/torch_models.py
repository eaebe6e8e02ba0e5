"""Small PyTorch models: y = 2x as TorchScript and as an exported program, and files that should be refused."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from core.signature import NUMPY_DTYPES
from tests.servers import zip_bytes

SAMPLE_SIZE = 3


def told(dtype: str = "FP32", shape: Sequence[int] = (-1, 3)) -> dict[str, Any]:
    """What model.yaml says of a TorchScript model of one input `x` and one output `y`."""
    spec = {"dtype": dtype, "shape": list(shape)}
    return {"inputs": [{"name": "x", **spec}], "outputs": [{"name": "y", **spec}]}


def script_doubling(folder: Path, dtype: str = "FP32", shape: Sequence[int] = (-1, 3)) -> Path:
    return _write(folder / "model.pt", script(_same if dtype == "BOOL" else _double))


def program_doubling(folder: Path, dtype: str = "FP32", shape: Sequence[int] = (-1, 3)) -> Path:
    return _write(folder / "model.pt2", program(_same if dtype == "BOOL" else _double, dtype, tuple(shape)))


def script_big(folder: Path, megabytes: int) -> Path:
    return _write(folder / "model.pt", _script_of(_linear(megabytes)))


def program_big(folder: Path, megabytes: int) -> Path:
    return _write(folder / "model.pt2", _program_of(_linear(megabytes), "FP32", (-1, 1024)))


def big_told(megabytes: int) -> dict[str, Any]:
    """`told` for `script_big`."""
    inputs, outputs = ([{"name": name, "dtype": "FP32", "shape": [-1, size]}] for name, size in
                       (("input", 1024), ("y", megabytes * 256)))  # fmt: skip
    return {"inputs": inputs, "outputs": outputs}


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@cache
def script(forward: Callable[..., Any]) -> bytes:
    """A module with this function for its `forward`, as TorchScript."""
    return _script_of(_model(forward))


@cache
def program(forward: Callable[..., Any], dtype: str = "FP32", shape: tuple[int, ...] = (-1, 3)) -> bytes:
    """A module with this function for its `forward`, as an exported program."""
    return _program_of(_model(forward), dtype, shape)


def _model(forward: Callable[..., Any]) -> Any:
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((3, 3), 1.003))
            self.register_buffer("count", torch.zeros(1))

    Model.forward = forward  # type: ignore[method-assign]
    return Model()


def _script_of(module: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def _program_of(module: Any, dtype: str, shape: Sequence[int]) -> bytes:
    import torch

    sizes = [SAMPLE_SIZE + place if size == -1 else size for place, size in enumerate(shape)]
    sample = torch.from_numpy(np.ones(sizes, NUMPY_DTYPES[dtype]))
    dynamic = {place: torch.export.Dim.DYNAMIC for place, size in enumerate(shape) if size == -1}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(module.eval(), (sample,), dynamic_shapes=(dynamic or None,))
        torch.export.save(exported, buffer)
    return buffer.getvalue()


def _linear(megabytes: int) -> Any:
    import torch

    return torch.nn.Linear(1024, megabytes * 256, bias=False).eval()


def _double(self, x):
    return {"y": x + x}


def _same(self, x):
    return {"y": x.clone()}


def changed(archive: bytes, change: Mapping[str, Callable[[bytes], bytes]], **added: bytes) -> bytes:
    """The archive with some records put through a function, and others added to its folder."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    folder = next(iter(files)).partition("/")[0]
    for name, how in change.items():
        files[f"{folder}/{name}"] = how(files[f"{folder}/{name}"])
    return zip_bytes({**files, **{f"{folder}/{name}": content for name, content in added.items()}})


def with_code(archive: bytes, how: Callable[[bytes], bytes]) -> bytes:
    """The TorchScript with its model's code put through a function."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        name = next(name for name in opened.namelist() if name.endswith(".py") and "/torch_models" in name)
    return changed(archive, {name.partition("/")[2]: how})


class Payload:
    """Pickled, it makes a file when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def payload(path: Path) -> bytes:
    return pickle.dumps(Payload(path), protocol=2)
