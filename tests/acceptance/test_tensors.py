"""Tensors in JSON, right and wrong, for models of the task `tensor`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.answers import refused
from tests.acceptance.pictures import CAT_JPEG
from tests.conftest import Demo

RIGHT: dict[str, Any] = {
    "by name": {"x": [[1, 2, 3, 4]]},
    "as a list of tensors": [{"name": "x", "shape": [1, 4], "data": [1, 2, 3, 4]}],
    "nested, in a list of tensors": [{"name": "x", "data": [[1, 2, 3, 4]]}],
    "alone, for there is one input": [[1, 2, 3, 4]],
}


@pytest.mark.parametrize("way", RIGHT)
def test_the_ways_to_write_a_tensor(tensors: Demo, way: str) -> None:
    answer = tensors.server.infer("scale", tensors.token, json={"inputs": RIGHT[way]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"] == [{"name": "y", "dtype": "FP32", "shape": [1, 4], "data": [2, 4, 6, 8]}]


def test_a_batch_in_one_request(tensors: Demo) -> None:
    rows = [[i, i, i, i] for i in range(100)]
    answer = tensors.server.infer("scale", tensors.token, json={"inputs": {"x": rows}})
    output = answer.json()["outputs"][0]
    assert output["shape"] == [100, 4]
    assert output["data"] == [2 * value for row in rows for value in row]


WRONG: dict[str, tuple[Any, tuple[str, ...]]] = {
    "three columns": ({"x": [[1, 2, 3]]}, ("'x'", "FP32", "[-1, 4]", "[1, 3]")),
    "one axis": ({"x": [1, 2, 3, 4]}, ("'x'", "FP32", "[-1, 4]", "[4]")),
    "no rows": ({"x": []}, ("'x'", "[-1, 4]")),
    "text": ({"x": [["a", "b", "c", "d"]]}, ("'x'", "FP32", "[-1, 4]")),
    "rows of different lengths": ({"x": [[1, 2, 3, 4], [1]]}, ("'x'", "FP32", "length")),
    "null": ({"x": None}, ("'x'", "FP32", "[-1, 4]")),
    "an object": ({"x": {"a": 1}}, ("'x'", "FP32", "[-1, 4]")),
    "another name": ({"z": [[1, 2, 3, 4]]}, ("'z'", "takes x")),
    "one too many": ({"x": [[1, 2, 3, 4]], "z": [1]}, ("'z'", "takes x")),
    "none": ({}, ("'x'", "missing")),
    "a wrong shape": ([{"name": "x", "shape": [2, 4], "data": [1, 2, 3, 4]}], ("'x'", "4 values", "[2, 4]")),
    "a negative shape": ([{"name": "x", "shape": [-1, 4], "data": [1, 2, 3, 4]}], ("'x'", "not negative")),
    "a shape that overflows": ([{"name": "x", "shape": [2**62, 4], "data": [1]}], ("'x'", "1 values")),
    "a number alone": (3, ("x",)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_tensor_is_told_what_was_expected_and_what_came(tensors: Demo, kind: str) -> None:
    inputs, says = WRONG[kind]
    answer = tensors.server.infer("scale", tensors.token, json={"inputs": inputs})
    refused(answer, 422, "invalid_input", *says)


def test_media_is_not_what_a_tensor_model_takes(tensors: Demo) -> None:
    answer = tensors.server.infer("scale", tensors.token, content=CAT_JPEG)
    refused(answer, 415, "unsupported_media", "tensors")
    answer = tensors.server.infer("scale", tensors.token, files={"image": CAT_JPEG})
    refused(answer, 415, "unsupported_media", "tensors")


def test_what_is_not_a_number_is_null(tensors: Demo) -> None:
    answer = tensors.server.infer("ratio", tensors.token, json={"inputs": {"x": [[0, 2]]}})
    assert answer.status_code == 200, answer.text

    def never(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(answer.content, parse_constant=never)["outputs"][0]["data"] == [None, 1.0]


@pytest.mark.parametrize("query", ["", "?version=1"])
def test_a_model_that_keeps_nothing_takes_no_sequence(tensors: Demo, query: str) -> None:
    """Neither on the short way, which calls without a version go, nor on the long one."""
    call = {"inputs": {"x": [[1, 2, 3, 4]]}}
    says = "takes no sequences"
    headers = {"X-Sequence-ID": "mine", "X-Sequence-Start": "true"}
    answer = tensors.server.infer("scale", tensors.token, json=call, query=query, headers=headers)
    refused(answer, 422, "invalid_input", says)
    call["parameters"] = {"sequence_id": "mine"}
    refused(tensors.server.infer("scale", tensors.token, json=call, query=query), 422, "invalid_input", says)
