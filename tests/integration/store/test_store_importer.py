from __future__ import annotations

import asyncio
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from onnx_makers import onnx_bytes, zip_bytes

from core.errors import InvalidPackage, PlatformError, TooLarge, UnsupportedMedia
from core.settings import StoreSettings
from core.store.artifacts import ArtifactStore
from core.store.importer import Imported, Importer
from tests.torch_models import payload

SETTINGS = StoreSettings(min_free_bytes=0)


def run_import(root: Path, data: bytes, settings: StoreSettings = SETTINGS, **told: Any) -> Imported:
    store = ArtifactStore(root, max_bytes=1 << 30, min_free_bytes=0)

    async def scenario() -> Imported:
        async with store.receive() as upload:
            await upload.write(data)
            received = await upload.finish()
        return await Importer(store, settings).import_file(received, filename="x", **told)

    return asyncio.run(scenario())


def names_below(root: Path) -> list[str]:
    """All but the locks, which hold nothing, and the sums."""
    files = (path for path in root.rglob("*") if not path.is_dir())
    return sorted(
        str(path.relative_to(root)) for path in files if path.parent.name not in ("owners", "locks", "sums")
    )


def test_a_bare_model_becomes_an_artifact(tmp_path: Path) -> None:
    data = onnx_bytes()
    imported = run_import(tmp_path, data, manifest_text="description: adds\nmodel: mine.onnx", task="tensor")
    assert imported.sha256 == hashlib.sha256(data).hexdigest()
    assert imported.size_bytes == len(data)
    assert imported.format == "onnx"
    assert imported.manifest["description"] == "adds"
    assert imported.manifest["model"] == "model.onnx"
    assert names_below(imported.root) == ["model.onnx"]
    assert (imported.root / "model.onnx").read_bytes() == data
    assert list((tmp_path / "incoming").iterdir()) == []


def test_the_manifest_beside_a_model_does_not_change_its_address(tmp_path: Path) -> None:
    first = run_import(tmp_path, onnx_bytes())
    second = run_import(tmp_path, onnx_bytes(), manifest_text="description: other")
    assert first.root == second.root
    assert first.manifest != second.manifest
    assert len(names_below(tmp_path)) == 1


def test_a_package_becomes_an_artifact(tmp_path: Path) -> None:
    files = {"net/model.yaml": "task: image-classification\nlabels: labels.txt", "net/labels.txt": "a\nb\nc"}
    imported = run_import(tmp_path, zip_bytes({**files, "net/a.onnx": onnx_bytes()}))
    assert imported.manifest["task"] == "image-classification"
    assert imported.manifest["model"] == "a.onnx"
    assert names_below(imported.root) == ["a.onnx", "labels.txt", "model.yaml"]


SCRIPT = zip_bytes({"m/data.pkl": b"", "m/constants.pkl": b"", "m/version": "3", "m/code/__torch__.py": ""})
CT2 = b"\x06\0\0\0\x0c\0WhisperSpec\0\x03\0\0\0" + bytes(8)
PROGRAM = zip_bytes({"m/archive_format": "pt2", "m/models/model.json": "{}"})
IR = b'<net name="a" version="11"></net>'
TOLD = """
inputs: [{name: x, dtype: FP32, shape: [-1, 3]}]
outputs: [{name: y, dtype: FP32, shape: [-1, 3]}]
"""


@pytest.mark.parametrize(
    ("data", "manifest", "format_", "model"),
    [
        (SCRIPT, TOLD, "torchscript", "model.pt"),
        (PROGRAM, "", "pt2", "model.pt2"),
        (zip_bytes({"model.yaml": TOLD, "net.pt": SCRIPT}), None, "torchscript", "net.pt"),
        (zip_bytes({"model.yaml": "", "net.pt2": PROGRAM}), None, "pt2", "net.pt2"),
        (zip_bytes({"model.yaml": "", "net.xml": IR, "net.bin": b"1234"}), None, "openvino", "net.xml"),
        (zip_bytes({"model.yaml": "", "model.bin": CT2, "vocabulary.txt": "a"}), None, "ctranslate2", "model.bin"),
    ],
)
def test_other_formats_become_artifacts(
    tmp_path: Path, data: bytes, manifest: str | None, format_: str, model: str
) -> None:
    imported = run_import(tmp_path, data, manifest_text=manifest)
    assert imported.format == imported.manifest["format"] == format_
    assert imported.manifest["model"] == model
    assert (imported.root / model).is_file()
    assert ("inputs" in imported.manifest) == (format_ == "torchscript")


def test_a_manifest_sent_along_takes_the_place_of_the_packages_own(tmp_path: Path) -> None:
    data = zip_bytes({"model.yaml": "description: inner", "a.onnx": onnx_bytes()})
    assert run_import(tmp_path, data, manifest_text="description: outer").manifest["description"] == "outer"


def test_a_task_stands_where_the_manifest_names_none(tmp_path: Path) -> None:
    assert (
        run_import(tmp_path, onnx_bytes(), task="image-classification").manifest["task"] == "image-classification"
    )
    data = zip_bytes({"a.onnx": onnx_bytes()})
    assert run_import(tmp_path, data, task="tensor").manifest["task"] == "tensor"


ONNX = onnx_bytes()


