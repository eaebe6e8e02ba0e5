"""What is tried because it is installed here."""

from __future__ import annotations

import pytest

from core.engines.base import EngineInfo
from core.optimiser.installed import installed_variants

ONNX = EngineInfo("onnx", available=True, devices=("cpu",))
ON_GPU = EngineInfo("onnx", available=True, devices=("cpu", "cuda:0"))
HOUSE = EngineInfo("house", available=True, devices=("cpu", "npu"), precisions=("fp16", "fp32"))
COARSE = EngineInfo("coarse", available=True, devices=("cpu",), precisions=("int8",))
GONE = EngineInfo("gone", available=False, reason="away")
OUTSIDE = {"house": ("onnx",), "coarse": ("onnx", "house"), "gone": ("onnx",)}
ALL = ("cpu", "openvino", "cuda", "tensorrt")


@pytest.mark.parametrize(
    ("providers", "infos", "labels"),
    [
        (("cpu",), [ONNX], []),
        (("cpu", "openvino"), [ONNX], ["onnx with openvino, bf16", "onnx with openvino, fp32"]),
        (ALL, [ONNX], ["onnx with openvino, bf16", "onnx with openvino, fp32"]),
        (
            ALL[2:],
            [ON_GPU],
            ["onnx with tensorrt, fp16 on cuda:0", "onnx with tensorrt, fp32 on cuda:0"],
        ),
        (ALL, [], []),
        (("cpu",), [ONNX, HOUSE, COARSE, GONE], ["house fp32", "house fp32 on npu", "coarse int8"]),
    ],
)
def test_what_is_there_is_tried(providers: tuple[str, ...], infos: list[EngineInfo], labels: list[str]) -> None:
    found = installed_variants("onnx", providers, OUTSIDE, infos)
    assert [one.label for one in found] == labels


def test_other_formats_and_what_is_asked_for_narrow_it_down() -> None:
    infos = [ONNX, HOUSE, COARSE]
    assert [one.label for one in installed_variants("house", ALL, OUTSIDE, infos)] == ["coarse int8"]
    assert [one.engine for one in installed_variants("onnx", ALL, OUTSIDE, infos, ["house"])] == ["house"] * 2
    found = installed_variants("onnx", ALL, OUTSIDE, infos, [], ["bf16", "int8"])
    assert [one.label for one in found] == ["onnx with openvino, bf16", "coarse int8"]
