from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from core.errors import ConversionFailed
from core.optimiser.bias_correction import correct_biases
from core.optimiser.conversion import CONVERSIONS, convert
from core.optimiser.mixed import enough
from tests.unit.optimiser import models

PICTURE = (3, 16, 16)


def answers(path: Path, feeds: Any) -> Any:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["y"], dict(feed))[0] for feed in feeds])


def cosine(one: Any, other: Any) -> float:
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("name", ["simplified", "fp16", "int8-static"])
def test_a_network_of_pictures_is_converted_and_answers_alike(name: str, tmp_path: Path) -> None:
    source = models.pictures(tmp_path)
    made = convert(name, source, tmp_path / "into", list(models.feeds(32, *PICTURE)))
    assert made.format == CONVERSIONS[name].format == "onnx"
    assert made.path.parent == tmp_path / "into"
    assert made.notes["libraries"]["onnxruntime"] == ort.__version__
    judging = list(models.feeds(64, *PICTURE))[32:]
    assert cosine(answers(source, judging), answers(made.path, judging)) > 0.99


def test_openvino_reads_its_own_form(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    source, feeds = models.products(tmp_path), list(models.feeds(4, 32))
    made = convert("openvino", source, tmp_path / "into")
    assert {path.name for path in made.path.parent.iterdir()} == {"model.xml", "model.bin"}
    net = openvino.Core().compile_model(str(made.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    there = np.concatenate([net(feed)[0] for feed in feeds])
    np.testing.assert_allclose(there, answers(source, feeds), rtol=1e-4, atol=1e-5)


def test_matrix_products_get_weights_of_8_bits(tmp_path: Path) -> None:
    source = models.products(tmp_path)
    made = convert("int8-dynamic", source, tmp_path / "into")
    assert operators(made.path).count("MatMulInteger") == 2
    feeds = list(models.feeds(16, 32))
    assert cosine(answers(source, feeds), answers(made.path, feeds)) > 0.99


def test_static_int8_says_how_it_was_calibrated(tmp_path: Path) -> None:
    made = convert("int8-static", models.pictures(tmp_path), tmp_path / "into", models.feeds(9, *PICTURE))
    assert made.notes["calibration_batches"] == made.notes["calibration_items"] == 9
    assert made.notes["calibration"] == "minmax"
    assert made.notes["biases_corrected"] == 3
    assert "note" not in made.notes


def test_no_more_samples_are_read_than_asked_for(tmp_path: Path) -> None:
    feeds = models.feeds(9, *PICTURE)
    made = convert("int8-static", models.pictures(tmp_path), tmp_path / "into", feeds, options={"samples": 4})
    assert made.notes["calibration_items"] == 4
    assert len(list(feeds)) == 5


def test_layers_can_stay_as_they_are(tmp_path: Path) -> None:
    source, feeds = models.pictures(tmp_path), list(models.feeds(9, *PICTURE))
    every = convert("int8-static", source, tmp_path / "a", feeds)
    made = convert("int8-static", source, tmp_path / "b", feeds, options={"keep_first": 1, "exclude": ["g"]})
    assert sorted(made.notes["kept_at_fp32"]) == ["c1", "g"]
    assert made.notes["biases_corrected"] == 1
    assert made.notes["quantised_nodes"] < every.notes["quantised_nodes"]


def test_one_sample_calibrates_with_a_note(tmp_path: Path) -> None:
    made = convert("int8-static", models.pictures(tmp_path), tmp_path / "into", models.feeds(1, *PICTURE))
    assert "1 sample(s)" in made.notes["note"]


@pytest.mark.parametrize("name", ["int8-dynamic", "int8-static", "fp16"])
def test_a_quantisable_looking_model_that_is_not(name: str, tmp_path: Path) -> None:
    source = models.doubles(tmp_path)
    feeds = [{"x": np.ones((1, 4))}]
    with pytest.raises(ConversionFailed, match=r"no layers that can be quantised|no 32-bit weights"):
        convert(name, source, tmp_path / "into", feeds)


def test_a_model_that_is_quantised_already(tmp_path: Path) -> None:
    made = convert("int8-dynamic", models.products(tmp_path), tmp_path / "into")
    with pytest.raises(ConversionFailed, match="quantised already"):
        convert("int8-dynamic", made.path, tmp_path / "again")


@pytest.mark.parametrize(
    ("feed", "says"),
    [
        ({"x": np.ones((1, 3, 16, 8), np.float32)}, r"\[1, 3, 16, 8\].*\[-1, 3, 16, 16\]"),
        ({"x": np.ones((3, 16, 16), np.float32)}, r"\[3, 16, 16\]"),
        ({"z": np.ones((1, 3, 16, 16), np.float32)}, "lacks the model's input 'x'"),
    ],
)
def test_samples_that_do_not_fit(feed: dict[str, Any], says: str, tmp_path: Path) -> None:
    good = next(models.feeds(1, *PICTURE))
    with pytest.raises(ConversionFailed, match=f"sample 2 .*{says}"):
        convert("int8-static", models.pictures(tmp_path), tmp_path / "into", [good, feed])


def test_no_samples_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match="upload samples"):
        convert("int8-static", models.pictures(tmp_path), tmp_path / "into", [])


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("openvino", "openvino", "openvino"), ("torchscript-onnx", "torch", "torch"), ("fp16", "onnx", "optimise")],
)
def test_a_library_that_is_missing(
    name: str, library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = models.pictures(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConversionFailed, match=rf"needs {library}.*pulvinar\[{extra}\]"):
        convert(name, source, tmp_path / "into", models.feeds(1, *PICTURE))


def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match=r"no conversion 'int4'.*int8-static"):
        convert("int4", tmp_path / "model.onnx", tmp_path)