@pytest.mark.parametrize(
    ("data", "told", "said"),
    [
        (zip_bytes({"a.onnx": ONNX}), {}, "no model.yaml; put one beside the model"),
        (zip_bytes({"model.yaml": ""}), {}, "no .onnx file"),
        (CT2, {}, "vocabulary is in another file; upload a zip"),
        (zip_bytes({"model.yaml": "", "model.bin": CT2}), {}, r"model\.bin without vocabulary"),
        (
            zip_bytes({"model.yaml": "model: a/w.bin", "b": "", "a/w.bin": CT2}),
            {},
            "may hold|lie at the package's top",
        ),
        (
            zip_bytes({"model.yaml": "", "a.onnx": ONNX, "b.onnx": ONNX}),
            {},
            "several models .*name one with `model:`",
        ),
        (zip_bytes({"model.yaml": "model: c.onnx", "a.onnx": ONNX}), {}, "no such file"),
        (zip_bytes({"model.yaml": "labels: l.txt", "a.onnx": ONNX}), {}, "labels from 'l.txt'.*no such file"),
        (zip_bytes({"model.yaml": "colour: red", "a.onnx": ONNX}), {}, "line 1: colour is not a known field"),
        (zip_bytes({"model.yaml": "format: gguf", "a.onnx": ONNX}), {}, "format 'gguf'"),
        (zip_bytes({"model.yaml": b"\xff\xfe\xfa", "a.onnx": ONNX}), {}, "not UTF-8"),
        (zip_bytes({"model.yaml": "", "model.yml": "", "a.onnx": ONNX}), {}, "keep one"),
        (zip_bytes({"model.yaml": "", "a.onnx": ONNX[:40]}), {}, "cut short"),
        (zip_bytes({"model.yaml": "task: tensor", "a.onnx": ONNX}), {"task": "image-classification"}, "leave one"),
        (zip_bytes({"model.yaml": "", "../a.onnx": ONNX}), {}, "leads out of the package"),
        (ONNX, {"manifest_text": "labels: labels.txt"}, "only a model was uploaded"),
        (ONNX[: len(ONNX) // 2], {}, "cut short"),
        (SCRIPT, {}, "list `inputs` and `outputs` in model.yaml"),
        (PROGRAM, {"manifest_text": TOLD}, "says them itself"),
        (ONNX, {"manifest_text": TOLD}, "says them itself"),
        (IR, {}, "upload a zip with model.yaml, the .xml and the .bin"),
        (zip_bytes({"model.yaml": "", "net.xml": IR}), {}, "without the .bin"),
        (zip_bytes({"model.yaml": "model: a.pt2", "a.pt2": zip_bytes({"b.txt": ""})}), {}, "an archive, not a m"),
        (zip_bytes({"model.yaml": "model: a.onnx", "a.onnx": ONNX, "b.pt": "x"}), {}, "'b.pt' beside its model"),
        (b"", {}, "empty"),
    ],
)
def test_a_wrong_package_is_refused_with_what_to_mend(
    tmp_path: Path, data: bytes, told: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidPackage, match=said):
        run_import(tmp_path, data, **told)
    assert names_below(tmp_path) == []
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_text_file_and_a_bomb_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedMedia, match="text"):
        run_import(tmp_path, b"I am a model, honest.\n" * 10)
    with pytest.raises(TooLarge, match="zip bomb"):
        run_import(tmp_path, zip_bytes({"model.yaml": "", "a.bin": bytes(32 << 20)}))
    with pytest.raises(TooLarge, match="max_unpacked_bytes"):
        run_import(tmp_path, zip_bytes({"a.bin": os.urandom(100)}), SETTINGS.model_copy(
            update={"max_unpacked_bytes": 99}
        ))  # fmt: skip
    assert list((tmp_path / "incoming").iterdir()) == []


def test_the_task_may_refuse_its_section(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, max_bytes=1 << 30, min_free_bytes=0)

    def refuse(task: str, config: object) -> None:
        raise InvalidPackage(f"{task} does not want this")

    async def scenario() -> None:
        async with store.receive() as upload:
            await upload.write(ONNX)
            received = await upload.finish()
        await Importer(store, SETTINGS, refuse).import_file(received, task="tensor")

    with pytest.raises(PlatformError, match="tensor does not want this"):
        asyncio.run(scenario())
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_cancelled_import_leaves_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, max_bytes=1 << 30, min_free_bytes=0)
    data = zip_bytes({"model.yaml": "", "a.onnx": ONNX, "a.bin": os.urandom(64 << 20)}, zipfile.ZIP_STORED)

    async def scenario() -> None:
        async with store.receive() as upload:
            await upload.write(data)
            received = await upload.finish()
        task = asyncio.create_task(Importer(store, SETTINGS).import_file(received))
        while not list(tmp_path.rglob("a.bin")):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert names_below(tmp_path) == []
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_pickle_is_refused_and_its_payload_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    saved = zip_bytes({"m/data.pkl": payload(trace), "m/version": "3", "m/byteorder": "little"})
    for data in (payload(trace), saved, zip_bytes({"model.yaml": "", "model.pt": saved})):
        with pytest.raises(UnsupportedMedia, match=r"can run code when it is loaded.*Export the model"):
            run_import(tmp_path / "store", data)
    assert not trace.exists()
    assert names_below(tmp_path / "store") == []
