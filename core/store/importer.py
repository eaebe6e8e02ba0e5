from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.errors import InvalidPackage
from core.kill_points import reach
from core.settings import StoreSettings
from core.store.archives import TORCH_SUFFIXES, ArchiveLimits, extract
from core.store.artifacts import ArtifactStore
from core.store.disk import Stopped, in_thread, storage_errors
from core.store.formats import BARE_NAMES, MODEL_SUFFIXES, detect
from core.store.manifest import Manifest, parse_manifest
from core.store.paths import shown
from core.store.uploads import Received

_MANIFESTS: Final = ("model.yaml", "model.yml")
_MAX_MANIFEST_BYTES: Final = 1 << 20
_NOT_ALONE: Final = {
    "openvino": "The file is OpenVINO's IR, whose weights are in another file; upload a zip with model.yaml, the "
    ".xml and the .bin of the same name.",
    "ctranslate2": "The file is a CTranslate2 model, whose vocabulary is in another file; upload a zip with "
    "model.yaml, model.bin, config.json and vocabulary.txt (or .json).",
}
_CTRANSLATE2_FILE: Final = "model.bin"

TaskCheck = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Imported:
    """A package in the store: its address, its size as uploaded, its format, its manifest and its directory."""

    sha256: str
    size_bytes: int
    format: str
    manifest: dict[str, Any]
    root: Path


class Importer:
    """Turns finished uploads into artifacts.

    The address is the SHA-256 of the uploaded bytes and of nothing else: what a caller says beside them (task,
    manifest) goes into `Imported.manifest` only. `check_task(task, config)` may refuse a manifest's task section.
    With `trust_plans` TensorRT plans are taken.
    """

    def __init__(
        self,
        store: ArtifactStore,
        settings: StoreSettings,
        check_task: TaskCheck | None = None,
        *,
        trust_plans: bool = False,
    ) -> None:
        self._store = store
        self._trust_plans = trust_plans
        self._max_files = settings.max_archive_files
        self._limits = ArchiveLimits(
            max_files=settings.max_archive_files,
            max_bytes=settings.max_unpacked_bytes,
            max_ratio=settings.max_compression_ratio,
            min_free_bytes=settings.min_free_bytes,
        )
        self._check_task = check_task

    async def import_file(
        self,
        received: Received,
        *,
        filename: str = "",
        manifest_text: str | None = None,
        task: str | None = None,
    ) -> Imported:
        """Check an upload and publish it; `received` is used up, and a refusal leaves nothing behind.

        A manifest sent along takes the place of the package's own; `task` stands where the manifest names none.
        `filename` is never trusted: content decides. Raises InvalidPackage, UnsupportedMedia, TooLarge,
        StorageFull.
        """
        told = _Told(manifest_text, task)
        return await in_thread(lambda stop: self._import(received, told, stop))

    def _import(self, received: Received, told: _Told, stop: threading.Event) -> Imported:
        try:
            staged = self._store.stage()
            try:
                return self._fill_and_publish(received, staged, told, stop)
            finally:
                self._store.drop(staged)
        finally:
            received.path.unlink(missing_ok=True)

    def _fill_and_publish(self, received: Received, staged: Path, told: _Told, stop: threading.Event) -> Imported:
        format_ = detect(received.path, max_files=self._max_files, trust_plans=self._trust_plans)
        if format_ == "zip":
            extract(received.path, staged, self._limits, stop)
            manifest = _package_manifest(staged, told, trust_plans=self._trust_plans)
        else:
            with storage_errors():
                received.path.rename(staged / _bare_name(format_))
            manifest = _bare_manifest(told, format_)
        if self._check_task:
            self._check_task(manifest.task, manifest.task_config())
        if stop.is_set():
            raise Stopped
        reach("upload.staged")
        root = self._store.publish_staged(staged, received.sha256)
        kept = manifest.to_json()
        return Imported(received.sha256, received.size_bytes, kept["format"], kept, root)


@dataclass(frozen=True, slots=True)
class _Told:
    """What came beside the file."""

    manifest_text: str | None
    task: str | None

    def manifest(self, own_text: str | None) -> Manifest:
        """The manifest sent along, or else the package's own, with the task where it names none."""
        text = self.manifest_text if self.manifest_text is not None else own_text
        manifest = parse_manifest(text or "")
        if self.task is None or manifest.task == self.task:
            return manifest
        if "task" in manifest.model_fields_set:
            raise InvalidPackage(
                f"The upload asks for the task {shown(self.task)} but the manifest says {shown(manifest.task)}; "
                "leave one of them out."
            )
        return manifest.model_copy(update={"task": self.task})


def _bare_name(format_: str) -> str:
    if format_ not in BARE_NAMES:
        raise InvalidPackage(_NOT_ALONE[format_])
    return BARE_NAMES[format_]


