"""The demo's pipelines fit the demo's models, those that lie here and those that are fetched, and run on them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from core.engines.base import Engine, EngineOptions
from core.engines.registry import engine_class
from core.pipelines.ports import ModelFacts
from core.pipelines.target import Pipeline
from core.pipelines.validation import Facts, validate
from core.serving.catalogue import Catalogue, Served, Share
from core.serving.deployment import Deployment, DeploymentOptions
from core.serving.request import InferenceRequest
from core.serving.runner import LocalRunner, RunnerOptions
from core.signature import Signature
from core.store.manifest import parse_manifest
from core.tasks.base import Payload
from core.tasks.registry import task_class
from tests.downloads import wheel_file  # finds demo/
from tests.speech import clips

# isort: split
from full import FETCHED, FOLDER, _labels
from full import PIPELINES as FULL_PIPELINES
from wheels import WHEELS

DEMO = Path(__file__).parents[2] / "demo"


def _program() -> ModuleType:
    """`demo/demo.py`; under its own name it would stand in the way of the folder's."""
    spec = spec_from_file_location("demo_program", DEMO / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


demo_program = _program()
NAMES = [*demo_program.PIPELINES, *FULL_PIPELINES]


def facts() -> Facts:
    manifests = {name: FOLDER / f"{name}.yaml" for name in FETCHED}
    manifests |= {name: DEMO / "models" / folder / "model.yaml" for name, folder in demo_program.MODELS.items()}
    found = {}
    for name, path in manifests.items():
        task = task_class(parse_manifest(path.read_text()).task)
        found[name, None] = ModelFacts(task.name, task.modality, Signature((), ()))
    return found


def test_every_pipeline_is_in_the_demo() -> None:
    assert sorted(f"{name}.yaml" for name in NAMES) == sorted(file.name for file in DEMO.glob("pipelines/*"))


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_of_the_demo_is_valid(name: str) -> None:
    plan = validate((DEMO / "pipelines" / f"{name}.yaml").read_text(), facts())
    assert plan.outputs


@asynccontextmanager
async def serving(name: str, folder: Path, threads: ThreadPoolExecutor) -> AsyncIterator[Deployment]:
    """A fetched model of the demo in service here, with its own manifest."""
    folder.mkdir()
    for file, (wheel, path) in FETCHED[name].files.items():
        shutil.copy(wheel_file(wheel, WHEELS[wheel].version, path), folder / file)
    if FETCHED[name].labels_in:
        labels = _labels((folder / "model.onnx").read_bytes(), FETCHED[name].labels_in)
        (folder / "labels.json").write_text(json.dumps(labels))
    manifest = parse_manifest((FOLDER / f"{name}.yaml").read_text())

    def load() -> tuple[Engine, Signature]:
        assert manifest.model is not None
        engine = engine_class("onnx" if manifest.model.endswith(".onnx") else "ctranslate2")()
        return engine, engine.load(folder / manifest.model, EngineOptions(threads=2))

    deployment = Deployment(
        DeploymentOptions(name, 1),
        LocalRunner(RunnerOptions(name), load),
        lambda signature: task_class(manifest.task)(manifest.task_config(), signature, folder),
        threads,
    )
    await deployment.start()
    try:
        yield deployment
    finally:
        await deployment.close()


def answer(pipeline: str, models: Iterable[str], payload: Payload, folder: Path) -> dict[str, Any]:
    """What the demo's pipeline answers with the demo's models."""

    async def ask() -> dict[str, Any]:
        catalogue = Catalogue()
        catalogue.expected = {}
        with ThreadPoolExecutor(2) as threads:
            async with AsyncExitStack() as stack:
                for name in models:
                    target = await stack.enter_async_context(serving(name, folder / name, threads))
                    catalogue.swap(name, [Share(Served(target))])
                plan = validate((DEMO / "pipelines" / f"{pipeline}.yaml").read_text(), facts())
                result = await Pipeline(pipeline, 1, plan, catalogue, threads).infer(
                    InferenceRequest(payloads=[payload])
                )
        assert result.answers is not None
        return result.answers[0]

    return asyncio.run(ask())


def test_a_page_is_read_in_the_order_of_its_lines(tmp_path: Path) -> None:
    page = Payload((DEMO / "images" / "page.png").read_bytes(), "image/png")
    found = answer("ocr", ["ocr-detect", "ocr-read"], page, tmp_path)
    assert found["text"].splitlines() == [
        "Invoice 2026-1184",
        "Total: 84.50 EUR",
        "The quick brown fox jumps over",
        "the lazy dog near the river bank.",
        "Please pay within thirty days to",
        "account DE44 5001 0517 5407 3249 31",
        "Thank you!",
    ]
    assert [line["text"] for line in found["lines"]] == found["text"].splitlines()
    assert all(len(line["polygon"]) == 4 for line in found["lines"])


def test_what_is_said_is_written_down_and_placed(tmp_path: Path) -> None:
    recording = Payload(clips()[4].read_bytes(), "audio/wav")
    found = answer("said", ["speech", "minilm"], recording, tmp_path)
    assert found["text"] == "He might even have been made amiable himself."
    assert found["language"] == "en"
    assert len(found["embedding"]) == 384
    assert np.linalg.norm(found["embedding"]) == pytest.approx(1, abs=1e-4)
