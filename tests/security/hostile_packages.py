"""Packages that attack whoever opens them in a simple way, each with a proof that it would have worked."""

from __future__ import annotations

import io
import pickle
import stat
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.acceptance import onnx_models
from tests.servers import zip_bytes

YAML = "task: tensor\nmodel: model.onnx\n"
SCRIPT = "import pathlib; pathlib.Path({!r}).write_text('it ran')"


@dataclass(frozen=True)
class Attack:
    """How it is made, given a file that its payload writes; the proof; the answer's status and words."""

    make: Callable[[Path], bytes]
    prove: Callable[[bytes, Path, Path], None]
    status: int
    says: str
    echoes: bool = False
    """Whether the answer repeats a name of the caller's that looks like one of the server's."""


def package(**files: bytes | str) -> bytes:
    """A good model, and these files beside it or instead of it."""
    return zip_bytes({"model.yaml": YAML, "model.onnx": onnx_models.scale(), **files})


# Names that lead elsewhere


def naive_extract(data: bytes, target: Path) -> None:
    """As many programs unpack: names are joined and written, links are made, the last of two wins."""
    target.mkdir()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            path = target / info.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            if stat.S_ISLNK(info.external_attr >> 16):
                path.symlink_to(archive.read(info).decode())
            else:
                path.write_bytes(archive.read(info))


def climbing(trace: Path) -> bytes:
    """Zip slip: up, and into a sibling."""
    return package(**{f"../{trace.name}": "it ran"})


def absolute(trace: Path) -> bytes:
    """A name that begins at the root."""
    return package(**{str(trace): "it ran"})


def _linked(target: str) -> tuple[zipfile.ZipInfo, str]:
    link = zipfile.ZipInfo("weights")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return link, target


def through_a_link(trace: Path) -> bytes:
    """A link to a folder outside, and a file written through it."""
    buffer = io.BytesIO(package())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(*_linked(str(trace.parent)))
        archive.writestr(f"weights/{trace.name}", "it ran")
    return buffer.getvalue()


def writes_outside(data: bytes, trace: Path, folder: Path) -> None:
    """A naive extractor writes the trace, which lies outside its folder."""
    naive_extract(data, folder / "naive")
    assert trace.read_text() == "it ran"
    assert trace.parent == folder
    trace.unlink()


def reading_a_secret(trace: Path) -> bytes:
    """The model is a link to a file of the server's."""
    trace.write_text("a secret of the server")
    buffer = io.BytesIO(zip_bytes({"model.yaml": YAML}))
    with zipfile.ZipFile(buffer, "a") as archive:
        link, target = _linked(str(trace))
        link.filename = "model.onnx"
        archive.writestr(link, target)
    return buffer.getvalue()


def reads_the_secret(data: bytes, trace: Path, folder: Path) -> None:
    """A naive extractor makes the secret a file of the package."""
    naive_extract(data, folder / "naive")
    assert (folder / "naive/model.onnx").read_text() == "a secret of the server"
    trace.unlink()


def twice(trace: Path) -> bytes:
    """Two files of one name: who checks the first may run the second."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings(action="ignore"):
        archive.writestr("model.yaml", YAML)
        archive.writestr("model.onnx", onnx_models.scale(2))
        archive.writestr("model.onnx", onnx_models.scale(3))
    return buffer.getvalue()


def readers_differ(data: bytes, trace: Path, folder: Path) -> None:
    """By its place in the list and by its name, readers find different bytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        first = next(info for info in archive.infolist() if info.filename == "model.onnx")
        assert archive.read(first) != archive.read("model.onnx")


# Bombs


def bomb(trace: Path) -> bytes:
    """One file of zeros."""
    return zip_bytes({"model.yaml": YAML, "model.onnx": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)


def crowd(trace: Path) -> bytes:
    """Very many empty files."""
    return package(**{f"f{number}.txt": "" for number in range(20_000)})


def grows(data: bytes, trace: Path, folder: Path) -> None:
    """What it says that it holds is a hundred times its size."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert sum(info.file_size for info in archive.infolist()) > 100 * len(data)
        with archive.open("model.onnx") as file:
            assert sum(len(chunk) for chunk in iter(lambda: file.read(1 << 20), b"")) == 64 << 20


def is_a_crowd(data: bytes, trace: Path, folder: Path) -> None:
    """So many files."""
    assert len(zipfile.ZipFile(io.BytesIO(data)).namelist()) > 20_000


def nested(trace: Path) -> bytes:
    """A zip of zips: each layer multiplies."""
    inner = zip_bytes({"zeros.bin": bytes(32 << 20)}, zipfile.ZIP_DEFLATED)
    return zip_bytes({f"{n}.bin": inner for n in range(30)}, zipfile.ZIP_DEFLATED)


def grows_by_layers(data: bytes, trace: Path, folder: Path) -> None:
    """Two layers down lie hundreds of megabytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as outer:
        inner = [zipfile.ZipFile(io.BytesIO(outer.read(name))) for name in outer.namelist()]
        assert sum(one.infolist()[0].file_size for one in inner) > 1000 * len(data)


# Code


class _Runs:
    def __init__(self, code: str) -> None:
        self._code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self._code,)


