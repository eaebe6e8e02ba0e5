from __future__ import annotations

import subprocess
import sys

import pytest

from core.engines import registry
from core.engines.fake import FakeEngine
from core.engines.onnx import OnnxEngine
from core.errors import EngineUnavailable, Unprocessable


def test_names_and_classes() -> None:
    assert registry.engine_names() == list(registry.ENGINES)
    assert registry.engine_class("onnx") is OnnxEngine
    assert registry.engine_class("fake") is FakeEngine


def test_an_unknown_engine_is_answered_with_the_known() -> None:
    with pytest.raises(Unprocessable, match=r"the engines are onnx, .*, fake"):
        registry.engine_class("tensorflow")


def test_engines_by_format() -> None:
    assert registry.engines_for("onnx")[:2] == [
        "onnx",
        "openvino",
    ]  # the best first: what is deployed is ONNX Runtime
    assert registry.engines_for("openvino") == ["openvino"]
    assert registry.engines_for("fake") == ["fake"]
    assert registry.engines_for("gguf") == []


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {**registry.ENGINES, "broken": "core.engines.no_such_module:Engine"}
    monkeypatch.setattr(registry, "ENGINES", more)


@pytest.mark.usefixtures("broken")
def test_an_engine_that_cannot_be_imported_breaks_nothing() -> None:
    with pytest.raises(EngineUnavailable, match="no_such_module is missing"):
        registry.engine_class("broken")
    assert registry.engines_for("onnx")[0] == "onnx"
    listed = {info.name: info for info in registry.list_engines()}
    assert listed["onnx"].available
    assert not listed["broken"].available
    assert listed["broken"].reason
    assert listed["broken"].hint


def test_without_the_runtime_the_engine_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from core.engines.registry import list_engines\n"
        "info = list_engines()[0]; print(info.available, info.reason, info.hint)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("False ONNX Runtime is not installed")
    assert "pip install 'pulvinar[cpu]'" in said
