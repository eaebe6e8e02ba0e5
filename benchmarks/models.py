"""Models and images that the benchmarks send and serve, made once under `build/`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.harness.places import DEMO_IMAGES, DEMO_MODEL, scratch

INPUTS, OUTPUTS = 64, 10
TINY_INPUT = [round(float(value), 3) for value in np.linspace(-1.0, 1.0, INPUTS)]
CLASSIFIER = DEMO_MODEL / "model.onnx"


def weights() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """The tiny model's only weights, float32 [64, 10], the same every time."""
    return np.random.default_rng(7).standard_normal((INPUTS, OUTPUTS), dtype=np.float32)


def tiny_model() -> Path:
    """`x` float32 [batch, 64] -> MatMul -> `y` float32 [batch, 10], as an ONNX file."""
    path = scratch("models") / "tiny.onnx"
    if not path.is_file():
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", INPUTS])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", OUTPUTS])],
            [numpy_helper.from_array(weights(), "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, path)
    return path


def tiny_answer() -> list[float]:
    """What the tiny model must answer to TINY_INPUT."""
    answer: list[float] = (np.asarray([TINY_INPUT], dtype=np.float32) @ weights())[0].tolist()
    return answer


def classifier_package() -> Path:
    """The demo classifier with its manifest and labels, as a zip that `model add` takes."""
    return _package("classifier", DEMO_MODEL)


def detector_package() -> Path:
    """The demo detector, the same."""
    return _package("detector", DEMO_MODEL.parent / "centernet-mobilenetv3")


def _package(name: str, folder: Path) -> Path:
    path = scratch("models") / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


def jpeg(width: int, height: int, photo: str = "chelsea") -> Path:
    """A demo photo, cropped to the shape and resized, as JPEG of quality 90 with 4:2:0 chroma."""
    path = scratch("images") / f"{photo}-{width}x{height}.jpg"
    if not path.is_file():
        image = Image.open(DEMO_IMAGES / f"{photo}.jpg").convert("RGB")
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        image.resize((width, height), Image.Resampling.LANCZOS, box=box).save(path, quality=90, subsampling=2)
    return path
