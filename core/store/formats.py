"""What an upload is, by its content alone: a name or a media type proves nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal

from core.errors import InvalidPackage, TooLarge, UnsupportedMedia
from core.store.onnx_wire import look
from core.store.zip_reader import open_zip

Format = Literal["onnx", "openvino", "torchscript", "pt2", "ctranslate2", "tensorrt", "zip"]

BARE_NAMES: Final[dict[str, str]] = {
    "onnx": "model.onnx",
    "torchscript": "model.pt",
    "pt2": "model.pt2",
    "tensorrt": "model.plan",
}
"""What a model that was uploaded alone is called in its artifact."""
MODEL_SUFFIXES: Final = (".onnx", ".xml", ".pt", ".pt2", ".plan")
"""Of files in a package that may be its model; `model.bin` of CTranslate2 is one where there is none of these."""

_HEAD_BYTES: Final = 4096
_MAX_TORCH_RECORDS: Final = 20_000
"""An archive of PyTorch's has a record for each weight and each class; it is never unpacked."""
_PICKLED: Final = ("data/constants/opaque_obj_", "data/constants/custom_obj_")
_WHAT_IS_TAKEN: Final = (
    "Upload an .onnx file, a .pt2 of torch.export.save, TorchScript, or a zip with model.yaml and the model."
)
_EXPORT: Final = "Export the model to ONNX (torch.onnx.export, tf2onnx or skl2onnx) and upload that."
_EXPORT_TORCH: Final = (
    "Export the model itself, with torch.onnx.export (ONNX) or torch.export.save (.pt2), and upload that."
)
_PICKLE: Final = "a Python pickle (as torch.save, joblib and pickle write), which can run code when it is loaded"
_TENSORRT: Final = "a TensorRT plan, which holds code for one GPU"
_PLAN: Final = (b"ptrt", b"ftrt")
_ONNX_OF_PLAN: Final = (
    "Upload the ONNX file it was built from; plans are taken only where the administrator trusts those who upload "
    "(engines.trust_plans)."
)
_PACKED: Final = "a compressed file or archive other than zip"

# (offset, magic bytes, what it is, what to do instead)
_KNOWN: Final[tuple[tuple[int, bytes, str, str], ...]] = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras or similar)", _EXPORT),
    *((0, magic, _TENSORRT, _ONNX_OF_PLAN) for magic in _PLAN),
    (0, b"GGUF", "a GGUF language model, for which no engine is installed yet", _WHAT_IS_TAKEN),
    (4, b"TFL3", "a TensorFlow Lite model", "Convert it with tf2onnx (--tflite) and upload the ONNX file."),
    (4, b"ORTM", "a model in ONNX Runtime's own ORT format", "Upload the .onnx file it was made from."),
    (0, b"\x93NUMPY", "a NumPy array", _WHAT_IS_TAKEN),
    (0, b"\x1f\x8b", _PACKED + " (gzip)", _WHAT_IS_TAKEN),
    (0, b"BZh", _PACKED + " (bzip2)", _WHAT_IS_TAKEN),
    (0, b"\xfd7zXZ\x00", _PACKED + " (xz)", _WHAT_IS_TAKEN),
    (0, b"\x28\xb5\x2f\xfd", _PACKED + " (zstd)", _WHAT_IS_TAKEN),
    (0, b"7z\xbc\xaf\x27\x1c", _PACKED + " (7z)", _WHAT_IS_TAKEN),
    (0, b"Rar!\x1a\x07", _PACKED + " (RAR)", _WHAT_IS_TAKEN),
    (257, b"ustar", _PACKED + " (tar)", _WHAT_IS_TAKEN),
    (0, b"\x7fELF", "a program", _WHAT_IS_TAKEN),
    (0, b"MZ", "a program", _WHAT_IS_TAKEN),
    (0, b"\x89PNG\r\n\x1a\n", "an image", _WHAT_IS_TAKEN),
    (0, b"\xff\xd8\xff", "an image", _WHAT_IS_TAKEN),
    (0, b"GIF8", "an image", _WHAT_IS_TAKEN),
    (0, b"%PDF-", "a PDF document", _WHAT_IS_TAKEN),
)
# zlib streams are what joblib.dump(…, compress=…) writes.
_ZLIB: Final = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_PICKLE_BINARY: Final = re.compile(rb"\x80[\x02-\x05]")
_PICKLE_TEXT: Final = re.compile(rb"\(?(?:c[A-Za-z_][\w.]*\n\w+\n|[dl]p\d+\n|[dl]\(?p?\d*\n)")
# OpenVINO's intermediate representation: XML whose root is <net name=… version="11">.
_IR: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?<net\s[^>]*\bversion=")
# CTranslate2: a version, then the length and the name of the model's kind (its `model_spec.py`, binary version 6).
_CTRANSLATE2: Final = re.compile(rb"[\x01-\x20]\x00{3}(?:[\x05-\x40]\x00)([A-Z][A-Za-z0-9]+Spec)\x00")
_MAX_SAFETENSORS_HEADER: Final = 100_000_000


