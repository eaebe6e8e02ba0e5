"""The Open Inference Protocol v2 byte by byte: what a careless or hostile caller may send, and what comes back."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import httpx
import numpy as np
import pytest

from tests.acceptance.answers import refused
from tests.conftest import Demo

LENGTH = "Inference-Header-Content-Length"
ROW = struct.pack("<4f", 1, 2, 3, 4)


def _post(demo: Demo, body: bytes, headers: dict[str, str] | None = None, model: str = "scale") -> httpx.Response:
    request = demo.server.client.build_request(
        "POST",
        f"/v2/models/{model}/infer",
        content=body,
        headers={"X-Access-Token": demo.token, "Accept-Encoding": "identity", **(headers or {})},
    )
    assert "content-type" not in request.headers
    return demo.server.client.send(request)


def _x(**changes: Any) -> dict[str, Any]:
    made = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4], **changes}
    return {key: value for key, value in made.items() if value is not ...}


def _json(*inputs: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def _binary(header: bytes, data: bytes, **headers: str) -> tuple[bytes, dict[str, str]]:
    return header + data, {LENGTH: str(len(header)), **headers}


BINARY_X = _x(data=..., parameters={"binary_data_size": 16})


# What is right


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2, 3, 4]], [[1, 2], [3, 4]], [1.0, 2, 3.0, 4]])
def test_json_data_is_flat_or_nested(tensors: Demo, data: Any) -> None:
    answer = _post(tensors, _json(_x(data=data), id="7", model_name="ignored"))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert LENGTH not in answer.headers
    output = {"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2.0, 4.0, 6.0, 8.0]}
    assert answer.json() == {"model_name": "scale", "model_version": "1", "id": "7", "outputs": [output]}


def test_binary_in_and_out(tensors: Demo) -> None:
    body, headers = _binary(_json(BINARY_X, parameters={"binary_data_output": True}), ROW)
    answer = _post(tensors, body, headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    told = json.loads(answer.content[:length])
    assert told["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert answer.content[length:] == struct.pack("<4f", 2, 4, 6, 8)
    assert int(answer.headers["content-length"]) == length + 16


def test_an_output_overrides_what_is_said_for_all(tensors: Demo) -> None:
    wanted = [{"name": "y", "parameters": {"binary_data": False}}]
    answer = _post(tensors, _json(_x(), outputs=wanted, parameters={"binary_data_output": True}))
    assert answer.json()["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0]


def test_without_binary_data_output_the_answer_is_json(tensors: Demo) -> None:
    answer = _post(tensors, *_binary(_json(BINARY_X), ROW))
    assert answer.json()["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0]


def test_nan_is_answered_as_valid_json(tensors: Demo) -> None:
    answer = _post(tensors, _json(_x(shape=[1, 2], data=[0, 1])), model="ratio")
    assert answer.json()["outputs"][0]["data"] == [None, 1.0]


def test_an_input_may_lie_anywhere_in_memory(tensors: Demo) -> None:
    # One blank more or less moves the binary data off its alignment.
    for blanks in range(4):
        body, headers = _binary(_json(BINARY_X) + b" " * blanks, ROW)
        assert _post(tensors, body, headers).json()["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_bodies(tensors: Demo, coding: str, pack: Any) -> None:
    body, headers = _binary(_json(BINARY_X), ROW)
    answer = _post(tensors, pack(body), {**headers, "Content-Encoding": coding})
    assert answer.json()["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.1, deflate;q=0.9", "deflate"),
        ("gzip;q=0", None),
        ("identity, gzip;q=0.5", None),
        ("br", None),
        ("identity", None),
    ],
)
def test_packed_answers(tensors: Demo, accept: str, coding: str | None) -> None:
    rows = np.ones((1000, 4), np.float32)
    header = _json(_x(shape=[1000, 4], data=..., parameters={"binary_data_size": rows.nbytes}), id="9")
    body, headers = _binary(header, rows.tobytes())
    answer = _post(tensors, body, {**headers, "Accept-Encoding": accept})
    assert answer.headers.get("content-encoding") == coding
    assert answer.json()["outputs"][0]["data"] == [2.0] * 4000  # the client unpacks


def test_small_answers_are_not_worth_packing(tensors: Demo) -> None:
    answer = _post(tensors, _json(_x()), {"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert answer.json()["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0]


def test_the_index_lists_what_is_ready(tensors: Demo) -> None:
    for body in (b"", b"{}", b'{"ready": true}'):
        answer = tensors.server.client.post(
            "/v2/repository/index", content=body, headers={"X-Access-Token": tensors.token}
        )
        assert {"scale", "ratio"} <= {entry["name"] for entry in answer.json()}, body
        assert "idle" not in {entry["name"] for entry in answer.json()}
    for body in (b"[", b"[]", b'{"ready": 1}'):
        answer = tensors.server.client.post(
            "/v2/repository/index", content=body, headers={"X-Access-Token": tensors.token}
        )
        refused(answer, 400)


# What is wrong


WRONG: dict[str, tuple[bytes, dict[str, str], str]] = {
    "nothing": (b"", {}, "not valid JSON"),
    "no JSON": (b"\xff\xfe", {}, "not valid JSON"),
    "depth": (b'{"inputs":' + b"[" * 100_000, {}, "not valid JSON"),
    "NaN": (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}', {}, "not valid JSON"),
    "a list": (b"[]", {}, "must be a JSON object"),
    "no inputs": (b"{}", {}, "must have `inputs`"),
    "empty inputs": (_json(), {}, "must have `inputs`"),
    "inputs of another kind": (b'{"inputs": {"x": 1}}', {}, "must have `inputs`"),
    "an input of another kind": (_json("x"), {}, "Each of `inputs` must be a JSON object"),
    "no name": (_json(_x(name=...)), {}, "Input 'None' is not known"),
    "an unknown input": (_json(_x(name="z")), {}, "Input 'z' is not known; the model takes x"),
    "an input twice": (_json(_x(), _x()), {}, "is there twice"),
    "no datatype": (_json(_x(datatype=...)), {}, "`datatype` of input 'x' is none of"),
    "an unknown datatype": (_json(_x(datatype="FP8")), {}, "`datatype` of input 'x' is none of"),
    "another datatype": (_json(_x(datatype="INT8")), {}, "is FP32, but came as INT8"),
    "no shape": (_json(_x(shape=...)), {}, "must be a list of whole numbers"),
    "a fraction in the shape": (_json(_x(shape=[1.0, 4])), {}, "must be a list of whole numbers"),
    "true in the shape": (_json(_x(shape=[True, 4])), {}, "must be a list of whole numbers"),
    "a negative side": (_json(_x(shape=[-1, 4])), {}, "has a dimension of -1"),
    "an overflowing shape": (_json(_x(shape=[2**31 - 1] * 8)), {}, "values, but came with 4"),
    "a long side": (_json(_x(shape=[2**40, 4])), {}, "has a dimension of 1099511627776"),
    "an endless side": (_json(_x(shape=[2**70, 4])), {}, "must be a list of whole numbers"),
    "many dimensions": (_json(_x(shape=[1] * 40)), {}, "more than 32 dimensions"),
    "no element, and too large": (
        _json(_x(shape=[0, 2**31 - 1, 2**31 - 1, 2**31 - 1], data=[])),
        {},
        "is too large",
    ),
    "no data": (_json(_x(data=...)), {}, "neither `data` nor the parameter"),
    "data of another kind": (_json(_x(data="1234")), {}, "`data` of input 'x' must be a list"),
    "texts": (_json(_x(data=["1", "2", "3", "4"])), {}, "is not FP32"),
    "null": (_json(_x(data=[1, 2, 3, None])), {}, "is not FP32"),
    "ragged rows": (_json(_x(data=[[1, 2, 3], [4]])), {}, "is not FP32"),
    "too large a number": (_json(_x(data=[1, 2, 3, 1e39])), {}, "is not FP32"),
    "deeply nested data": (
        b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":'
        + b"[" * 200
        + b"1"
        + b"]" * 200
        + b"}]}",
        {},
        "is not FP32",
    ),
    "too few values": (_json(_x(data=[1, 2, 3])), {}, "takes 4 values, but came with 3"),
    "too many values": (_json(_x(data=[1, 2, 3, 4, 5])), {}, "takes 4 values, but came with 5"),
    "another shape than the model's": (
        _json(_x(shape=[4], data=[1, 2, 3, 4])),
        {},
        "must be FP32 of shape [-1, 4]",
    ),
    "an id of another kind": (_json(_x(), id=7), {}, "`id` of the request must be a string"),
    "an endless id": (_json(_x(), id="x" * 2000), {}, "`id` of the request must be a string"),
    "parameters of another kind": (_json(_x(), parameters=[]), {}, "`parameters` of the request"),
    "a negative priority": (_json(_x(), parameters={"priority": -1}), {}, "`priority` must be a whole number"),
    "a timeout in words": (_json(_x(), parameters={"timeout": "1s"}), {}, "`timeout` must be a whole number"),
    "a flag that is none": (_json(_x(), parameters={"binary_data_output": 1}), {}, "must be true or false"),
    "outputs of another kind": (_json(_x(), outputs={}), {}, "`outputs` must be a list"),
    "an unknown output": (_json(_x(), outputs=[{"name": "q"}]), {}, "Output 'q' is not known; the model gives y"),
    "an output twice": (_json(_x(), outputs=[{"name": "y"}, {"name": "y"}]), {}, "is asked for twice"),
    "classification": (
        _json(_x(), outputs=[{"name": "y", "parameters": {"classification": 2}}]),
        {},
        "classification extension is not supported",
    ),
    "a header length beyond the body": (_json(_x()), {LENGTH: "100000"}, "but the body has only"),
    "a header length of words": (_json(_x()), {LENGTH: "ten"}, "must be a whole number of bytes"),
    "a negative header length": (_json(_x()), {LENGTH: "-1"}, "must be a whole number of bytes"),
    "an endless header length": (_json(_x()), {LENGTH: "9" * 40}, "must be a whole number of bytes"),
    "a header length of nothing": (_json(_x()), {LENGTH: "0"}, "not valid JSON"),
    "a header cut short": (_json(_x()), {LENGTH: "10"}, "not valid JSON"),
    "binary data without the header": (_json(BINARY_X) + ROW, {}, "not valid JSON"),
    "a binary size without binary data": (_json(BINARY_X), {}, "needs the header Inference-Header-Content-Length"),
    "data twice": (
        *_binary(_json(_x(parameters={"binary_data_size": 16})), ROW),
        "both `data` and the parameter",
    ),
    "a binary size beyond the body": (*_binary(_json(BINARY_X), ROW[:12]), "but only 12 bytes are left"),
    "binary data left over": (
        *_binary(_json(BINARY_X), ROW + b"more"),
        "4 bytes of binary data that belong to no",
    ),
    "a binary size of another shape": (
        *_binary(_json(_x(shape=[2, 4], data=..., parameters={"binary_data_size": 16})), ROW),
        "takes 32 bytes of binary data, but came with 16",
    ),
    "a negative binary size": (
        *_binary(_json(_x(data=..., parameters={"binary_data_size": -16})), ROW),
        "`binary_data_size` must be a whole number",
    ),
    "an overflowing binary shape": (
        *_binary(_json(_x(shape=[2**31 - 1] * 8, data=..., parameters={"binary_data_size": 16})), ROW),
        "bytes of binary data, but came with 16",
    ),
    "no gzip": (_json(_x()), {"Content-Encoding": "gzip"}, "is not valid gzip"),
    "gzip cut short": (gzip.compress(_json(_x()))[:-9], {"Content-Encoding": "gzip"}, "ends too early"),
    "more after the gzip": (gzip.compress(_json(_x())) + b"x", {"Content-Encoding": "gzip"}, "after its end"),
    "no deflate": (_json(_x()), {"Content-Encoding": "deflate"}, "is not valid deflate"),
    "an unknown coding": (_json(_x()), {"Content-Encoding": "br"}, "may be gzip, deflate or identity"),
    "a gzip bomb": (gzip.compress(bytes(64 << 20), 9), {"Content-Encoding": "gzip"}, "unpacks to more than"),
    "a deflate bomb": (zlib.compress(bytes(64 << 20), 9), {"Content-Encoding": "deflate"}, "unpacks to more than"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_a_clear_400(tensors: Demo, case: str) -> None:
    body, headers, says = WRONG[case]
    refused(_post(tensors, body, headers), 400, None, says)
    assert _post(tensors, _json(_x())).status_code == 200


def test_the_bombs_are_bombs() -> None:
    for case in ("a gzip bomb", "a deflate bomb"):
        body = WRONG[case][0]
        assert len(zlib.decompress(body, 47)) > 32 << 20 > 100 * len(body)


def test_too_large_a_body_is_a_400(tensors: Demo) -> None:
    refused(_post(tensors, bytes(33 << 20)), 400, None, "larger than the 32 MiB")
    answer = tensors.server.client.post(
        "/v2/repository/index", content=bytes(2 << 20), headers={"X-Access-Token": tensors.token}
    )
    refused(answer, 400, None, "is larger than")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_refused(tensors: Demo, method: str) -> None:
    headers = {"X-Access-Token": tensors.token}
    answer = tensors.server.client.request(method, "/v2/models/scale/infer", headers=headers)
    refused(answer, 405, None, "takes POST")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/v2/models/scale/versions/1/load", "/v2/systemsharedmemory/status", "/v2/models/a%2fb/infer"]
)
def test_unknown_paths_are_404_in_the_protocols_words(tensors: Demo, path: str) -> None:
    refused(tensors.server.client.post(path, headers={"X-Access-Token": tensors.token}), 404)


def test_what_this_token_may_not_see_is_not_there(tensors: Demo) -> None:
    token = tensors.server.token(models=["ratio"])
    for path in ("", "/ready", "/config", "/stats", "/versions/1", "/versions/1/stats"):
        there = tensors.server.client.get(f"/v2/models/scale{path}", headers={"X-Access-Token": token})
        nowhere = tensors.server.client.get(f"/v2/models/absent{path}", headers={"X-Access-Token": token})
        assert there.status_code == nowhere.status_code == 404
        assert there.json()["error"].replace("scale", "absent") == nowhere.json()["error"]
    stats = tensors.server.client.get("/v2/models/stats", headers={"X-Access-Token": token}).json()
    assert {entry["name"] for entry in stats["model_stats"]} == {"ratio"}


def test_limits_are_told_and_held(tensors: Demo) -> None:
    headers = {"X-Access-Token": tensors.server.token(rate=["3/hour"])}
    for left in ("2", "1"):
        answer = _post(tensors, _json(_x()), headers)
        assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (200, left)
    told = tensors.server.client.get("/v2/models/scale", headers=headers)
    assert (told.status_code, told.headers["x-ratelimit-remaining"]) == (200, "0")
    answer = _post(tensors, _json(_x()), headers)
    refused(answer, 429, None, "rate of 3 per")
    assert int(answer.headers["retry-after"]) > 0


def test_the_document_describes_it(tensors: Demo) -> None:
    paths = tensors.server.client.get("/docs/external/openapi.json").json()["paths"]
    infer = paths["/v2/models/{model}/versions/{version}/infer"]["post"]
    assert set(infer["responses"]) == {"200", "400", "401", "403", "404", "429", "500", "503", "default"}
    for path, operations in paths.items():
        for operation in operations.values():
            if path.startswith("/v2/health"):
                assert "security" not in operation
            elif path.startswith("/v2"):
                assert operation["security"] == [{"AccessToken": []}, {"Bearer": []}]
                assert "422" not in operation["responses"]
                for status in ("401", "404", "default"):
                    schema = operation["responses"][status]["content"]["application/json"]["schema"]
                    assert schema["$ref"].endswith("/OipError")
