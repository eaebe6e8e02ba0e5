from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from app.external.oip import _waiting
from app.external.oip_models import ModelFacts, live_targets, model_config
from core.errors import BadRequest, ModelNotFound, NotReady
from core.serving.catalogue import Catalogue, Served, Share
from core.signature import Signature, TensorSpec

FACTS = ModelFacts("onnxruntime", "onnxruntime_onnx", "cuda:0", 2, 16, 1.5, 64, 2000)


def _target(version: int, *shape: int) -> Any:
    text, number = TensorSpec("t", "BYTES", shape), TensorSpec("n", "BF16", shape)
    return SimpleNamespace(model="m", version=version, signature=Signature((text,), (number,)))


def _platform(*versions: int) -> Any:
    catalogue = Catalogue()
    catalogue.expected = {"m": versions, "soon": (1,)}
    catalogue.swap("m", [Share(Served(_target(version))) for version in versions])
    return SimpleNamespace(catalogue=catalogue)


def test_the_newest_version_comes_first() -> None:
    assert [target.version for target in live_targets(_platform(2, 9, 4), "m", None)] == [9, 4, 2]
    assert [target.version for target in live_targets(_platform(2, 9, 4), "m", "4")] == [4]


@pytest.mark.parametrize("version", ["", "x", "-1", "1.0", "²", "9999999999"])
def test_versions_are_whole_numbers(version: str) -> None:
    with pytest.raises(BadRequest, match="must be a whole number"):
        live_targets(_platform(1), "m", version)


def test_what_is_not_there_and_what_is_not_there_yet() -> None:
    with pytest.raises(ModelNotFound, match="Version 3 of model 'm' is not in service"):
        live_targets(_platform(1), "m", "3")
    with pytest.raises(ModelNotFound, match="There is no model 'other'"):
        live_targets(_platform(1), "other", None)
    with pytest.raises(NotReady, match="The model 'soon' is not ready yet"):
        live_targets(_platform(1), "soon", None)


def test_the_configuration_of_a_model_that_batches() -> None:
    config = model_config(_target(1, -1, 3), [1, 2], FACTS)
    assert config["max_batch_size"] == 16
    assert config["input"] == [{"name": "t", "data_type": "TYPE_STRING", "dims": [3]}]
    assert config["output"] == [{"name": "n", "data_type": "TYPE_BF16", "dims": [3]}]
    assert config["instance_group"] == [{"name": "m_0", "kind": "KIND_GPU", "count": 2}]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 1500
    policy = config["dynamic_batching"]["default_queue_policy"]
    assert (policy["max_queue_size"], policy["default_timeout_microseconds"]) == (64, 2_000_000)


def test_the_configuration_of_a_model_that_does_not() -> None:
    config = model_config(_target(1, 2, 3), [1], FACTS)
    assert config["max_batch_size"] == 0
    assert config["input"][0]["dims"] == [2, 3]
    assert "dynamic_batching" not in config


@pytest.mark.parametrize(
    ("sentence", "state", "reason"),
    [
        ("pending", "LOADING", "pending"),
        ("warming", "LOADING", "warming"),
        ("failed: The engine: no.", "UNAVAILABLE", "The engine: no."),
        ("stopped", "UNAVAILABLE", "stopped"),
    ],
)
def test_what_waits_in_the_index(sentence: str, state: str, reason: str) -> None:
    entry = _waiting("m", sentence)
    assert (entry.name, entry.version, entry.state, entry.reason) == ("m", None, state, reason)
