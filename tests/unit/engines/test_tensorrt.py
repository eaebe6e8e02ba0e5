"""What can be known of the TensorRT engine without a GPU: plans' places, profiles, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.engines.base import EngineOptions
from core.engines.cuda import Cuda, CudaError, Gpu
from core.engines.tensorrt import TensorrtEngine, answer_to_nothing, refuse_plan
from core.engines.tensorrt_plans import Recipe, is_plan, keep_plan, model_sha256, profile, read_plan
from core.errors import EngineUnavailable, LoadFailed
from core.signature import Signature, TensorSpec

H200 = Gpu("NVIDIA H200", (9, 0))
RECIPE = Recipe(H200, "10.16.1.11", "ab" * 32, "fp16", 32)


def test_a_plan_s_place_says_what_it_is_for() -> None:
    assert RECIPE.place() == Path("nvidia-h200-sm90-tensorrt-10.16.1.11") / f"{'ab' * 32}-fp16-32.plan"


@pytest.mark.parametrize(
    "other",
    [
        Recipe(Gpu("NVIDIA A10", (9, 0)), "10.16.1.11", "ab" * 32, "fp16", 32),
        Recipe(Gpu("NVIDIA H200", (8, 9)), "10.16.1.11", "ab" * 32, "fp16", 32),
        Recipe(H200, "10.16.1.12", "ab" * 32, "fp16", 32),
        Recipe(H200, "10.16.1.11", "cd" * 32, "fp16", 32),
        Recipe(H200, "10.16.1.11", "ab" * 32, "fp32", 32),
        Recipe(H200, "10.16.1.11", "ab" * 32, "fp16", 8),
    ],
    ids=["name", "capability", "version", "model", "precision", "batch"],
)
def test_everything_that_matters_makes_another_plan(other: Recipe) -> None:
    assert other.place() != RECIPE.place()


def test_a_name_never_leads_out_of_the_cache() -> None:
    place = Recipe(Gpu("../../etc/§", (9, 0)), "../1", "ab", "fp32", 1).place()
    assert ".." not in place.parts
    assert len(place.parts) == 2


def test_a_plan_is_kept_and_read_back(tmp_path: Path) -> None:
    assert read_plan(tmp_path / "plans", RECIPE) is None
    keep_plan(tmp_path / "plans", RECIPE, b"ftrt-1")
    keep_plan(tmp_path / "plans", RECIPE, b"ftrt-2")
    assert read_plan(tmp_path / "plans", RECIPE) == b"ftrt-2"
    assert len(list((tmp_path / "plans").rglob("*.*"))) == 2  # the folder has dots, and no temporary file is left


def test_a_plan_that_others_could_have_written_is_not_read(tmp_path: Path) -> None:
    keep_plan(tmp_path, RECIPE, b"ftrt")
    path = tmp_path / RECIPE.place()
    path.chmod(0o666)
    assert read_plan(tmp_path, RECIPE) is None
    path.chmod(0o600)
    path.parent.chmod(0o777)
    assert read_plan(tmp_path, RECIPE) is None


def test_without_a_cache_or_room_nothing_is_kept(tmp_path: Path) -> None:
    keep_plan(None, RECIPE, b"ftrt")
    assert read_plan(None, RECIPE) is None
    (tmp_path / "file").touch()
    keep_plan(tmp_path / "file", RECIPE, b"ftrt")
    assert read_plan(tmp_path / "file", RECIPE) is None


def test_weights_beside_the_model_make_another_hash(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    alone = model_sha256(tmp_path / "model.onnx")
    (tmp_path / "weights.bin").write_bytes(b"1")
    first = model_sha256(tmp_path / "model.onnx")
    (tmp_path / "weights.bin").write_bytes(b"2")
    assert len({alone, first, model_sha256(tmp_path / "model.onnx")}) == 3


def test_profiles() -> None:
    image = TensorSpec("image", "FP32", (-1, 3, 224, 224))
    assert profile(image, 8) == ((1, 3, 224, 224), (8, 3, 224, 224), (8, 3, 224, 224))
    assert profile(TensorSpec("image", "FP32", (2, 3)), 8) is None
    assert profile(TensorSpec("scale", "FP32", ()), 8) is None
    with pytest.raises(LoadFailed, match=r"input tokens has dynamic axes besides the batch, \[-1, -1\]"):
        profile(TensorSpec("tokens", "INT64", (-1, -1)), 8)


def test_an_empty_batch_is_answered_without_a_run() -> None:
    specs = (TensorSpec("y", "FP16", (-1, 3)), TensorSpec("n", "INT64", (-1,)))
    signature = Signature((TensorSpec("x", "FP32", (-1, 3)),), specs)
    assert answer_to_nothing(signature, [np.ones((1, 3), np.float32)]) is None
    answer = answer_to_nothing(signature, [np.empty((0, 3), np.float32)]) or {}
    assert {name: (array.dtype, array.shape) for name, array in answer.items()} == {
        "y": (np.float16, (0, 3)),
        "n": (np.int64, (0,)),
    }


def test_a_plan_from_outside_is_refused_unless_trusted(tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"ftrt" + bytes(100))
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08")
    assert is_plan(tmp_path / "model.plan")
    assert not is_plan(tmp_path / "model.onnx")
    with pytest.raises(LoadFailed, match=r"engines\.trust_plans"):
        refuse_plan(trusted=False)
    refuse_plan(trusted=True)


def test_a_machine_without_one_says_so(tmp_path: Path) -> None:
    info = TensorrtEngine.info()
    if info.available:
        pytest.skip("this machine has TensorRT")
    assert info.reason
    assert "pulvinar[tensorrt]" in str(info.hint)
    with pytest.raises(EngineUnavailable, match="TensorRT"):
        TensorrtEngine().load(tmp_path / "model.onnx", EngineOptions(device="cuda:0"))
    with pytest.raises(CudaError):
        Cuda(99)
