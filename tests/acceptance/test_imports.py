"""Models that come from a hub, by the API and by the command line, into a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.acceptance import onnx_models
from tests.acceptance.answers import is_cat, refused
from tests.hub_stand_in import COMMIT, TOKEN, HubStandIn, sha256
from tests.servers import DEMO_IMAGES, DEMO_MODEL, RunningServer, wait_until

SCALE = onnx_models.scale()
LARGE = SCALE + b"\x1a" + b"\x80\x80\x10" + b"x" * (256 << 10)
"""The same model with a domain of 256 KiB, so that it takes a while."""
LABELS = (DEMO_MODEL / "labels.txt").read_text().splitlines()
CONFIG = {
    "model_type": "efficientnet",
    "architectures": ["EfficientNetForImageClassification"],
    "id2label": {str(index): label for index, label in enumerate(LABELS)},
}
PROCESSOR = {
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "do_rescale": False,
    "image_mean": [127, 127, 127],
    "image_std": [128, 128, 128],
}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubStandIn]:
    repositories = {
        "acme/scale": {"model.onnx": SCALE},
        "acme/secret": {"model.onnx": SCALE},
        "acme/bad": {"model.onnx": b"no model at all"},
        "acme/large": {"model.onnx": LARGE},
        "acme/cats": {
            "onnx/model.onnx": (DEMO_MODEL / "model.onnx").read_bytes(),
            "config.json": json.dumps(CONFIG).encode(),
            "preprocessor_config.json": json.dumps(PROCESSOR).encode(),
        },
    }
    with HubStandIn(repositories, gated=("acme/secret",)) as hub:
        yield hub


def variables(hub: HubStandIn) -> dict[str, str]:
    return {
        "PULVINAR_SOURCES__HUB_URL": hub.url,
        "PULVINAR_SOURCES__HUB_ORGANISATIONS": '["acme"]',
        "PULVINAR_SOURCES__HUB_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture(scope="module")
def server(hub: HubStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("imports"), variables(hub)) as server:
        yield server


def start(server: RunningServer, name: str, source: str, **fields: str) -> dict[str, Any]:
    answer = server.api("POST", "/imports", json={"name": name, "source": source, **fields})
    assert answer.status_code == 202, answer.text
    started: dict[str, Any] = answer.json()
    assert started["state"] == "running"
    return started


def ended(server: RunningServer, import_id: int) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        row: dict[str, Any] = server.ok("GET", f"/imports/{import_id}")
        return row if row["state"] != "running" else None

    return wait_until("The end of the import", look)


def audited(server: RunningServer, action: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.ok("GET", f"/audit?action={action}")["items"]
    return found


def test_a_model_of_the_hub_becomes_a_version_and_then_the_next_one(server: RunningServer) -> None:
    row = ended(server, start(server, "scale", "hf:acme/scale", description="Doubles")["id"])
    assert row["state"] == "done", row
    assert (row["version"], row["commit"]) == (1, COMMIT)
    assert row["done_bytes"] == row["total_bytes"] == len(SCALE)
    version = server.wait_version("scale", 1)
    assert version["status"] == "valid"
    assert version["sha256"] == sha256(SCALE)
    assert server.ok("GET", "/models/scale")["description"] == "Doubles"
    assert ended(server, start(server, "scale", "hf:acme/scale")["id"])["version"] == 2
    assert [entry["subject"] for entry in audited(server, "model.import")] == ["scale/2", "scale/1"]
    noted = audited(server, "model.import")[0]
    assert noted["actor"] == "admin"
    assert noted["detail"] == {"source": "hf:acme/scale", "commit": COMMIT, "sha256": sha256(SCALE)}
    assert server.ok("GET", "/imports?limit=1")["items"][0]["version"] == 2
    assert (server.data_dir / "models_cache/blobs").is_dir()


def test_a_model_in_parts_is_valid_with_its_data(server: RunningServer, hub: HubStandIn, tmp_path: Path) -> None:
    onnx.save_model(
        onnx.load_from_string(onnx_models.wide(4096)),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
    )
    parts = {f"onnx/{name}": (tmp_path / name).read_bytes() for name in ("model.onnx", "model.onnx_data")}
    hub.repositories["acme/parts"] = parts
    assert ended(server, start(server, "parts", "hf:acme/parts")["id"])["state"] == "done"
    checked = server.wait_version("parts", 1)
    assert checked["status"] == "valid", checked["report"]


def test_what_may_not_be_fetched_is_refused_at_once(server: RunningServer, hub: HubStandIn) -> None:
    seen = len(hub.seen)
    outside = {"name": "dogs", "source": "hf:other/dogs"}
    refused(server.api("POST", "/imports", json=outside), 403, "forbidden", "sources.hub_organisations")
    refused(server.api("POST", "/imports", json={"name": "dogs", "source": "dogs.onnx"}), 400, "bad_request")
    assert len(hub.seen) == seen
    refused(server.api("GET", "/imports/99999"), 404, "not_found")
    refused(server.api("DELETE", "/imports/99999"), 404, "not_found")


@pytest.mark.parametrize(
    ("source", "says"),
    [("hf:acme/nothing", "acme/nothing"), ("hf:acme/bad", "not a model"), ("hf:acme/scale/x", "'x'")],
)
def test_an_import_that_fails_says_why_and_leaves_nothing(server: RunningServer, source: str, says: str) -> None:
    row = ended(server, start(server, "broken", source)["id"])
    assert row["state"] == "failed"
    assert says in row["reason"]
    assert row["version"] is None
    refused(server.api("GET", "/models/broken"), 404)
    assert not server.incoming()
    assert audited(server, "import.fail")[0]["detail"] == {"import": row["id"], "reason": row["reason"]}


def test_an_import_is_cancelled_and_not_begun_twice(server: RunningServer, hub: HubStandIn) -> None:
    hub.faults.stall_after["model.onnx"] = [100_000]
    started = start(server, "large", "hf:acme/large")
    path = f"/imports/{started['id']}"
    under_way = wait_until(
        "The first bytes", lambda: (row := server.ok("GET", path))["done_bytes"] >= 100_000 and row
    )
    assert under_way["total_bytes"] == len(LARGE)
    again = {"name": "large", "source": "hf:acme/large"}
    refused(server.api("POST", "/imports", json=again), 409, "conflict", "already")
    assert server.ok("DELETE", path)["state"] == "cancelled"
    assert audited(server, "import.cancel")[0]["actor"] == "admin"
    refused(server.api("DELETE", path), 409, "conflict")
    assert ended(server, start(server, "large", "hf:acme/large")["id"])["state"] == "done"
    assert hub.requests_of("kept/acme/large")[-1].range == "bytes=100000-"
    assert server.ok("GET", path)["state"] == "cancelled"


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_server_that_ends_half_way_leaves_a_failed_import_and_the_next_goes_on(
    hub: HubStandIn, tmp_path: Path, end: str
) -> None:
    hub.faults.stall_after["model.onnx"] = [120_000]
    with RunningServer(tmp_path, variables(hub)) as server:
        path = f"/imports/{start(server, 'large', 'hf:acme/large')['id']}"
        wait_until("The first bytes", lambda: server.ok("GET", path)["done_bytes"] >= 120_000)
        server.kill() if end == "kill" else server.stop()
        server.start()
        server.forget_login()
        row = ended(server, int(path.rpartition("/")[2]))
        assert row["state"] == "failed"
        assert "go on from where it was" in row["reason"]
        assert ended(server, start(server, "large", "hf:acme/large")["id"])["state"] == "done"
        assert hub.requests_of("kept/acme/large")[-1].range == "bytes=120000-"


def test_the_command_line_fetches_a_classifier_that_knows_what_it_sees(server: RunningServer) -> None:
    added = server.cli("model", "add", "cats", "hf:acme/cats@v1", "--deploy")
    assert added.returncode == 0, added.stderr
    assert "Version 1 of cats is valid." in added.stdout
    manifest = server.ok("GET", "/models/cats/versions/1")["manifest"]
    assert manifest["task"] == "image-classification"
    assert manifest["preprocess"]["resize"]["crop_fraction"] == 0.875
    server.wait_generation("cats", 1)
    picture = (DEMO_IMAGES / "chelsea.jpg").read_bytes()
    answer = server.infer("cats", server.token(), content=picture, headers={"Content-Type": "image/jpeg"})
    assert is_cat(answer)


def test_the_command_line_says_in_a_line_what_is_wrong(server: RunningServer) -> None:
    wrong = server.cli("model", "add", "wrong", "hf:other/x")
    assert wrong.returncode == 1
    assert re.fullmatch(r"Error: .*hub_organisations.*\n", wrong.stderr), wrong.stderr
    gated = server.cli("model", "add", "secret", "hf:acme/secret", variables={"PULVINAR_SOURCES__HUB_TOKEN": "no"})
    assert gated.returncode == 1
    assert "is gated" in gated.stderr


def test_the_token_is_said_nowhere(server: RunningServer) -> None:
    assert ended(server, start(server, "secret", "hf:acme/secret")["id"])["state"] == "done"
    assert TOKEN not in server.log()
    assert TOKEN not in json.dumps(server.ok("GET", "/audit?limit=500")) + json.dumps(server.ok("GET", "/imports"))
