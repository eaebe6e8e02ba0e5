"""The Open Inference Protocol v2 with the real client: `tritonclient.http`, synchronous and on asyncio."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from concurrent.futures import Future
from typing import Any

import httpx
import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.acceptance import oip_models
from tests.acceptance.conftest import Slow
from tests.acceptance.oip_client import Client, tensor
from tests.acceptance.pictures import CATS
from tests.conftest import Demo
from tests.servers import DEMO_IMAGES, DEMO_MODEL, ROOT, RunningServer, wait_until

VALUES: dict[str, np.ndarray[Any, Any]] = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255], [1, 2]], np.uint8),
    "UINT16": np.array([[0, 65535], [1, 2]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1], [1, 2]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1], [1, 2**63]], np.uint64),
    "INT8": np.array([[-128, 127], [0, -1]], np.int8),
    "INT16": np.array([[-32768, 32767], [0, -1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1], [0, -1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1], [0, -1]], np.int64),
    "FP16": np.array([[1.5, -65504], [6e-8, 0.1]], np.float16),
    "FP32": np.array([[1.5, -3.4e38], [1e-45, 0.1]], np.float32),
    "FP64": np.array([[1.5, -1.7e308], [5e-324, 0.1]], np.float64),
    "BF16": np.array([[1.5, -3.3e38], [1e-38, 0.1]], ml_dtypes.bfloat16),
    "BYTES": np.array([["", "naïve ☕"], ["two\nlines", "x" * 3000]], object),
}
JSON_TYPES = [name for name in VALUES if name not in ("FP16", "BF16")]


@pytest.fixture(scope="session")
def models(demo: Demo) -> Demo:
    """The demo server with models that answer what they are asked, and `versioned` with two versions live."""
    server = demo.server
    server.upload("every", oip_models.identity(*oip_models.FIRST_MANY))
    server.deploy("every")
    server.upload("one-bf16", oip_models.identity("BF16"))
    server.deploy("one-bf16")
    server.upload("bf16-cast", oip_models.bf16_to_fp32())
    server.deploy("bf16-cast", isolation="process")
    server.upload("fixed", oip_models.times(3, [2, 4]))
    server.deploy("fixed")
    server.upload("versioned", oip_models.times(2))
    server.upload("versioned", oip_models.times(10), version=True)
    _deploy_both(server)
    return demo


def _deploy_both(server: RunningServer) -> None:
    traffic = [{"version": 1, "weight": 1}, {"version": 2, "weight": 1}]
    accepted = server.ok("PUT", "/models/versioned/deployment", json={"traffic": traffic})
    server.wait_generation("versioned", accepted["generation"])


@pytest.fixture(params=["sync", "aio"])
def client(models: Demo, request: pytest.FixtureRequest) -> Client:
    """Each kind of client."""
    return Client(request.param, models.server.port, models.token)


def _text(array: np.ndarray[Any, Any]) -> list[Any]:
    # The client gives BYTES back as bytes from binary data, and as str from JSON.
    return [item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1).tolist()]


def _same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    assert found.shape == expected.shape
    if expected.dtype == object:
        return _text(found) == _text(expected)
    return found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


# Server and models


def test_the_server_is_live_and_ready(client: Client) -> None:
    assert client.ask("is_server_live", headers={}) is True
    assert client.ask("is_server_ready", headers={}) is True


def test_server_metadata_names_only_what_is_true(client: Client) -> None:
    metadata = client.ask("get_server_metadata")
    assert metadata["name"] == "pulvinar"
    assert metadata["extensions"] == ["binary_tensor_data", "model_configuration", "schedule_policy", "statistics"]


def test_model_readiness(client: Client) -> None:
    assert client.ask("is_model_ready", "versioned") is True
    assert client.ask("is_model_ready", "versioned", "2") is True
    assert client.ask("is_model_ready", "versioned", "3") is False
    assert client.ask("is_model_ready", "nothing") is False


def test_model_metadata(client: Client) -> None:
    metadata = client.ask("get_model_metadata", "versioned")
    assert metadata == {
        "name": "versioned",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    every = client.ask("get_model_metadata", "every")
    assert [entry["datatype"] for entry in every["inputs"]] == list(oip_models.FIRST_MANY)
    with pytest.raises(
        InferenceServerException, match="Version 7 of model 'versioned' is not in service"
    ) as error:
        client.ask("get_model_metadata", "versioned", "7")
    assert error.value.status() == "404"


def test_model_config_of_a_model_that_batches(client: Client) -> None:
    config = client.ask("get_model_config", "versioned")
    assert config["max_batch_size"] == 32
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": [4]}]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 0
    assert config["version_policy"] == {"specific": {"versions": [1, 2]}}
    assert config["instance_group"] == [{"name": "versioned_0", "kind": "KIND_CPU", "count": 1}]


def test_model_config_of_a_model_that_cannot_batch(client: Client) -> None:
    config = client.ask("get_model_config", "fixed", "1")
    assert config["max_batch_size"] == 0
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [2, 4]}]
    assert "dynamic_batching" not in config


def test_repository_index(models: Demo, client: Client) -> None:
    index = client.ask("get_model_repository_index")
    assert {"name": "versioned", "version": "2", "state": "READY", "reason": ""} in index
    names = [entry["name"] for entry in index]
    assert names == sorted(names)
    some = Client(client.kind, client.port, models.server.token(models=["one-*", "fixed"]))
    assert {entry["name"] for entry in some.ask("get_model_repository_index")} == {"one-bf16", "fixed"}


# Tensors


def _ask_every(
    client: Client, datatype: str, *, binary: bool = True, binary_output: bool = True
) -> triton.InferResult:
    """The output of one datatype, whose input alone is binary, or alone JSON; the others are the other way."""
    inputs = [
        tensor(f"in_{name}", VALUES[name], binary=binary if name == datatype else not binary or name == "FP16")
        for name in oip_models.FIRST_MANY
    ]
    wanted = triton.InferRequestedOutput(f"out_{datatype}", binary_data=binary_output)
    return client.ask("infer", "every", inputs, outputs=[wanted])


@pytest.mark.parametrize("datatype", oip_models.FIRST_MANY)
def test_binary_both_ways(client: Client, datatype: str) -> None:
    found = _ask_every(client, datatype)
    assert _same(found.as_numpy(f"out_{datatype}"), VALUES[datatype])
    assert found.get_response()["outputs"][0]["datatype"] == datatype


def test_bf16_both_ways(client: Client) -> None:
    found = client.infer("one-bf16", {"in_BF16": VALUES["BF16"]})
    assert _same(found.as_numpy("out_BF16"), VALUES["BF16"])
    assert found.get_response()["outputs"][0]["datatype"] == "BF16"


@pytest.mark.parametrize("datatype", JSON_TYPES)
def test_json_both_ways(client: Client, datatype: str) -> None:
    found = _ask_every(client, datatype, binary=False, binary_output=False)
    assert _same(found.as_numpy(f"out_{datatype}"), VALUES[datatype])
    assert "data" in found.get_response()["outputs"][0]


def test_fp16_is_refused_in_json(client: Client) -> None:
    with pytest.raises(
        InferenceServerException, match="Input 'in_FP16' is FP16, which JSON cannot carry"
    ) as error:
        _ask_every(client, "FP16", binary=False)
    assert error.value.status() == "400"
    with pytest.raises(InferenceServerException, match="Output 'out_FP16' is FP16, which JSON cannot carry"):
        _ask_every(client, "FP16", binary_output=False)


def test_bf16_in_and_fp32_out_through_a_host_process(client: Client) -> None:
    for x in (VALUES["BF16"], np.tile(VALUES["BF16"], (20_000, 1))):  # within the frame, and in shared memory
        found = client.infer("bf16-cast", {"x": x})
        assert _same(found.as_numpy("y"), x.astype(np.float32))


def test_many_inputs_and_outputs_mixed(client: Client) -> None:
    names = oip_models.FIRST_MANY
    inputs = [tensor(f"in_{name}", VALUES[name], binary=name in ("FP16", "INT8", "BYTES")) for name in names]
    outputs = [
        triton.InferRequestedOutput(f"out_{name}", binary_data=name in ("FP16", "UINT64"))
        for name in ("UINT64", "BYTES", "FP16", "FP32")
    ]
    found = client.ask("infer", "every", inputs, outputs=outputs, request_id="a-7")
    assert [entry["name"] for entry in found.get_response()["outputs"]] == [
        "out_UINT64",
        "out_BYTES",
        "out_FP16",
        "out_FP32",
    ]
    for name in ("UINT64", "BYTES", "FP16", "FP32"):
        assert _same(found.as_numpy(f"out_{name}"), VALUES[name])
    assert found.as_numpy("out_INT8") is None
    assert found.get_response()["id"] == "a-7"


def test_all_outputs_come_without_being_asked_for(client: Client) -> None:
    found = client.infer("every", {f"in_{name}": VALUES[name] for name in oip_models.FIRST_MANY})
    for name in oip_models.FIRST_MANY:
        assert _same(found.as_numpy(f"out_{name}"), VALUES[name])


def test_large_tensors_go_through_a_thread_and_come_back_whole(client: Client) -> None:
    x = np.random.default_rng(0).random((20_000, 4), np.float32)
    found = client.infer("versioned", {"x": x}, model_version="1")
    assert np.array_equal(found.as_numpy("y"), x * 2)
    found = client.infer("versioned", {"x": x}, model_version="1", outputs=["y"], binary_outputs=False)
    assert np.array_equal(found.as_numpy("y"), x * 2)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("rows", [1, 30_000])
def test_compression_both_ways(client: Client, algorithm: str, rows: int) -> None:
    x = np.ones((rows, 4), np.float32)
    found = client.infer(
        "versioned",
        {"x": x},
        model_version="2",
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert np.array_equal(found.as_numpy("y"), x * 10)


def test_versions(client: Client) -> None:
    x = {"x": np.ones((1, 4), np.float32)}
    for version, factor in (("1", 2), ("2", 10)):
        found = client.infer("versioned", x, model_version=version)
        assert found.as_numpy("y")[0, 0] == factor
        assert found.get_response()["model_version"] == version
    found = client.infer("versioned", x)
    assert found.get_response()["model_version"] in ("1", "2")


def test_the_demo_classifier_answers_tensors(demo: Demo, client: Client) -> None:
    metadata = client.ask("get_model_metadata", "classifier")
    spec = metadata["inputs"][0]
    photo = Image.open(DEMO_IMAGES / "chelsea.jpg").convert("RGB").resize((224, 224))
    pixels = (np.asarray(photo, np.float32)[None] - 127.0) / 128.0
    if spec["shape"][1] == 3:
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    scores = client.infer("classifier", {spec["name"]: pixels}).as_numpy(metadata["outputs"][0]["name"])
    labels = (DEMO_MODEL / "labels.txt").read_text().splitlines()
    assert labels[int(scores.argmax())] in CATS


# Errors


ERRORS = [
    ("nothing", {"x": np.ones((1, 4), np.float32)}, {}, "404", "There is no model 'nothing'"),
    ("versioned", {"x": np.ones((1, 4), np.float32)}, {"model_version": "9"}, "404", "Version 9 of model"),
    ("versioned", {"x": np.ones((1, 4), np.float32)}, {"model_version": "one"}, "400", "must be a whole number"),
    ("versioned", {"z": np.ones((1, 4), np.float32)}, {}, "400", "Input 'z' is not known; the model takes x"),
    ("versioned", {"x": np.ones((1, 4), np.int64)}, {}, "400", "Input 'x' is FP32, but came as INT64"),
    ("versioned", {"x": np.ones((1, 5), np.float32)}, {}, "400", r"must be FP32 of shape \[-1, 4\]"),
    ("versioned", {"x": np.ones((0, 4), np.float32)}, {}, "400", "its first axis is empty"),
    ("versioned", {"x": np.ones((1, 4), np.float32)}, {"outputs": ["q"]}, "400", "Output 'q' is not known"),
    ("versioned", {"x": np.ones((1, 4), np.float32)}, {"sequence_id": 5}, "400", "keeps nothing from one request"),
    ("every", {"in_FP32": VALUES["FP32"]}, {}, "400", "Input 'in_BOOL' is missing"),
]


@pytest.mark.parametrize(("model", "arrays", "options", "status", "says"), ERRORS)
def test_errors_in_words(
    client: Client, model: str, arrays: Any, options: dict[str, Any], status: str, says: str
) -> None:
    with pytest.raises(InferenceServerException, match=says) as error:
        client.infer(model, arrays, **options)
    assert error.value.status() == status


def test_what_is_not_supported_says_so(client: Client) -> None:
    x = tensor("x", np.ones((1, 4), np.float32))
    top = triton.InferRequestedOutput("y", class_count=2)
    with pytest.raises(InferenceServerException, match="classification extension is not supported") as error:
        client.ask("infer", "versioned", [x], outputs=[top])
    assert error.value.status() == "400"
    shared = triton.InferInput("x", [1, 4], "FP32")
    shared.set_shared_memory("region", 16)
    with pytest.raises(InferenceServerException, match="Shared memory is not supported"):
        client.ask("infer", "versioned", [shared])
    with pytest.raises(InferenceServerException, match="nothing at this path") as error:
        client.ask("load_model", "versioned")
    assert error.value.status() == "404"


def test_tokens_decide(models: Demo, client: Client) -> None:
    server = models.server
    x = {"x": np.ones((1, 4), np.float32)}
    with pytest.raises(InferenceServerException, match="Send an access token") as error:
        client.infer("versioned", x, headers={})
    assert error.value.status() == "401"
    bearer = {"Authorization": f"Bearer {models.token}"}
    assert client.infer("versioned", x, headers=bearer, model_version="1").as_numpy("y")[0, 0] == 2
    other = Client(client.kind, client.port, server.token(models=["one-*"]))
    for ask in (lambda: other.infer("versioned", x), lambda: other.ask("get_model_config", "versioned")):
        with pytest.raises(InferenceServerException, match="There is no model 'versioned'") as error:
            ask()
        assert error.value.status() == "404"
    lister = Client(client.kind, client.port, server.token(operations=["list"]))
    assert lister.ask("is_model_ready", "versioned") is True
    with pytest.raises(InferenceServerException, match="does not allow the operation 'infer'") as error:
        lister.infer("versioned", x)
    assert error.value.status() == "403"


def test_rates_hold(models: Demo, client: Client) -> None:
    limited = Client(client.kind, client.port, models.server.token(rate=["2/hour"]))
    x = {"x": np.ones((1, 4), np.float32)}
    limited.infer("versioned", x)
    assert limited.ask("is_model_ready", "versioned") is True
    with pytest.raises(InferenceServerException, match="rate of 2 per") as error:
        limited.infer("versioned", x)
    assert error.value.status() == "429"


# Statistics


def test_statistics_count_what_was_done(models: Demo, client: Client) -> None:
    models.server.upload(f"counted-{client.kind}", oip_models.times(2))
    models.server.deploy(f"counted-{client.kind}")
    name = f"counted-{client.kind}"
    for rows in (1, 1, 3):
        client.infer(name, {"x": np.ones((rows, 4), np.float32)})
    models.server.infer(name, models.token, json={"inputs": {"x": [[1, 2, 3, 4]]}})
    for _ in range(2):
        with pytest.raises(InferenceServerException):
            client.infer(name, {"x": np.ones((1, 7), np.float32)})
    stats = client.ask("get_inference_statistics", name)["model_stats"]
    assert client.ask("get_inference_statistics", name, "1")["model_stats"] == stats
    assert len(stats) == 1
    one = stats[0]
    assert (one["name"], one["version"]) == (name, "1")
    assert one["inference_count"] == 6
    assert one["execution_count"] == 4
    assert abs(one["last_inference"] - time.time() * 1000) < 60_000
    parts = one["inference_stats"]
    assert parts["success"]["count"] == 4
    assert parts["fail"]["count"] == 2
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert parts[part]["count"] == 4
    assert 0 < parts["compute_infer"]["ns"] < parts["success"]["ns"]
    assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in one["batch_stats"]] == [
        (1, 3),
        (3, 1),
    ]
    assert all(batch["compute_infer"]["ns"] > 0 for batch in one["batch_stats"])
    everything = client.ask("get_inference_statistics")["model_stats"]
    assert one in everything
    assert {entry["name"] for entry in everything} >= {"versioned", "every", name}


# Time and order


def _two_long_calls(slow: Slow) -> list[Future[httpx.Response]]:
    """One that runs and one that waits, whichever came first."""
    calls = [slow.begin(2), slow.begin(2)]
    wait_until("A request that waits", lambda: slow.server.observed("slow")["queue"]["depth"] == 1)
    return calls


def test_a_timeout_is_kept_and_frees_the_caller(slow: Slow) -> None:
    client = Client("sync", slow.server.port, slow.token)
    calls = _two_long_calls(slow)
    with pytest.raises(InferenceServerException, match="The deadline passed") as error:
        client.infer("slow", {"n": np.ones((1, 1), np.int64)}, timeout=100_000)
    assert error.value.status() == "503"
    assert not all(call.done() for call in calls), "it did not wait for those before it"
    assert [call.result().status_code for call in calls] == [200, 200]
    assert client.infer("slow", {"n": np.ones((1, 1), np.int64)}, timeout=5_000_000).as_numpy("y")[0, 0] == 1


def test_urgent_requests_go_first(slow: Slow) -> None:
    ended: list[str] = []
    urgent = slow.server.token(priority=2)

    def call(name: str, priority: int) -> None:
        client = Client("sync", slow.server.port, urgent if name == "of an urgent token" else slow.token)
        client.infer("slow", {"n": np.full((1, 1), 40, np.int64)}, priority=priority)
        ended.append(name)

    busy = _two_long_calls(slow)
    calls = []
    asked = [("late", 10), ("usual", 0), ("of an urgent token", 0), ("first", 1)]
    for depth, (name, priority) in enumerate(asked, 2):
        calls.append(slow.threads.submit(call, name, priority))
        wait_until(
            "A request that waits", lambda depth=depth: slow.server.observed("slow")["queue"]["depth"] == depth
        )
    assert not all(call.done() for call in busy)
    for one in calls:
        one.result(20)
    assert ended == ["first", "of an urgent token", "usual", "late"]


def test_a_full_queue_says_503(slow: Slow) -> None:
    slow.deploy(queue_size=2)
    client = Client("sync", slow.server.port, slow.token)
    calls = [*_two_long_calls(slow), slow.begin(0.01)]
    wait_until("A full queue", lambda: slow.server.observed("slow")["queue"]["depth"] == 2)
    with pytest.raises(InferenceServerException, match="queue is full") as error:
        client.infer("slow", {"n": np.ones((1, 1), np.int64)})
    assert error.value.status() == "503"
    assert [call.result().status_code for call in calls] == [200, 200, 200]


def test_the_example_of_the_documentation(models: Demo) -> None:
    page = (ROOT / "docs/oip.md").read_text()
    code, printed = (re.findall(rf"```{kind}\n(.*?)```", page, re.S)[0] for kind in ("python", "text"))
    code = code.replace("127.0.0.1:8000", f"127.0.0.1:{models.server.port}").replace("pv_…", models.token)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == printed, done.stderr
