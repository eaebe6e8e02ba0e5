"""Texts as samples: tokens as in service, of different lengths, through conversions and a whole search."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, load_from_string, numpy_helper

from core.engines.base import EngineOptions
from core.engines.onnx import OnnxEngine
from core.optimiser.convert_child import ConvertJob, run_conversion
from core.optimiser.feed_child import FeedJob, Feeds, make_feeds
from core.optimiser.samples import StoredSample
from core.optimiser.search import Search, Subject, Wanted
from core.optimiser.space import Here
from core.tasks.vectors import Pooled
from tests.text_models import SPECIAL, WORDS, lookup_model, unpacked

TEXTS = [
    "anna lives in new york",
    "good day",
    "the sad cafe , bob . " * 5,
    "\xff",
    *(" ".join(WORDS[:n]) for n in range(3, 20)),
]
CONVERSIONS = ["int8-static"]
POOLED = Pooled("output", "mean", mask="attention_mask")


def layered() -> bytes:
    """A table, looked up, and a layer on it: something to quantise."""
    rng = np.random.default_rng(3)
    table = rng.normal(size=(len(SPECIAL) + len(WORDS), 32)).astype(np.float32)
    model = load_from_string(lookup_model(table))
    model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=(32, 8)).astype(np.float32), "layer"))
    model.graph.node[-1].output[0] = "vectors"
    model.graph.node.append(helper.make_node("MatMul", ["vectors", "layer"], ["output"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", "tokens", 8]))
    return bytes(model.SerializeToString())


def feeds(root: Path, into: Path) -> Feeds:
    """The texts as the engine gets them; the one that is no UTF-8 among them."""
    samples = []
    for number, text in enumerate(TEXTS):
        path = root / f"{number:02}.txt"
        path.write_bytes(text.encode("latin-1"))
        samples.append(StoredSample(number, f"{number:064}", "text/plain", None, path))
    engine = OnnxEngine()
    signature = engine.load(root / "model.onnx", EngineOptions(threads=1))
    engine.close()
    return asyncio.run(make_feeds(FeedJob({"task": "text-embedding"}, root, signature.to_json(), samples, into)))


def test_a_search_over_texts_of_different_lengths(tmp_path: Path) -> None:
    root = unpacked(tmp_path / "model", layered())
    made = feeds(root, tmp_path / "feeds")
    assert made.ids == [number for number, text in enumerate(TEXTS) if text != "\xff"]
    assert [why.split(":")[0] for why in made.left_out] == ["Sample 3"]
    lengths = set()
    for path in made.paths:
        with np.load(path) as arrays:
            assert set(arrays.files) == {"input_ids", "attention_mask", "token_type_ids"}
            lengths.add(arrays["input_ids"].shape)
    assert len(lengths) > 10
    assert (1, 4) in lengths

    async def convert(conversion: str, timeout_s: float) -> tuple[Path, Mapping[str, Any]]:
        done = await run_conversion(
            ConvertJob(conversion, root / "model.onnx", tmp_path / conversion, made.paths[::2])
        )
        return done.path, done.notes

    subject = Subject(root / "model.onnx", "onnx", made.paths[1::2], tmp_path / "reference", pooled=POOLED)
    wanted = Wanted(objective="throughput", budget_s=60)
    found = asyncio.run(
        Search(subject, wanted, Here({"onnx": ["cpu"]}, {}, CONVERSIONS, 1), convert, seconds=0.1).run()
    )
    judged = {trial.candidate.variant.conversion: trial for trial in reversed(found.trials)}
    for conversion in CONVERSIONS:
        figures = judged[conversion].figures
        assert figures is not None, judged[conversion]
        assert figures.fidelity is not None
        assert figures.fidelity.items == len(made.paths[1::2])
        assert figures.fidelity.cosine > 0.99
    for kept in subject.outputs.iterdir():
        with np.load(kept) as arrays:
            assert arrays["output"].shape == (1, 8), "what is compared is what a caller gets: a vector a text"