def detect(path: Path, *, max_files: int = 1000, trust_plans: bool = False) -> Format:
    """The format of an uploaded file; a TensorRT plan, which is code, only where `trust_plans` says so.

    Raises UnsupportedMedia with what it is and what to upload instead; InvalidPackage when it is empty, cut
    short or damaged; TooLarge for a zip that lists more than `max_files`. Blocks.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise InvalidPackage(f"The uploaded file is empty. {_WHAT_IS_TAKEN}")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_format(path, max_files)
    if trust_plans and head.startswith(_PLAN):
        return "tensorrt"
    _refuse_known(head)
    if kind := _CTRANSLATE2.match(head):
        return _ctranslate2(kind[1])
    verdict = look(path)
    if verdict == "onnx":
        return "onnx"
    if _IR.match(head):
        return "openvino"
    if verdict == "cut_short":
        raise InvalidPackage("The file begins like an ONNX model but is cut short; export or copy it again.")
    _refuse_guessed(head)
    raise UnsupportedMedia(f"The file is not an ONNX model, and of no other kind that is known. {_WHAT_IS_TAKEN}")


def _refuse_known(head: bytes) -> None:
    for offset, magic, what, instead in _KNOWN:
        if head.startswith(magic, offset):
            raise UnsupportedMedia(f"The file is {what}. {instead}")
    if _PICKLE_BINARY.match(head):
        raise UnsupportedMedia(f"The file is {_PICKLE}. {_EXPORT}")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _MAX_SAFETENSORS_HEADER:
        raise UnsupportedMedia(f"The file is safetensors: weights without a graph. {_EXPORT}")


def _refuse_guessed(head: bytes) -> None:
    """Kinds whose first bytes are too plain to come before the look for ONNX."""
    if head.startswith(b"version https://git-lfs.github.com"):
        raise UnsupportedMedia(
            "The file is a Git LFS pointer, not the model itself; run `git lfs pull` and upload what it fetches."
        )
    if _PICKLE_TEXT.match(head):
        raise UnsupportedMedia(f"The file is {_PICKLE}. {_EXPORT}")
    if _ZLIB.match(head):
        raise UnsupportedMedia(f"The file is zlib-compressed, as joblib writes. {_EXPORT}")
    if _is_text(head):
        raise UnsupportedMedia(f"The file is text, not a model, whatever its name. {_WHAT_IS_TAKEN}")


def _ctranslate2(kind: bytes) -> Format:
    if kind != b"WhisperSpec":
        raise UnsupportedMedia(
            f"The file is a CTranslate2 model of the kind {kind.decode()}; of those, Whisper alone is taken."
        )
    return "ctranslate2"


def _is_text(head: bytes) -> bool:
    # The last character may be cut in two by the end of the head.
    text = head.decode("utf-8", errors="ignore")
    whole = len(text.encode()) >= len(head) - 3
    return whole and all(character.isprintable() or character in "\t\r\n\f" for character in text)


def _zip_format(path: Path, max_files: int) -> Format:
    """What a zip is: a package, or one of PyTorch's own, whose records lie in one folder."""
    with open_zip(path, _MAX_TORCH_RECORDS) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    records = {name.partition("/")[2] for name in names}
    if "archive_format" in records or "serialized_exported_program.json" in {*names, *records}:
        return _exported_program(records)
    if "data.pkl" in records or "data.pkl" in names:
        return _torch_script(records)
    _refuse_other_zips(names)
    if len(names) > max_files:
        raise TooLarge(f"The zip holds {len(names)} files, the cap is {max_files} (store.max_archive_files).")
    return "zip"


def _torch_script(records: set[str]) -> Format:
    if {"data.pkl", "constants.pkl", "version"} <= records and any(name.startswith("code/") for name in records):
        return "torchscript"
    raise UnsupportedMedia(f"The file is {_PICKLE}, in a zip of PyTorch's. {_EXPORT_TORCH}")


def _exported_program(records: set[str]) -> Format:
    if "archive_format" not in records:
        raise UnsupportedMedia("The file is an exported program of torch 2.7 or older; export it with torch 2.8+.")
    if any(name.startswith("data/aotinductor/") for name in records):
        raise UnsupportedMedia(
            "The file holds libraries compiled by AOTInductor, which run code when they are loaded; upload the "
            "program that torch.export.save writes."
        )
    if any(name.startswith(_PICKLED) for name in records):
        raise UnsupportedMedia(
            "The exported program holds pickled objects, which can run code when they are loaded; export it with "
            "tensors as its only constants."
        )
    return "pt2"


def _refuse_other_zips(names: list[str]) -> None:
    bases = {name.rsplit("/", 1)[-1] for name in names}
    if "data.pkl" in bases:
        raise UnsupportedMedia(f"The file is {_PICKLE}, in a zip of PyTorch's. {_EXPORT_TORCH}")
    if names and all(name.endswith(".npy") for name in names):
        raise UnsupportedMedia(f"The file is a NumPy .npz archive. {_WHAT_IS_TAKEN}")
    if "model.weights.h5" in bases:
        raise UnsupportedMedia(f"The file is a Keras archive. {_EXPORT}")
