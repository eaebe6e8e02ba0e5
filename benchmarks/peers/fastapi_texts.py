"""Sentences to vectors as most begin: a FastAPI handler that tokenises and calls ONNX Runtime, one by one."""

from __future__ import annotations

import os

import numpy as np
from fastapi import FastAPI, Request
from tokenizers import Tokenizer
from work import session

MAX_TOKENS = 256

app = FastAPI()
model = session("BENCH_TEXTS")
tokenizer = Tokenizer.from_file(os.environ["BENCH_TOKENIZER"])
tokenizer.enable_truncation(MAX_TOKENS)
tokenizer.no_padding()


@app.get("/health")
async def health() -> dict[str, bool]:
    """Ready once the application is up."""
    return {"ready": True}


@app.post("/embed")
async def embed(request: Request) -> dict[str, list[float]]:
    """UTF-8 -> tokens -> MiniLM -> mean over the tokens, of length 1."""
    encoding = tokenizer.encode((await request.body()).decode())
    ids, mask, types = (
        np.array([one], np.int64) for one in (encoding.ids, encoding.attention_mask, encoding.type_ids)
    )
    (states,) = model.run(None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
    vector = states[0].mean(axis=0)
    return {"embedding": (vector / np.linalg.norm(vector)).tolist()}