def test_what_libraries_say_names_no_place(tmp_path: Path) -> None:
    source = tmp_path / "package" / "model.onnx"
    source.parent.mkdir()
    source.write_bytes(b"\x08\x07 no model")
    with pytest.raises(ConversionFailed) as caught:
        convert("simplified", source, tmp_path / "into")
    assert str(tmp_path) not in caught.value.message


def test_corrected_biases_undo_what_rounding_the_weights_shifts(tmp_path: Path) -> None:
    """With weights already rounded in the model, the corrected one is nearer to the true one in the mean."""
    source, feeds = models.pictures(tmp_path), list(models.feeds(64, *PICTURE))
    (tmp_path / "into").mkdir()
    corrected, count = correct_biases(source, feeds, (), tmp_path / "into")
    assert count == 3

    def rounded(path: Path, name: str) -> Path:
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if tensor.name.startswith("w"):
                weight = onnx.numpy_helper.to_array(tensor)
                scale = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True) / 127
                mended = (np.round(weight / scale) * scale).astype(np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(mended, tensor.name))
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    true = answers(source, feeds).mean(axis=0)
    plain = answers(rounded(source, "plain.onnx"), feeds).mean(axis=0)
    mended = answers(rounded(corrected, "mended.onnx"), feeds).mean(axis=0)
    assert np.abs(mended - true).sum() < 0.5 * np.abs(plain - true).sum()


def test_what_three_more_layers_must_bring() -> None:
    assert enough({0: 1.0, 3: 0.5, 6: 0.2, 9: 0.19}) == 6
    assert enough({0: 1.0, 3: 0.9}) == 0
    assert enough({0: 1.0, 3: 0.1}) == 3
    assert enough({0: 0.0, 3: 0.0}) == 0
    assert enough({0: 1.0, 3: 0.2, 6: 0.11}) == 6
    assert enough({0: 1.0, 3: 0.2, 6: 0.11}, 0.5) == 3


def test_the_sensitive_first_layers_stay_at_32_bits(tmp_path: Path) -> None:
    source, feeds = models.sensitive_start(tmp_path), list(models.feeds(32, *PICTURE))
    made = convert("int8-mixed", source, tmp_path / "mixed", feeds)
    every = convert("int8-static", source, tmp_path / "every", feeds)
    assert len(made.notes["kept_at_fp32"]) == 3
    assert made.notes["error_by_layers_kept"]["3"] < made.notes["error_by_layers_kept"]["0"] / 2
    judging = list(models.feeds(64, *PICTURE))[32:]
    wanted = answers(source, judging)
    assert cosine(wanted, answers(made.path, judging)) > cosine(wanted, answers(every.path, judging))


def test_layers_that_need_no_keeping_are_not_kept(tmp_path: Path) -> None:
    feeds = list(models.feeds(8, *PICTURE))
    with pytest.raises(ConversionFailed, match="int8-static is as good"):
        convert("int8-mixed", models.pictures(tmp_path), tmp_path / "into", feeds)
    with pytest.raises(ConversionFailed, match="upload samples"):
        convert("int8-mixed", models.pictures(tmp_path), tmp_path / "none", [])
