"""NVIDIA's own client of the protocol, synchronous or on asyncio, behind one face."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import np_to_triton_dtype

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Client:
    """Each call opens a client of `kind` (sync or aio), asks, and closes it."""

    kind: str
    port: int
    token: str

    def ask(self, method: str, *arguments: Any, headers: dict[str, str] | None = None, **options: Any) -> Any:
        """Call a method of the client, with the token in its headers."""
        headers = {"X-Access-Token": self.token} if headers is None else headers
        url = f"127.0.0.1:{self.port}"
        if self.kind == "sync":
            with triton.InferenceServerClient(url) as client:
                return getattr(client, method)(*arguments, headers=headers, **options)

        async def run() -> Any:
            async with triton_aio.InferenceServerClient(url) as client:
                return await getattr(client, method)(*arguments, headers=headers, **options)

        # Its questions after readiness leave their answers unread, and their connections to the collector.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            answer = asyncio.run(run())
            if method.startswith("is_"):
                gc.collect()
        return answer

    def infer(
        self,
        model: str,
        arrays: Arrays,
        *,
        binary: bool = True,
        outputs: Sequence[str] | None = None,
        binary_outputs: bool = True,
        **options: Any,
    ) -> triton.InferResult:
        """Call a model; with `outputs`, those alone, as binary data or not."""
        inputs = [tensor(name, array, binary) for name, array in arrays.items()]
        wanted = None
        if outputs is not None:
            wanted = [triton.InferRequestedOutput(name, binary_data=binary_outputs) for name in outputs]
        return self.ask("infer", model, inputs, outputs=wanted, **options)


def tensor(name: str, array: np.ndarray[Any, Any], binary: bool = True) -> triton.InferInput:
    """One input."""
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return made.set_data_from_numpy(array, binary_data=binary)
