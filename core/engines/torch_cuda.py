"""A model's call on a GPU: inputs through pinned memory, and one CUDA graph for each set of input shapes.

A graph replays all kernels of a run with one launch, on buffers of its own. What cannot be captured (a model that
looks at values on the way) is run as it is. Source: pytorch.org "CUDA semantics", CUDA graphs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final, NamedTuple

_MOST_GRAPHS: Final = 8
"""Kept at once: batches of a few sizes. The one used longest ago goes first."""
_WARM_RUNS: Final = 3

Call = Callable[[Sequence[Any]], Sequence[Any]]


class _Captured(NamedTuple):
    graph: Any
    inputs: list[Any]
    outputs: list[Any]


class GraphedCall:
    """Takes tensors on cpu and gives tensors on cpu. One run at a time: a graph's buffers are its only ones."""

    def __init__(self, library: ModuleType, call: Call, device: str) -> None:
        self._library = library
        self._call = call
        self._device = device
        self._lock = threading.Lock()
        self._graphs: OrderedDict[tuple[Any, ...], _Captured | None] = OrderedDict()

    def __call__(self, tensors: Sequence[Any]) -> Sequence[Any]:
        """Run one batch."""
        with self._lock, self._library.cuda.device(self._device):
            # An empty batch has no kernels to keep.
            captured = self._graph(tensors) if all(tensor.numel() for tensor in tensors) else None
            if captured is None:
                return [_to_cpu(value) for value in self._call([self._to_gpu(tensor) for tensor in tensors])]
            for buffer, tensor in zip(captured.inputs, tensors, strict=True):
                buffer.copy_(tensor.pin_memory(), non_blocking=True)
            captured.graph.replay()
            return [_to_cpu(value) for value in captured.outputs]

    def _graph(self, tensors: Sequence[Any]) -> _Captured | None:
        key = (
            *((tuple(tensor.shape), tensor.dtype) for tensor in tensors),
            self._library.is_autocast_enabled("cuda"),
        )
        if key not in self._graphs:
            self._graphs[key] = self._capture(tensors)
            if len(self._graphs) > _MOST_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _capture(self, tensors: Sequence[Any]) -> _Captured | None:
        cuda = self._library.cuda
        inputs = [self._to_gpu(tensor) for tensor in tensors]
        stream = cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        try:
            with cuda.stream(stream):
                for _ in range(_WARM_RUNS):
                    self._call(inputs)
            cuda.current_stream().wait_stream(stream)
            graph = cuda.CUDAGraph()
            with cuda.graph(graph):
                outputs = list(self._call(inputs))
        except RuntimeError:
            cuda.synchronize()
            return None
        if not all(isinstance(value, self._library.Tensor) for value in outputs):
            return None
        return _Captured(graph, inputs, outputs)

    def _to_gpu(self, tensor: Any) -> Any:
        return (tensor.pin_memory() if tensor.numel() else tensor).to(self._device, non_blocking=True)


def _to_cpu(value: Any) -> Any:
    return value.cpu() if hasattr(value, "cpu") else value
