"""Conversions in processes of their own: what they answer, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from core.errors import ConversionFailed
from core.optimiser.convert_child import ConvertJob, ConvertLimits, run_conversion
from core.optimiser.feed_child import FeedJob, make_feeds
from core.optimiser.feeds import write_feeds
from core.optimiser.samples import StoredSample
from core.validation.samples import make_picture
from tests.unit.optimiser import models

PICTURE = (3, 16, 16)


def a_job(folder: Path, name: str = "int8-static", count: int = 4) -> ConvertJob:
    into = folder / "into"
    into.mkdir()
    return ConvertJob(
        name, models.pictures(folder), into, write_feeds(models.feeds(count, *PICTURE), folder / "in")
    )


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children(recursive=True)]


def test_a_conversion_is_made_elsewhere(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    made = asyncio.run(run_conversion(job))
    assert made.path == job.into / "model.onnx"
    assert made.notes["calibration_items"] == 4
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(made.path).graph.node}


def test_a_refusal_comes_back_as_it_was_said(tmp_path: Path) -> None:
    job = a_job(tmp_path, count=0)
    with pytest.raises(ConversionFailed, match="upload samples"):
        asyncio.run(run_conversion(job))


def test_one_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ConversionFailed, match=r"int8-static took longer than 0\.05 s"):
        asyncio.run(run_conversion(a_job(tmp_path), ConvertLimits(wall_s=0.05)))
    assert children() == []
    assert list(tmp_path.glob("pulvinar-conversion-*")) == []


def test_cancelling_ends_it(tmp_path: Path) -> None:
    job = a_job(tmp_path)

    async def run() -> list[int]:
        task = asyncio.create_task(run_conversion(job))
        async with asyncio.timeout(20):
            while not children():
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return children()

    assert asyncio.run(run()) == []


def test_it_may_not_write_more_than_its_limit(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed):
        asyncio.run(run_conversion(a_job(tmp_path, "simplified"), ConvertLimits(file_bytes=512)))


def test_feeds_that_are_no_arrays_are_not_unpickled(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    trap = tmp_path / "touched"
    code = f"import os; os.mkdir({str(trap)!r})"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (code,)

    np.savez(job.feeds[1], x=np.array([Trap()], object))
    with pytest.raises(ConversionFailed, match="cannot be read"):
        asyncio.run(run_conversion(job))
    assert not trap.exists()


def test_by_hand(tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    job.write_text(json.dumps({**a_job(tmp_path, "simplified").to_json(), **ConvertLimits().to_json()}))
    command = [sys.executable, "-m", "core.optimiser.convert_child", str(job)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ})
    assert json.loads(done.stdout)["done"]["format"] == "onnx"


def feed_job(folder: Path, **files: bytes) -> FeedJob:
    samples = []
    for number, (name, data) in enumerate(files.items()):
        path = folder / name
        path.write_bytes(data)
        samples.append(StoredSample(number, name, "image/png", None, path))
    specs = (
        [{"name": "x", "dtype": "FP32", "shape": [-1, 3, 16, 16]}],
        [{"name": "y", "dtype": "FP32", "shape": [-1, 10]}],
    )
    manifest = {"task": "image-classification", "preprocess": {"resize": {"mode": "stretch", "size": 16}}}
    return FeedJob(manifest, folder, {"inputs": specs[0], "outputs": specs[1]}, samples, folder / "in")


def test_samples_are_prepared_as_serving_would_and_bad_ones_left_out(tmp_path: Path) -> None:
    feeds = asyncio.run(make_feeds(feed_job(tmp_path, a=make_picture(), b=b"no picture", c=make_picture())))
    assert (feeds.ids, feeds.synthetic) == ([0, 2], False)
    assert [why.split(":")[0] for why in feeds.left_out] == ["Sample 1"]
    with np.load(feeds.paths[1]) as arrays:
        assert arrays["x"].shape == (1, *PICTURE)


def test_feeds_take_no_more_room_than_they_may_and_that_is_said(tmp_path: Path) -> None:
    job = feed_job(tmp_path, a=make_picture(), b=b"no picture", c=make_picture(), d=make_picture())
    one = 4 * int(np.prod(PICTURE))
    feeds = asyncio.run(make_feeds(replace(job, max_bytes=2 * one)))
    assert feeds.ids == [0, 2]
    assert (len(feeds.paths), feeds.cut) == (2, "more would take over 0 MiB")
    made_up = asyncio.run(make_feeds(replace(job, samples=[], into=tmp_path / "made-up", max_bytes=one)))
    assert len(made_up.paths) == 1


def test_samples_none_of_which_fits(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match="No sample can be used"):
        asyncio.run(make_feeds(feed_job(tmp_path, a=b"no picture")))


def test_without_samples_inputs_are_made_up_and_said_to_be(tmp_path: Path) -> None:
    feeds = asyncio.run(make_feeds(feed_job(tmp_path)))
    assert feeds.synthetic
    assert len(feeds.paths) == 32
