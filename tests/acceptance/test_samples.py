"""Samples of a model's inputs: uploaded, listed and removed; kept of live traffic where that is asked for."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.acceptance import onnx_models
from tests.acceptance.answers import refused
from tests.acceptance.pictures import CAT_JPEG
from tests.conftest import Demo, StartServer
from tests.servers import ROOT, RunningServer, wait_until, zip_bytes

COFFEE = (ROOT / "demo/images/coffee.jpg").read_bytes()
MODEL = "/models/classifier/samples"


def npy(*values: float) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(values, np.float32))
    return file.getvalue()


def add(server: RunningServer, file: bytes, name: str = "cat.jpg", path: str = MODEL, **fields: str) -> Any:
    return server.api("POST", path, files={"file": (name, file)}, data=fields)


def kept_files(server: RunningServer) -> set[str]:
    return {path.name for path in (server.data_dir / "samples").glob("*/*")}


def test_samples_come_one_by_one_and_in_zips_with_labels(demo: Demo) -> None:
    server = demo.server
    assert add(server, CAT_JPEG, label="tabby").json() == {"added": 1, "known": 0, "count": 1}
    package = zip_bytes(
        {"s/cat.jpg": CAT_JPEG, "s/b/coffee.jpg": COFFEE, "s/labels.csv": "b/coffee.jpg,espresso\n"}
    )
    assert add(server, package, "all.zip").json() == {"added": 1, "known": 1, "count": 2}
    page = server.ok("GET", MODEL)
    assert [(row["label"], row["kind"], row["media_type"]) for row in page["items"]] == [
        ("tabby", "uploaded", "image/jpeg"),
        ("espresso", "uploaded", "image/jpeg"),
    ]
    assert (page["count"], page["size_bytes"]) == (2, len(CAT_JPEG) + len(COFFEE))
    assert kept_files(server) == {row["sha256"] for row in page["items"]}
    assert server.api("DELETE", f"{MODEL}/{page['items'][0]['id']}").status_code == 204
    refused(server.api("DELETE", f"{MODEL}/{page['items'][0]['id']}"), 404)
    assert server.ok("DELETE", f"{MODEL}?kind=live") == {"removed": 0}
    assert server.ok("DELETE", MODEL) == {"removed": 1}
    assert kept_files(server) == set()
    assert server.incoming() == []


def _bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat.png", bytes(300 << 20))
    return file.getvalue()


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "a model": (onnx_models.scale(), 415, "sample"),
    "a zip bomb": (_bomb(), 413, "bomb"),
    "a zip with a program": (zip_bytes({"a.jpg": CAT_JPEG, "run.sh": "#!/bin/sh"}), 422, "run.sh"),
    "a zip that leads out": (zip_bytes({"a.jpg": CAT_JPEG, "../b.jpg": COFFEE}), 422, "leads out"),
    "a zip with a bad file last": (zip_bytes({"a.jpg": CAT_JPEG, "z.jpg": b"no picture"}), 415, "z.jpg"),
    "labels of what is not there": (zip_bytes({"a.jpg": CAT_JPEG, "labels.csv": "b.jpg,cat"}), 422, "b.jpg"),
    "a damaged zip": (zip_bytes({"a.jpg": CAT_JPEG})[:200], 422, "damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_samples_are_refused_whole(demo: Demo, name: str) -> None:
    file, status, says = REFUSED[name]
    answer = add(demo.server, file, "a.zip")
    refused(answer, status)
    assert says in answer.json()["error"]["message"]
    assert kept_files(demo.server) == set()
    assert demo.server.incoming() == []
    assert demo.server.ok("GET", MODEL)["count"] == 0


def test_who_may_not(demo: Demo) -> None:
    demo.server.user("sam", "viewer")
    refused(demo.server.api("DELETE", MODEL, user="sam"), 403)
    refused(demo.server.api("POST", MODEL, user="sam", files={"file": ("a", CAT_JPEG)}), 403)
    assert demo.server.ok("GET", MODEL, user="sam")["items"] == []
    refused(add(demo.server, CAT_JPEG, path="/models/nobody/samples"), 404)


def test_the_command_line_and_the_end_of_a_model(demo: Demo, tmp_path: Path) -> None:
    server = demo.server
    server.upload("counted", onnx_models.scale(), task="tensor")
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.npy")
        files[-1].write_bytes(npy(number, 1, 2, 3))
    labels = tmp_path / "labels.jsonl"
    labels.write_text(json.dumps({"file": "1.npy", "label": "one"}))
    done = server.cli("model", "samples", "add", "counted", *map(str, files), "--labels", str(labels))
    assert done.stdout == "3 samples added to counted; 0 were there already.\n", done.stderr
    listed = server.cli("model", "samples", "list", "counted").stdout.splitlines()
    assert [line.split("\t")[4:] for line in listed] == [["-", "0.npy"], ["one", "1.npy"], ["-", "2.npy"]]
    assert len(kept_files(server)) == 3
    server.ok("DELETE", "/models/counted")
    assert kept_files(server) == set()
    assert server.cli("model", "samples", "remove", "counted").returncode == 1


def test_live_inputs_are_kept_where_asked_for_and_no_secret_with_them(demo: Demo) -> None:
    _keep_live(demo.server)
    demo.server.ok("DELETE", "/models/watched/deployment")
    wait_until("an end", lambda: demo.server.api("DELETE", "/models/watched").status_code == 204)


def test_every_worker_keeps_live_inputs(start_server: StartServer) -> None:
    _keep_live(start_server({"PULVINAR_SERVER__WORKERS": "2"}))


def _keep_live(server: RunningServer) -> None:
    server.upload("watched", onnx_models.scale(), task="tensor")
    server.deploy("watched")
    token, path = server.token(), "/models/watched/samples"
    numbers = iter(range(10_000))

    def call() -> None:
        answer = server.infer("watched", token, json={"inputs": {"x": [[next(numbers), 1, 2, 3]]}})
        assert answer.status_code == 200, answer.text

    def count() -> int:
        found: int = server.ok("GET", f"{path}?kind=live")["count"]
        return found

    def another() -> int:
        call()
        return count()

    call()
    assert count() == 0
    server.deploy("watched", sample_live={"rate": 1, "max_count": 4})
    desired = server.ok("GET", "/models/watched/deployment")["desired"]
    assert desired["sample_live"] == {"rate": 1, "max_count": 4}
    wait_until("live samples", lambda: another() == 4)
    for _ in range(20):
        call()
    assert count() == 4
    server.deploy("watched")
    contents = wait_until("rest", lambda: _contents(server, path))
    for data in contents:
        assert token.encode() not in data
        with np.load(io.BytesIO(data)) as arrays:
            assert arrays["x"].shape == (1, 4)
            assert arrays["x"][0, 1:].tolist() == [1, 2, 3]
    server.ok("DELETE", path)
    wait_until("an end of sampling", lambda: another() == 0 or server.ok("DELETE", path) is None)


def _contents(server: RunningServer, path: str) -> list[bytes] | None:
    """The files of all live samples; None while they are still being exchanged."""
    page = server.ok("GET", path)
    assert {row["media_type"] for row in page["items"]} == {"application/x-npz"}
    try:
        return [
            (server.data_dir / "samples" / row["sha256"][:2] / row["sha256"]).read_bytes() for row in page["items"]
        ]
    except FileNotFoundError:
        return None
