"""The few calls of the CUDA driver that an engine without arrays of its own needs: memory, copies, a stream.

By ctypes, since every machine with an NVIDIA driver has the library and no Python package is needed. Names and
numbers are those of NVIDIA's "CUDA Driver API".
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, …_MINOR
_NAME_BYTES: Final = 128


class CudaError(Exception):
    """A call of the driver that failed; the message is short and names the call."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a GPU is called, and its compute capability as in 9.0."""

    name: str
    capability: tuple[int, int]


class Cuda:
    """One GPU's primary context and a stream in it. Raises CudaError, also where there is no driver."""

    def __init__(self, index: int) -> None:
        try:
            self._driver = ctypes.CDLL("libcuda.so.1")
        except OSError:
            raise CudaError("there is no NVIDIA driver") from None
        self._device, self._context, self._stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), index)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.enter()
        self._call("cuStreamCreate", ctypes.byref(self._stream), 1)  # 1: does not wait for the default stream

    @property
    def stream(self) -> int:
        """Its handle."""
        return self._stream.value or 0

    def gpu(self) -> Gpu:
        """Which GPU it is."""
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self._call("cuDeviceGetName", name, _NAME_BYTES, self._device)
        return Gpu(name.value.decode(errors="replace"), (self._attribute(_MAJOR), self._attribute(_MINOR)))

    def enter(self) -> None:
        """Make the GPU that of the calling thread; each thread needs it before its first call."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size_bytes: int) -> int:
        """The address of so many bytes on the GPU."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, size_bytes)))
        return address.value

    def free(self, address: int) -> None:
        """Give back what `allocate` returned."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def send(self, array: np.ndarray[Any, Any], address: int) -> None:
        """Copy a contiguous array to the GPU, in the stream's order."""
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), _pointer(array), size, self._stream)

    def fetch(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copy from the GPU into a contiguous array, in the stream's order."""
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", _pointer(array), ctypes.c_uint64(address), size, self._stream)

    def wait(self) -> None:
        """Until everything in the stream is done."""
        self._call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Let go of the stream and the context."""
        self._call("cuStreamDestroy_v2", self._stream)
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._driver, name)(*arguments):
            raise CudaError(f"{name} failed with code {code}")


def _pointer(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
