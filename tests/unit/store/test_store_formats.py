from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from onnx_makers import is_onnx, onnx_bytes, zip_bytes

from core.errors import InvalidPackage, TooLarge, UnsupportedMedia
from core.store.formats import detect


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "upload"
    path.write_bytes(data)
    return path


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"), io.BytesIO())
    return buffer.getvalue()


def npy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def safetensors_bytes() -> bytes:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + bytes(4)


def test_onnx_and_zip_are_known_by_content(tmp_path: Path) -> None:
    assert is_onnx(onnx_bytes())
    assert detect(write(tmp_path, onnx_bytes())) == "onnx"
    assert detect(write(tmp_path, zip_bytes({"model.yaml": "task: tensor"}))) == "zip"


def test_pytorchs_archives_and_openvinos_xml_are_known_by_content(tmp_path: Path) -> None:
    records = {"m/data.pkl": b"", "m/constants.pkl": b"", "m/version": "3", "m/code/__torch__.py": ""}
    assert detect(write(tmp_path, zip_bytes(records))) == "torchscript"
    assert detect(write(tmp_path, zip_bytes({"m/archive_format": "pt2", "m/models/model.json": ""}))) == "pt2"
    for start in ("", '<?xml version="1.0"?>\n', "\ufeff"):
        assert detect(write(tmp_path, f'{start}<net name="a" version="11">'.encode())) == "openvino"


def test_a_field_of_a_later_onnx_does_no_harm(tmp_path: Path) -> None:
    later = bytes([0x98 | 0x00, 0x03, 0x05])  # field 51, varint 5
    assert detect(write(tmp_path, onnx_bytes() + later)) == "onnx"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (pickle.dumps({"a": 1}), "pickle"),
        (pickle.dumps({"a": 1}, protocol=2), "pickle"),
        (b"cos\nsystem\n(S'true'\ntR.", "pickle"),
        (zip_bytes({"archive/data.pkl": pickle.dumps([1]), "archive/version": "3"}), "pickle"),
        (zip_bytes({"m/data.pkl": b"", "m/code/__torch__.py": ""}), "pickle"),
        (zip_bytes({"data.pkl": b"", "a/constants.pkl": b"", "a/version": "3", "a/code/a.py": ""}), "pickle"),
        (zip_bytes({"version": "8.1", "serialized_exported_program.json": "{}"}), "torch 2.7 or older"),
        (zip_bytes({"m/archive_format": "pt2", "m/data/aotinductor/model/a.so": b""}), "AOTInductor"),
        (zip_bytes({"m/archive_format": "pt2", "m/data/constants/opaque_obj_0": b""}), "pickled objects"),
        (zip_bytes({"a.npy": npy_bytes()}), "npz"),
        (npy_bytes(), "NumPy array"),
        (zlib.compress(pickle.dumps(list(range(100)))), "joblib"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (tar_bytes(), "tar"),
        (b"\x89HDF\r\n\x1a\n" + bytes(8), "HDF5"),
        (b"ftrt" + bytes(100), "TensorRT"),
        (b"GGUF" + bytes(100), "GGUF"),
        (safetensors_bytes(), "safetensors"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(32), "TensorFlow Lite"),
        (b"\x7fELF" + bytes(32), "program"),
        ("Ceci n'est pas un modèle.\n".encode() * 300, "text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (b"\x00\x01\x02\x03" * 9, "not an ONNX"),
        (b"\x08\x01\x12\x04\x0a\x02ab", "not an ONNX"),  # fields 1 and 2, as a TensorFlow SavedModel has
    ],
)
def test_other_files_are_refused_by_their_name_for_it(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises(UnsupportedMedia, match=what):
        detect(write(tmp_path, data))


def test_a_plan_is_taken_only_where_it_is_trusted(tmp_path: Path) -> None:
    for magic in (b"ftrt", b"ptrt"):
        plan = write(tmp_path, magic + bytes(100))
        with pytest.raises(UnsupportedMedia, match=r"Upload the ONNX file .* \(engines\.trust_plans\)"):
            detect(plan)
        assert detect(plan, trust_plans=True) == "tensorrt"


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.99])
def test_a_cut_model_is_said_to_be_cut(tmp_path: Path, keep: float) -> None:
    data = onnx_bytes()
    with pytest.raises(InvalidPackage, match="cut short"):
        detect(write(tmp_path, data[: int(len(data) * keep)]))


def test_an_empty_file_and_a_cut_zip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match="empty"):
        detect(write(tmp_path, b""))
    with pytest.raises(InvalidPackage, match="damaged or cut short"):
        detect(write(tmp_path, zip_bytes({"a.txt": "a" * 100})[:-30]))


def test_a_directory_of_too_many_files_is_refused_before_it_is_read(tmp_path: Path) -> None:
    data = zip_bytes({f"{n:08d}.txt": "" for n in range(5000)})
    with pytest.raises(TooLarge, match="max_archive_files"):
        detect(write(tmp_path, data), max_files=10)