def pickled(trace: Path) -> bytes:
    """A pickle that runs code."""
    return pickle.dumps(_Runs(SCRIPT.format(str(trace))))


def state_dict(trace: Path) -> bytes:
    """The same in the form of `torch.save`."""
    return zip_bytes({"m/data.pkl": pickled(trace), "m/version": "3\n", "m/byteorder": "little"})


def array_of_objects(trace: Path) -> bytes:
    """The same as a NumPy array."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Runs(SCRIPT.format(str(trace)))], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def python_beside(trace: Path) -> bytes:
    """A module that a careless loader would import."""
    return package(**{"modeling.py": SCRIPT.format(str(trace))})


def yaml_object(trace: Path) -> bytes:
    """YAML that calls a function."""
    call = f'!!python/object/apply:builtins.exec ["{SCRIPT.format(str(trace))}"]\n'
    return package(**{"model.yaml": f"{YAML}description: {call}"})


def _child(code: str, data: bytes, trace: Path) -> None:
    subprocess.run([sys.executable, "-c", f"import sys, io; data = sys.stdin.buffer.read()\n{code}"],
                   input=data, check=False, timeout=60, capture_output=True)  # fmt: skip
    assert trace.read_text() == "it ran"
    trace.unlink()


def _runs(code: str) -> Callable[[bytes, Path, Path], None]:
    def prove(data: bytes, trace: Path, folder: Path) -> None:
        _child(code, data, trace)

    return prove


# A manifest that grows


def aliases(trace: Path) -> bytes:
    """A billion laughs."""
    return package(**{"model.yaml": YAML + _laughs(9)})


def _laughs(levels: int) -> str:
    lines = ["l0: &l0 [ha]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def laughs_grow(data: bytes, trace: Path, folder: Path) -> None:
    """Each level is ten of the one below: with five it is ten thousand, and this has nine."""
    text = yaml.safe_load(_laughs(5))
    assert str(text["l4"]).count("ha") == 10_000
    assert _laughs(9) in zipfile.ZipFile(io.BytesIO(data)).read("model.yaml").decode()


def circle(trace: Path) -> bytes:
    """A list within itself."""
    return package(**{"model.yaml": YAML + "preprocess: &a {again: *a}\n"})


def goes_round(data: bytes, trace: Path, folder: Path) -> None:
    """It is its own child."""
    value = yaml.safe_load(zipfile.ZipFile(io.BytesIO(data)).read("model.yaml"))["preprocess"]
    assert value["again"] is value


# Headers that lie


def safetensors(trace: Path) -> bytes:
    """A header that claims 2**62 bytes."""
    return struct.pack("<Q", 1 << 62) + b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'


def gguf(trace: Path) -> bytes:
    """2**60 tensors and as many keys."""
    return b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60)


def claims_more(data: bytes, trace: Path, folder: Path) -> None:
    """A number in its first 16 bytes is beyond all of it."""
    numbers = [int.from_bytes(data[at : at + 8], "little") for at in (0, 8)]
    assert any(number > len(data) for number in numbers)


ATTACKS: dict[str, Attack] = {
    "a path that climbs": Attack(climbing, writes_outside, 422, "trace"),
    "an absolute path": Attack(absolute, writes_outside, 422, "", echoes=True),
    "a write through a link": Attack(through_a_link, writes_outside, 422, "link"),
    "a link to a secret": Attack(reading_a_secret, reads_the_secret, 422, "link"),
    "a name twice": Attack(twice, readers_differ, 422, "twice"),
    "a bomb": Attack(bomb, grows, 413, "bomb"),
    "a crowd of files": Attack(crowd, is_a_crowd, 413, "files"),
    "a bomb in layers": Attack(nested, grows_by_layers, 422, "archive"),
    "a pickle": Attack(pickled, _runs("import pickle; pickle.loads(data)"), 415, "can run code"),
    "a state dict": Attack(
        state_dict,
        _runs("import pickle, zipfile; pickle.loads(zipfile.ZipFile(io.BytesIO(data)).read('m/data.pkl'))"),
        415,
        "can run code",
    ),
    "an array of objects": Attack(
        array_of_objects, _runs("import numpy; numpy.load(io.BytesIO(data), allow_pickle=True)"), 415, ""
    ),
    "Python in a package": Attack(
        python_beside,
        _runs("import zipfile; exec(zipfile.ZipFile(io.BytesIO(data)).read('modeling.py'))"),
        422,
        "",
        echoes=True,
    ),
    "YAML that calls": Attack(
        yaml_object,
        _runs("import yaml, zipfile; yaml.unsafe_load(zipfile.ZipFile(io.BytesIO(data)).read('model.yaml'))"),
        422,
        "model.yaml",
    ),
    "a billion laughs": Attack(aliases, laughs_grow, 422, "aliases"),
    "a circle": Attack(circle, goes_round, 422, "aliases"),
    "safetensors that lie": Attack(safetensors, claims_more, 415, ""),
    "GGUF that lies": Attack(gguf, claims_more, 415, ""),
}
