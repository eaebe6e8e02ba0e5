"""TorchScript to ONNX."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from core.errors import ConversionFailed
from core.optimiser.converted import Converted, Tensors, Work, missing, versions_of

TORCH_HINT = "pulvinar[torch]"
OPSET = 17


def to_onnx(work: Work) -> Converted:
    """Trace a TorchScript module with the first feed and write it as ONNX, the first axis of all tensors free.

    The module's code runs: only in a process that is confined. Nothing is unpickled, for `torch.jit.load` reads
    TorchScript's own form. The options `outputs` and `opset` name the outputs and the operator set.
    """
    try:
        torch: Any = import_module("torch")
    except ImportError as error:
        raise missing("torch", TORCH_HINT) from error
    feed = next(iter(work.feeds), None)
    if feed is None:
        raise ConversionFailed("TorchScript becomes ONNX by running it once: give one sample batch of inputs.")
    with warnings.catch_warnings():
        # Of TorchScript as a whole, and of the exporter that alone takes it: no news to who converts it.
        warnings.simplefilter("ignore", DeprecationWarning)
        return _export(torch, work, feed)


def _export(torch: Any, work: Work, feed: Tensors) -> Converted:
    module = torch.jit.load(str(work.source), map_location="cpu").eval()
    target = work.into / "model.onnx"
    arguments = tuple(torch.from_numpy(array.copy()) for array in feed.values())
    with torch.inference_mode():
        outputs = _names(module(*arguments), work)
    opset = int(work.option("opset", OPSET))
    torch.onnx.export(
        module,
        arguments,
        str(target),
        input_names=list(feed),
        output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in (*feed, *outputs)},
        opset_version=opset,
        dynamo=False,
    )
    notes = {"opset": opset, "libraries": versions_of("torch", "onnx")}
    return Converted(target, "onnx", notes)


def _names(answer: Any, work: Work) -> list[str]:
    count = len(answer) if isinstance(answer, tuple | list) else 1
    names = [str(name) for name in work.option("outputs", [f"output_{number}" for number in range(count)])]
    if len(names) != count:
        raise ConversionFailed(f"The module answers {count} tensors, and {len(names)} outputs were named.")
    return names
