"""What is worth trying, in which order."""

from __future__ import annotations

import pytest

from core.optimiser.candidate import Candidate, Setting, Variant
from core.optimiser.space import (
    Here,
    candidate,
    first_setting,
    must_be_judged,
    other_settings,
    reference,
    variants,
)

HERE = Here(
    {"onnx": ["cpu"], "openvino": ["cpu"]},
    {"openvino": ["fp32", "bf16", "int8"]},
    ["simplified", "fp16", "int8-dynamic", "int8-static", "int8-mixed", "bf16-compensated", "bf16-mixed"],
    4,
)
GPU = Here({"onnx": ["cpu", "cuda:0"], "tensorrt": ["cuda:0"]}, {}, ["fp16"], 4)


def _labels(found: list[Variant]) -> list[str]:
    return [variant.label for variant in found]


def test_promising_ones_come_first_and_the_impossible_are_left_out() -> None:
    assert _labels(variants("onnx", HERE)) == [
        "openvino bf16",
        "onnx int8 (int8-dynamic)",
        "openvino bf16 (bf16-compensated)",
        "openvino bf16 (bf16-mixed)",
        "onnx int8 (int8-static)",
        "openvino int8 (int8-static)",
        "onnx int8 (int8-mixed)",
        "openvino int8 (int8-mixed)",
        "openvino fp32",
        "onnx fp32 (simplified)",
        "onnx fp16 (fp16)",
    ]
    half = Here(HERE.devices, {"openvino": ["fp32", "fp16"]}, [], 4)
    assert _labels(variants("onnx", half)) == ["openvino fp16", "openvino fp32"]
    old = Here(HERE.devices, {"openvino": ["fp32"]}, ["simplified"], 4)
    assert _labels(variants("onnx", old)) == ["openvino fp32", "onnx fp32 (simplified)"]
    assert _labels(variants("onnx", GPU))[:2] == ["tensorrt fp16 on cuda:0", "onnx fp16 (fp16) on cuda:0"]


@pytest.mark.parametrize(
    ("engines", "precisions", "found"),
    [
        (
            ["openvino"],
            ["bf16"],
            ["openvino bf16", "openvino bf16 (bf16-compensated)", "openvino bf16 (bf16-mixed)"],
        ),
        (["onnx"], ["fp32"], ["onnx fp32 (simplified)"]),
        ([], ["fp16"], ["onnx fp16 (fp16)"]),
        (["torch"], [], []),
    ],
)
def test_what_is_asked_for_narrows_it_down(engines: list[str], precisions: list[str], found: list[str]) -> None:
    assert _labels(variants("onnx", HERE, engines, precisions)) == found


def test_a_format_without_a_reference_has_nothing_to_try() -> None:
    assert reference("gguf") is None
    assert variants("gguf", HERE) == []


@pytest.mark.parametrize(
    ("objective", "first", "others"),
    [
        ("latency", Setting(4, 1, 1), [Setting(1, 1, 1)]),
        ("memory", Setting(4, 1, 1), [Setting(1, 1, 1)]),
        ("throughput", Setting(1, 4, 1), [Setting(1, 4, 8), Setting(1, 4, 32), Setting(4, 1, 8)]),
    ],
)
def test_settings_by_objective(objective: str, first: Setting, others: list[Setting]) -> None:
    assert first_setting(objective, Variant("onnx"), 4) == first  # type: ignore[arg-type]
    assert other_settings(objective, Variant("onnx"), 4, True, 32) == others  # type: ignore[arg-type]


def test_a_model_that_does_not_batch_is_tried_with_one_item() -> None:
    assert other_settings("throughput", Variant("onnx"), 4, False, 32) == []
    assert [one.batch for one in other_settings("throughput", Variant("onnx"), 4, True, 8)] == [8, 8]


def test_only_what_rounds_must_be_judged() -> None:
    assert [must_be_judged(Variant("onnx", "", precision)) for precision in ("fp32", "bf16", "fp16", "int8")] == [
        *(False, True, True, True)
    ]


def test_a_candidate_comes_back_from_json() -> None:
    one = candidate(Variant("openvino", "int8-static", "int8", (("hint", "latency"),)), "latency", 2)
    assert Candidate.from_json(one.to_json()) == one
    assert one.label == "openvino int8 (int8-static), 2 threads, 1 slot, batches of 1"
