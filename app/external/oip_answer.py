"""The answer of an Open Inference Protocol v2 `infer` call: JSON, and after it the binary tensors."""

from __future__ import annotations

from typing import Any

import orjson

from app.external.oip_request import OipCall
from core.errors import RunFailed
from core.media.oip_tensors import to_binary, to_json
from core.serving.request import InferenceResult
from core.signature import dtype_name


def render_infer(call: OipCall, result: InferenceResult) -> tuple[bytes, int | None]:
    """The body, and the length of the JSON at its start where binary tensors follow it."""
    described: list[dict[str, Any]] = []
    binary: list[bytes | memoryview] = []
    for wanted in call.outputs:
        array = (result.outputs or {}).get(wanted.name)
        if array is None:
            raise RunFailed(f"The model did not answer output {wanted.name!r}.")
        output: dict[str, Any] = {
            "name": wanted.name,
            "datatype": dtype_name(array.dtype),
            "shape": list(array.shape),
        }
        if wanted.binary:
            data = to_binary(array)
            output["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            output["data"] = to_json(wanted.name, array)
        described.append(output)
    answer: dict[str, Any] = {"model_name": result.model, "model_version": str(result.version)}
    if call.id:
        answer["id"] = call.id
    text = orjson.dumps({**answer, "outputs": described}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([text, *binary]), len(text)) if binary else (text, None)