def _bare_manifest(told: _Told, format_: str) -> Manifest:
    manifest = told.manifest(None)
    if isinstance(manifest.labels, str):
        raise InvalidPackage(
            f"The manifest takes its labels from {shown(manifest.labels)}, but only a model was uploaded; list "
            "the labels in the manifest, or upload a zip that holds both."
        )
    return _located(manifest, _bare_name(format_), format_)


def _package_manifest(staged: Path, told: _Told, *, trust_plans: bool) -> Manifest:
    manifest = told.manifest(_own_manifest(staged, told))
    model = manifest.model or _only_model(staged)
    if not (staged / model).is_file():
        raise InvalidPackage(f"The manifest names the model {shown(model)}, but the package has no such file.")
    format_ = detect(staged / model, trust_plans=trust_plans)
    if format_ == "zip":
        raise InvalidPackage(f"The package's file {shown(model)} is an archive, not a model.")
    if format_ == "openvino" and not (staged / model).with_suffix(".bin").is_file():
        raise InvalidPackage(f"The package holds {shown(model)} without the .bin of the same name; put it beside.")
    if format_ == "ctranslate2":
        _check_ctranslate2(staged, model)
    _refuse_other_archives(staged, model)
    if isinstance(manifest.labels, str) and not (staged / manifest.labels).is_file():
        raise InvalidPackage(
            f"The manifest takes its labels from {shown(manifest.labels)}, but the package has no such file."
        )
    return _located(manifest, model, format_)


def _check_ctranslate2(staged: Path, model: str) -> None:
    if model != _CTRANSLATE2_FILE:
        raise InvalidPackage(
            f"A CTranslate2 model must be called {_CTRANSLATE2_FILE} and lie at the package's top."
        )
    if not any((staged / name).is_file() for name in ("vocabulary.txt", "vocabulary.json")):
        raise InvalidPackage("The package holds model.bin without vocabulary.txt (or .json); put it beside.")


def _refuse_other_archives(staged: Path, model: str) -> None:
    """Files that may be zips in a package are its model or nothing."""
    for path in staged.rglob("*"):
        name = str(path.relative_to(staged))
        if path.name.lower().endswith(TORCH_SUFFIXES) and name != model:
            raise InvalidPackage(f"The package holds {shown(name)} beside its model {shown(model)}; leave it out.")


def _located(manifest: Manifest, model: str, format_: str) -> Manifest:
    if manifest.format not in (None, format_):
        raise InvalidPackage(
            f"The manifest says format {shown(manifest.format or '')}, but the model is {format_}."
        )
    listed = manifest.inputs is not None or manifest.outputs is not None
    if format_ == "torchscript" and (manifest.inputs is None or manifest.outputs is None):
        raise InvalidPackage(
            "A TorchScript file does not say what it takes and gives: list `inputs` and `outputs` in model.yaml, "
            "such as `inputs: [{name: x, dtype: FP32, shape: [-1, 3]}]`."
        )
    if format_ != "torchscript" and listed:
        raise InvalidPackage(
            f"The manifest lists inputs or outputs, but a model of the format {format_} says them itself; leave "
            "them out."
        )
    return manifest.model_copy(update={"model": model, "format": format_})


def _own_manifest(staged: Path, told: _Told) -> str | None:
    present = [name for name in _MANIFESTS if (staged / name).is_file()]
    if len(present) > 1:
        raise InvalidPackage("The package holds model.yaml and model.yml; keep one.")
    if not present:
        if told.manifest_text is None and told.task is None:
            raise InvalidPackage(
                "The package has no model.yaml; put one beside the model (`task: tensor` is enough for plain "
                "tensors), or send a manifest or a task with the upload."
            )
        return None
    return _read_text(staged / present[0])


def _read_text(path: Path) -> str:
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise InvalidPackage(f"model.yaml is larger than {_MAX_MANIFEST_BYTES} bytes.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidPackage("model.yaml is not UTF-8 text; save it as UTF-8.") from error


def _only_model(staged: Path) -> str:
    models = sorted(
        str(path.relative_to(staged)) for path in staged.rglob("*") if path.name.lower().endswith(MODEL_SUFFIXES)
    )
    if not models and (staged / _CTRANSLATE2_FILE).is_file():
        return _CTRANSLATE2_FILE
    if not models:
        raise InvalidPackage(
            f"The package holds no .onnx file, and no model of another kind ({', '.join(MODEL_SUFFIXES[1:])}); "
            "put the model into it."
        )
    if len(models) > 1:
        listed = ", ".join(shown(model) for model in models[:5])
        raise InvalidPackage(f"The package holds several models ({listed}); name one with `model:` in model.yaml.")
    return models[0]
