"""Searching for the best way to run a model, as an administrator does it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.acceptance import onnx_models
from tests.acceptance.answers import refused
from tests.servers import INTERNAL, RunningServer, wait_until, zip_bytes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("optimising")) as server:
        server.upload("scale", onnx_models.scale())
        yield server


def _samples(count: int) -> bytes:
    files = {}
    for number in range(count):
        buffer = io.BytesIO()
        np.save(buffer, np.full((1, 4), number, np.float32))
        files[f"{number}.npy"] = buffer.getvalue()
    return zip_bytes(files)


def _add_samples(server: RunningServer, name: str, count: int) -> None:
    answer = server.api("POST", f"/models/{name}/samples", files={"file": ("samples.zip", _samples(count))})
    assert answer.status_code == 201, answer.text


def _begin(server: RunningServer, name: str = "scale", **wanted: Any) -> int:
    answer = server.api("POST", f"/models/{name}/versions/1/optimise", json={"budget_s": 60, **wanted})
    assert answer.status_code == 202, answer.text
    return int(answer.json()["id"])


def _wait(server: RunningServer, name: str = "scale") -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = server.ok("GET", f"/models/{name}/versions/1/trials")
        return found if found["status"] not in ("queued", "running") else None

    return wait_until("The end of the search", look, 90, 0.2)


def test_a_search_is_followed_by_a_deployment_with_engine_auto(server: RunningServer) -> None:
    _add_samples(server, "scale", 8)
    before = server.deploy("scale")
    assert server.ok("GET", "/models/scale/deployment")["desired"]["optimised"] == {}
    optimisation_id = _begin(server, engines=["onnx"], precisions=["fp32"])
    events = _follow(server)
    found = _wait(server)
    assert (found["id"], found["status"], found["stale"]) == (optimisation_id, "done", None)
    assert found["recommendation"]["samples"]["judging"] == 4
    assert not found["recommendation"]["samples"]["synthetic"]
    assert {trial["label"].split(",")[0] for trial in found["trials"]} == {"onnx fp32", "onnx fp32 (simplified)"}
    assert all(trial["figures"] for trial in found["trials"] if trial["status"] == "ok")
    assert events[-1] == ("end", {})
    assert {name for name, _ in events[:-1]} == {"progress"}
    assert events[-2][1]["status"] == "done"
    assert any(said["progress"]["phase"].startswith("measuring the reference") for _, said in events[:-1])

    def followed() -> bool:
        desired = server.ok("GET", "/models/scale/deployment")["desired"]
        return bool(desired["optimised"] == {"1": optimisation_id})

    wait_until("A deployment that follows it", followed)
    generation = server.ok("GET", "/models/scale/deployment")["desired"]["generation"]
    assert generation == before["generation"] + 1
    server.wait_generation("scale", generation)
    answer = server.infer("scale", server.token(), json={"inputs": {"x": [[1, 2, 3, 4]]}})
    assert answer.json()["outputs"][0]["data"] == [2, 4, 6, 8]
    _look_at_what_was_converted(server)
    entries = server.ok("GET", "/audit?limit=20")["items"]
    done = {(entry["action"], entry["subject"]) for entry in entries}
    wanted = {("version.optimise", "scale/1"), ("deployment.optimise", "scale"), ("samples.create", "scale")}
    assert wanted <= done


def _look_at_what_was_converted(server: RunningServer) -> None:
    path = "/models/scale/versions/1/derived"
    (row,) = server.ok("GET", path)["items"]
    assert row["conversion"] == "simplified"
    assert server.ok("GET", f"{path}/{row['id']}") == row
    server.ok("PUT", "/models/scale/deployment", json={"version": 1, "engine": "onnx"})
    assert server.ok("POST", f"{path}/{row['id']}/rebuild")["id"] == row["id"]
    assert server.api("DELETE", f"{path}/{row['id']}").status_code == 204
    refused(server.api("GET", f"{path}/{row['id']}"), 404, "not_found", "no derived artifact")
    actions = {entry["action"] for entry in server.ok("GET", "/audit?limit=20")["items"]}
    assert {"derived.rebuild", "derived.delete"} <= actions


def _follow(server: RunningServer) -> list[tuple[str, Any]]:
    events = []
    path = f"{INTERNAL}/models/scale/versions/1/trials/events"
    with server.client.stream("GET", path, headers={"X-Auth-Token": server.login()}, timeout=90) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    return events


def test_one_at_a_time_and_cancelled(server: RunningServer) -> None:
    server.upload("other", onnx_models.scale(3))
    _begin(server, "other")
    refused(server.api("POST", "/models/other/versions/1/optimise", json={}), 409, "conflict", "under way")
    assert server.api("DELETE", "/models/other/versions/1/optimise").status_code == 204
    found = _wait(server, "other")
    assert found["status"] == "cancelled"
    assert found["recommendation"] is None
    wait_until("No folder of the search", lambda: not list(server.data_dir.glob("optimising-*")))
    assert server.api("DELETE", "/models/other/versions/1/optimise").status_code == 204


def test_without_samples_nothing_lossy_is_chosen(server: RunningServer) -> None:
    server.upload("unseen", onnx_models.scale(5))
    _begin(server, "unseen", engines=["openvino"], precisions=["bf16"], apply=False)
    found = _wait(server, "unseen")
    assert found["status"] == "done", found["reason"]
    assert found["recommendation"]["samples"]["synthetic"]
    assert any("inputs were random" in reason for reason in found["recommendation"]["reasons"])
    lossy = [trial for trial in found["trials"] if trial["candidate"]["precision"] != "fp32"]
    assert all(trial["status"] != "ok" for trial in lossy)
    _apply_and_undo(server, found["id"])


def _apply_and_undo(server: RunningServer, search: int) -> None:
    path = "/models/unseen/versions/1"
    assert not server.ok("GET", f"{path}/trials")["follow"]
    server.deploy("unseen")
    before = server.ok("GET", "/models/unseen/deployment")["desired"]
    assert before["optimised"] == {}
    applied = server.ok("PUT", f"{path}/recommendation", json={})
    assert applied == {"search": search, "generation": before["generation"] + 1}
    server.wait_generation("unseen", applied["generation"])
    assert server.ok("GET", f"{path}/trials")["follow"]
    undone = server.ok("DELETE", f"{path}/recommendation")
    assert undone == {"search": None, "generation": before["generation"] + 2}
    assert server.ok("GET", "/models/unseen/deployment")["desired"]["optimised"] == {}
    refused(server.api("PUT", f"{path}/recommendation", json={"search": 999}), 404, "not_found", "no search 999")
    actions = {entry["action"] for entry in server.ok("GET", "/audit?limit=20")["items"]}
    assert {"version.follow", "version.unfollow"} <= actions


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/models/none/versions/1/optimise", {}, 404, "no model"),
        ("/models/scale/versions/9/optimise", {}, 404, "no version 9"),
        ("/models/scale/versions/1/optimise", {"objective": "beauty"}, 422, "objective"),
        ("/models/scale/versions/1/optimise", {"budget_s": 1}, 422, "budget_s"),
        ("/models/scale/versions/1/optimise", {"engines": ["warp"]}, 422, "warp"),
    ],
)
def test_what_cannot_be_searched_for(
    server: RunningServer, path: str, body: dict[str, Any], status: int, says: str
) -> None:
    answer = server.api("POST", path, json=body)
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


def test_never_optimised(server: RunningServer) -> None:
    server.upload("fresh", onnx_models.scale(7))
    refused(server.api("GET", "/models/fresh/versions/1/trials"), 404, "not_found", "never been optimised")


def test_the_command_line_searches_without_a_server(tmp_path: Path) -> None:
    server = RunningServer(tmp_path)
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx_models.scale())
    samples = tmp_path / "samples.zip"
    samples.write_bytes(_samples(4))
    assert server.cli("model", "add", "scale", str(model)).returncode == 0
    assert server.cli("model", "samples", "add", "scale", str(samples)).returncode == 0
    done = server.cli("model", "optimise", "scale", "--budget-s", "60", "--engine", "onnx", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert "onnx fp32 (simplified)" in done.stdout
    assert "Recommended: trial" in done.stdout
    assert ("nothing to apply" in done.stdout) == ("Recommended: trial 1," in done.stdout)
    assert "measuring the reference" in done.stderr
    applied = server.cli("model", "apply", "scale").stdout
    assert applied == "Version 1 of scale follows search 1; no deployment had to change.\n"
    undone = server.cli("model", "apply", "scale", "--undo").stdout
    assert undone == "Version 1 of scale runs as uploaded; no deployment had to change.\n"
    listed = server.cli("model", "derived", "scale")
    number, conversion = listed.stdout.split("\t")[:2]
    assert conversion == "simplified"
    assert server.cli("model", "derived", "scale", "--rebuild", number).returncode == 0
    assert server.cli("model", "derived", "scale", "--remove", number).stdout == ""
    mistyped = server.cli("model", "optimise", "scale", "--precision", "fp8")
    assert (mistyped.returncode, "'fp8' is not one of 'fp32', 'bf16'" in mistyped.stderr) == (2, True)
    gone = server.cli("model", "optimise", "none")
    assert (gone.returncode, "no model" in gone.stderr) == (1, True)
