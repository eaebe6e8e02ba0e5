"""Bfloat16 with the first layers at 32 bits, as OpenVINO runs it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from core.engines.base import EngineOptions
from core.engines.openvino import OpenvinoEngine
from core.errors import ConversionFailed
from core.optimiser.bf16_mixed import mark
from core.optimiser.conversion import convert
from tests.unit.optimiser import models
from tests.unit.optimiser.test_conversion import PICTURE

IR = """<net><layers>
  <layer type="Parameter"/><layer type="Const"/>
  <layer type="Convolution"><data strides="1"/><input/></layer><layer type="Add"/>
  <layer type="GroupConvolution"><rt_info><attribute name="other"/></rt_info></layer><layer type="Clamp"/>
  <layer type="Convolution"/><layer type="Result"/>
</layers></net>"""


def has_bf16() -> bool:
    return "bf16" in OpenvinoEngine.info().precisions


def marked(root: Any) -> list[str]:
    return [
        str(one.get("type")) for one in root.iter("layer") if one.find("rt_info/attribute[@value]") is not None
    ]


def answers(path: Path, feeds: Any, precision: str) -> Any:
    engine = OpenvinoEngine()
    engine.load(path, EngineOptions(threads=1, extra={"precision": precision}))
    found = np.concatenate([engine.run(feed)["y"] for feed in feeds])
    engine.close()
    return found


def test_all_operations_up_to_the_next_layer_are_marked() -> None:
    tree = ElementTree.ElementTree(ElementTree.fromstring(IR))
    assert mark(tree, 2) == 4
    root = tree.getroot()
    assert root is not None
    assert marked(root) == ["Convolution", "Add", "GroupConvolution", "Clamp"]
    first = root.find("layers/layer[@type='Convolution']")
    assert first is not None
    assert [child.tag for child in first] == ["data", "rt_info", "input"], "in the order that the schema asks for"


def sensitive(folder: Path) -> Path:
    """The deep network, with a first layer whose large numbers take each other away, which bfloat16 blurs."""
    path = models.deep(folder)
    model = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    first, bias = (numpy_helper.to_array(tensors[name]).copy() for name in ("w0", "b0"))
    first[:, 0], first[:, 1] = first[:, 0] + 30, first[:, 1] - 30
    tensors["w0"].CopyFrom(numpy_helper.from_array(first, "w0"))
    tensors["b0"].CopyFrom(numpy_helper.from_array(bias, "b0"))
    onnx.save(model, path)
    return path


def alike(count: int) -> list[dict[str, Any]]:
    """Pictures whose first two channels are nearly the same."""
    feeds = list(models.feeds(count, *PICTURE))
    for feed in feeds:
        feed["x"][:, 1] = feed["x"][:, 0] * 1.003 + 0.02
    return feeds


@pytest.mark.skipif(not has_bf16(), reason="the processor does not compute in bfloat16")
def test_the_first_layers_are_computed_at_32_bits(tmp_path: Path) -> None:
    source, feeds = sensitive(tmp_path), alike(64)
    made = convert("bf16-mixed", source, tmp_path / "into", feeds[:32])
    assert made.format == "openvino"
    assert {path.name for path in made.path.parent.iterdir()} == {"model.xml", "model.bin"}
    kept = made.notes["kept_at_fp32"]
    assert kept[:3] == ["c0", "c1", "c2"]
    errors = made.notes["error_by_layers_kept"]
    assert errors["3"] < 0.75 * errors["0"]
    judging = feeds[32:]
    wanted = answers(source, judging, "fp32")
    plain, mixed = (np.abs(answers(path, judging, "bf16") - wanted).mean() for path in (source, made.path))
    assert mixed < plain / 2


@pytest.mark.skipif(not has_bf16(), reason="the processor does not compute in bfloat16")
def test_too_few_samples(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match="bf16-mixed measures layers on 16 samples at least and got 3"):
        convert("bf16-mixed", models.pictures(tmp_path), tmp_path / "into", list(models.feeds(3, *PICTURE)))


@pytest.mark.skipif(not has_bf16(), reason="the processor does not compute in bfloat16")
def test_how_many_stay_can_be_asked_for(tmp_path: Path) -> None:
    feeds = list(models.feeds(16, *PICTURE))
    made = convert("bf16-mixed", models.deep(tmp_path), tmp_path / "into", feeds, options={"keep_first": 1})
    assert made.notes["kept_at_fp32"] == ["c0"]
    assert made.notes["error_by_layers_kept"] == {}
