"""`make demo`: what it serves, and what it says where it cannot."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

import tests.downloads  # noqa: F401 (finds demo/)
from tests.servers import DEMO_IMAGES, ROOT, environment, free_port

# isort: split
from tuning import crops, gained


@contextmanager
def running(data_dir: Path) -> Iterator[str]:
    """The demo, without the search for the fastest engine: what it printed until it served."""
    demo = [sys.executable, str(ROOT / "demo/demo.py"), "--data-dir", str(data_dir), "--budget-s", "0"]
    process = subprocess.Popen(
        [*demo, "--port", str(free_port())],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    watchdog = threading.Timer(120, process.terminate)
    watchdog.start()
    try:
        told = ""
        for line in process.stdout:
            told += line
            if "Ctrl-C" in line:
                break
        yield told
    finally:
        watchdog.cancel()
        process.terminate()
        process.communicate(timeout=60)


def call(told: str, model: str, photo: str) -> list[str]:
    """The labels that the demo's model answers."""
    (url,) = re.findall(r"Pulvinar serves on (\S+)", told)
    (token,) = re.findall(r"Token +(\S+)", told)
    body = (DEMO_IMAGES / photo).read_bytes()
    headers = {"X-Access-Token": token, "Content-Type": "image/jpeg"}
    path = f"api/v1/inference/{model}" if model else "predict"
    answer = httpx.post(f"{url}/{path}", content=body, headers=headers, timeout=60).json()
    if model == "objects":
        return [one["classes"][0]["label"] for one in answer["objects"]]
    return [one["label"] for one in answer.get("predictions", answer.get("detections"))]


def test_it_serves_both_models_and_says_how_to_call_them(tmp_path: Path) -> None:
    with running(tmp_path / "data") as told:
        assert "health/ready" not in told, "no line a request, which would drive the password off the screen"
        assert call(told, "classifier", "coffee.jpg")[0] == "espresso"
        assert call(told, "detector", "astronaut.jpg") == ["person"]
        assert call(told, "", "coffee.jpg")[0] == "espresso", "what names no model is for the classifier"
        commands = re.findall(r"(?:curl|\S+draw\.py) .*\n? .*(?:inference/(\w+)|(/predict|boxes\.png))", told)
        assert commands == [
            ("classifier", ""),
            ("", "/predict"),
            ("detector", ""),
            ("", "boxes.png"),
            ("objects", ""),
        ]
        assert call(told, "objects", "coffee.jpg") == ["espresso"]
        drawing = re.search(r"(\S+/python\S*) (\S+draw\.py --url \S+ --token \S+)", told)
        assert drawing is not None
        draw = [drawing[1], *drawing[2].split(), str(DEMO_IMAGES / "astronaut.jpg"), str(tmp_path / "boxes.png")]
        drawn = subprocess.run(draw, capture_output=True, text=True, timeout=60, check=True)
        assert drawn.stdout.split()[1] == "person"
        assert (tmp_path / "boxes.png").stat().st_size > 10_000


def test_a_port_that_is_taken_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, str(ROOT / "demo/demo.py"), "--port", port, "--data-dir", str(tmp_path / "data")],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 4
    assert ended.stderr == f"Error: port {port} is taken; choose another one with PORT=…\n"
    assert not ended.stdout
    assert not (tmp_path / "data").exists()


def test_it_says_what_the_search_gained() -> None:
    rows = [
        " 1  onnx fp32, 1 thread, 1 slot, batches of 1: 6.80 ms (p99 7.90), 147/s, 89 MB: ok (the reference)\n",
        " 2  openvino bf16 (bf16-mixed), 1 thread, 1 slot, batches of 1: 3.90 ms (p99 4.10), 256/s, 99 MB: ok\n",
    ]
    told = gained("classifier", [*rows, "Recommended: trial 2, 1.74 times the reference.\n"])
    assert told == (
        "The classifier now runs 1.74 times as fast as it was uploaded, in 3.90 ms: by openvino bf16 "
        "(bf16-mixed), 1 thread, 1 slot, batches of 1."
    )
    same = gained("classifier", [*rows, "Recommended: trial 1, 1.00 times the reference.\n"])
    assert same.startswith("The classifier runs as it was uploaded, in 6.80 ms: nothing")
    assert "brought nothing" in gained("classifier", ["The search failed.\n"])


def test_its_samples_are_the_same_every_time() -> None:
    assert list(crops(3)) == list(crops(3))
