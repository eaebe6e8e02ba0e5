"""NVIDIA Triton Inference Server with its Python backend, through PyTriton, dynamic batching on."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from work import Classifier, Tiny, decode, top_five

Array = np.ndarray[Any, Any]


def tiny_function() -> Any:
    """[b, 64] -> [b, 10]."""
    model = Tiny()

    @batch
    def infer(x: Array) -> dict[str, Array]:
        return {"y": model.run(x)}

    return infer


def classify_function() -> Any:
    """JPEG bytes [b, 1] -> indices [b, 5] and scores [b, 5]."""
    model = Classifier()

    @batch
    def infer(jpeg: Array) -> dict[str, Array]:
        found = [top_five(logits) for logits in (model.run(decode(item[0])[None])[0] for item in jpeg)]
        return {
            "index": np.asarray([[one["index"] for one in five] for five in found], dtype=np.int64),
            "score": np.asarray([[one["score"] for one in five] for five in found], dtype=np.float32),
        }

    return infer


def main() -> None:
    """Serve both kinds of work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--work", choices=["tiny", "classify"], required=True)
    options = parser.parse_args()
    config = TritonConfig(
        http_address="127.0.0.1", http_port=options.port, allow_grpc=False, allow_metrics=False, log_verbose=0
    )
    with Triton(config=config) as triton:
        if options.work == "tiny":
            triton.bind(
                model_name="tiny",
                infer_func=tiny_function(),
                inputs=[Tensor(name="x", dtype=np.float32, shape=(64,))],
                outputs=[Tensor(name="y", dtype=np.float32, shape=(10,))],
                config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher()),
                strict=False,
            )
        else:
            triton.bind(
                model_name="classify",
                infer_func=classify_function(),
                inputs=[Tensor(name="jpeg", dtype=bytes, shape=(1,))],
                outputs=[
                    Tensor(name="index", dtype=np.int64, shape=(5,)),
                    Tensor(name="score", dtype=np.float32, shape=(5,)),
                ],
                config=ModelConfig(max_batch_size=16, batcher=DynamicBatcher()),
                strict=False,
            )
        triton.serve()


if __name__ == "__main__":
    main()
