"""ONNX to OpenVINO's intermediate representation: `model.xml` and `model.bin`."""

from __future__ import annotations

from core.errors import ConversionFailed
from core.optimiser.converted import Converted, Work, missing, versions_of

OPENVINO_HINT = "pulvinar[openvino]"


def to_ir(work: Work) -> Converted:
    """The same graph for OpenVINO, weights kept at 32 bits: its engine chooses a precision when it loads."""
    try:
        import openvino
    except ImportError as error:
        raise missing("openvino", OPENVINO_HINT) from error
    target = work.into / "model.xml"
    try:
        model = openvino.Core().read_model(str(work.source))
    except Exception as error:
        raise ConversionFailed("OpenVINO cannot read the model; it uses operators that OpenVINO lacks.") from error
    openvino.save_model(model, str(target), compress_to_fp16=False)
    return Converted(target, "openvino", {"libraries": versions_of("openvino")})
