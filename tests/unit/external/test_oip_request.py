from __future__ import annotations

import json
from typing import Any

import pytest

from app.external.oip_answer import render_infer
from app.external.oip_request import OipCall, RequestedOutput, read_infer, read_timeout_s
from core.errors import BadRequest, RunFailed
from core.serving.request import InferenceResult, Timing
from core.signature import Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec("a", "INT8", (-1,)), TensorSpec("b", "INT16", (-1,))),
    (TensorSpec("c", "INT8", (-1,)), TensorSpec("d", "INT8", (-1,))),
)
A = {"name": "a", "shape": [1], "datatype": "INT8", "data": [7]}


def _read(**call: Any) -> OipCall:
    return read_infer(SIGNATURE, json.dumps({"inputs": [A], **call}).encode(), None)


def test_binary_tensors_follow_in_the_order_of_the_inputs() -> None:
    def described(name: str, datatype: str, size: int) -> dict[str, Any]:
        return {"name": name, "shape": [2], "datatype": datatype, "parameters": {"binary_data_size": size}}

    header = json.dumps({"inputs": [described("b", "INT16", 4), described("a", "INT8", 2)]}).encode()
    call = read_infer(SIGNATURE, header + b"\1\0\2\0\3\4", len(header))
    assert {name: array.tolist() for name, array in call.inputs.items()} == {"b": [1, 2], "a": [3, 4]}


@pytest.mark.parametrize(
    ("given", "ours"),
    [(None, None), (0, None), (1, 0), (2, 1), (10, 9), (11, 9), (2**62, 9)],
)
def test_priorities(given: int | None, ours: int | None) -> None:
    assert _read(parameters={"priority": given}).priority == ours


@pytest.mark.parametrize(("given", "seconds"), [(None, None), (0, None), (1, 1e-6), (2_500_000, 2.5)])
def test_timeouts_are_in_microseconds(given: int | None, seconds: float | None) -> None:
    assert _read(parameters={"timeout": given}).timeout_s == seconds


@pytest.mark.parametrize(
    ("head", "header_bytes", "whole", "seconds"),
    [
        (b'{"parameters": {"timeout": 2000000}}', None, True, 2.0),
        (b'{"parameters": {"timeout": 2000000}}\x00\x01', 36, False, 2.0),
        (b'{"parameters": {"timeout": 2000000}}', None, False, None),
        (b'{"parameters": {"timeout": 2000000}}', 37, False, None),
        (b'{"parameters": {"timeout": "soon"}}', None, True, None),
        (b'{"parameters": 3}', None, True, None),
        (b"[1]", None, True, None),
        (b"no JSON", None, True, None),
        (b"", None, True, None),
    ],
)
def test_a_timeout_is_found_in_the_head_of_a_body(
    head: bytes, header_bytes: int | None, whole: bool, seconds: float | None
) -> None:
    assert read_timeout_s(head, header_bytes, whole=whole) == seconds


@pytest.mark.parametrize("value", [-1, 1.5, "1", True])
@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_parameters_of_another_kind(name: str, value: Any) -> None:
    with pytest.raises(BadRequest, match=f"`{name}` must be a whole number"):
        _read(parameters={name: value})


def test_parameters_that_are_not_known_are_left_alone() -> None:
    assert _read(parameters={"mine": {"deep": [1]}, "sequence_id": 0, "sequence_start": False}).priority is None


@pytest.mark.parametrize(
    ("outputs", "parameters", "wanted"),
    [
        (None, {}, [("c", False), ("d", False)]),
        ([], {"binary_data_output": True}, [("c", True), ("d", True)]),
        ([{"name": "d"}], {"binary_data_output": True}, [("d", True)]),
        ([{"name": "d"}, {"name": "c", "parameters": {"binary_data": True}}], {}, [("d", False), ("c", True)]),
        ([{"name": "c", "parameters": {"binary_data": False}}], {"binary_data_output": True}, [("c", False)]),
    ],
)
def test_outputs(outputs: Any, parameters: dict[str, Any], wanted: list[tuple[str, bool]]) -> None:
    call = _read(outputs=outputs, parameters=parameters)
    assert call.outputs == [RequestedOutput(name, binary) for name, binary in wanted]


def test_an_answer_that_lacks_an_output_is_the_models_fault() -> None:
    result = InferenceResult("m", 1, "tensor", Timing(), outputs={})
    with pytest.raises(RunFailed, match="did not answer output 'c'"):
        render_infer(_read(), result)
