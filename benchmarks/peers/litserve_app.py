"""LitServe with its request batching on, one worker, ZeroMQ queue.

LitServe reads the annotation of `decode_request`, so this module does not postpone annotations.
"""

import argparse
from typing import Any

import litserve
import numpy as np
from fastapi import Request
from work import Classifier, Tiny, decode, top_five


class TinyAPI(litserve.LitAPI):
    """64 floats -> MatMul -> 10 floats."""

    def setup(self, device: str) -> None:
        self.model = Tiny()

    def decode_request(self, request: dict) -> np.ndarray[Any, Any]:
        return np.asarray(request["inputs"], dtype=np.float32)

    def batch(self, inputs: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        return np.stack(inputs)

    def predict(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self.model.run(x)

    def unbatch(self, output: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        return list(output)

    def encode_response(self, output: np.ndarray[Any, Any]) -> dict[str, list[float]]:
        return {"outputs": output.tolist()}


class ClassifyAPI(litserve.LitAPI):
    """JPEG bytes -> top five."""

    def setup(self, device: str) -> None:
        self.model = Classifier()

    def decode_request(self, request: Request) -> np.ndarray[Any, Any]:
        return decode(request["image"].file.read())

    def predict(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self.model.run(x[None])[0]

    def encode_response(self, output: np.ndarray[Any, Any]) -> dict[str, Any]:
        return {"predictions": top_five(output)}


def main() -> None:
    """Serve one kind of work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--work", choices=["tiny", "classify"], required=True)
    options = parser.parse_args()
    if options.work == "tiny":
        api: litserve.LitAPI = TinyAPI(max_batch_size=16, batch_timeout=0.001, api_path="/tiny")
    else:
        api = ClassifyAPI(api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=options.port,
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
