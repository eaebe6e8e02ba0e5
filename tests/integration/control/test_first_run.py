"""A model whose lengths vary has run before it is ready: no caller pays for what its engine does lazily."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.control.desired import DesiredDeployment
from core.control.hosted import HostedRunner
from core.control.loader import Loader
from core.database.repositories import Models, Versions
from core.database.session import Database
from core.engines.onnx import OnnxEngine
from core.errors import LoadFailed
from core.serving.warm_up import pack_inputs, unpack_inputs
from core.store.artifacts import ArtifactStore
from tests.databases import fresh_database, with_database
from tests.integration.hosts.hosting import fake_job
from tests.text_models import class_table, lookup_model, unpacked

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SIGNATURE = {
    "inputs": [{"name": name, "dtype": "INT64", "shape": [-1, -1]} for name in INPUTS],
    "outputs": [{"name": "output", "dtype": "FP32", "shape": [-1, 2]}],
}
MANIFEST = {"task": "text-classification", "labels": ["good", "bad"]}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """What ONNX Runtime has been given to run."""
    given: list[Mapping[str, Any]] = []
    run_wide = OnnxEngine.run_wide

    def noted(self: OnnxEngine, inputs: Mapping[str, Any], threads: int) -> dict[str, Any]:
        given.append(inputs)
        return run_wide(self, inputs, threads)

    monkeypatch.setattr(OnnxEngine, "run_wide", noted)
    return given


async def load(database: Database, folder: Path, isolation: str, ran: list[Any]) -> tuple[list[str], Any]:
    """Load a text classifier and close it.

    Answers what it went through, with how often the engine had run by then, and what its host was told to run.
    """
    states: list[str] = []
    store = ArtifactStore(folder / "artifacts", max_bytes=1 << 30, min_free_bytes=0)
    staged, sha256 = store.stage(), "1" * 64
    unpacked(staged, lookup_model(class_table(good={"happy": 2}, bad={"sad": 2}), pooled=True))
    await store.publish(staged, sha256)
    async with database.transaction() as session:
        model = await Models(session).add("words", "text-classification")
        version = await Versions(session).add_next(
            model.id, format="onnx", size_bytes=1, sha256=sha256, manifest=MANIFEST
        )
        await Versions(session).finish(version.id, "valid", report=[], signature=SIGNATURE)
    desired = DesiredDeployment(model.id, "words", 1, True, isolation=isolation)
    with ThreadPoolExecutor(1) as threads:
        loader = Loader(database, store, threads, folder)
        deployment = await loader.load(desired, 1, lambda state: states.append(f"{state} {len(ran)}"))
        states.append(f"ready {len(ran)}")
        hosted = deployment.runner if isinstance(deployment.runner, HostedRunner) else None
        told = hosted and hosted.process._job["example"]  # a host that has ended keeps nothing of it
        await deployment.close()
    return states, told


def loaded(folder: Path, isolation: str, ran: list[Any]) -> tuple[list[str], Any]:
    with fresh_database("sqlite", folder) as url:
        return with_database(url, lambda database: load(database, folder, isolation, ran))


def test_a_text_model_has_run_its_tasks_example_before_it_is_ready(tmp_path: Path, ran: list[Any]) -> None:
    states, _ = loaded(tmp_path, "thread", ran)
    assert states[:2] == ["loading 0", "warming 0"]
    assert states[-1] in ("ready 1", "ready 2")  # once with each number of threads that a slot may have
    assert set(ran[0]) == set(INPUTS)
    assert ran[0]["input_ids"].shape[0] == 1
    assert ran[0]["input_ids"].shape[1] > 3


def test_a_host_is_told_the_example_for_it_has_no_tasks(tmp_path: Path, ran: list[Any]) -> None:
    states, example = loaded(tmp_path, "process", ran)
    assert states[-1] == "ready 0"  # nothing has run here
    told = unpack_inputs(example)
    assert told is not None
    assert set(told) == set(INPUTS)
    assert told["input_ids"].dtype == np.int64
    assert told["attention_mask"].all()


def test_a_host_runs_what_it_is_told_before_it_is_ready(tmp_path: Path) -> None:
    """One that dies of it never becomes ready; without, it would."""

    async def start(example: dict[str, Any] | None) -> None:
        job = {**fake_job(tmp_path, fake={"fail": "crash", "fail_on": 13.0}), "example": example}
        runner = HostedRunner("test", Path(job["socket"]), job, 8)
        try:
            await runner.start(lambda state: None)
        finally:
            await runner.close()

    asyncio.run(start(None))
    with pytest.raises(LoadFailed):
        asyncio.run(start(pack_inputs({"x": np.full((1, 3), 13, np.float32)})))
