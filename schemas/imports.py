"""Imports of models from a hub or a package index."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.base import Answer, Body, Moment


class ImportCreate(Body):
    """Which model to fetch, and what it will be called."""

    name: str = Field(max_length=255, examples=["cats"])
    source: str = Field(max_length=1024, examples=["hf:acme/cats@v1", "pypi:acme-models==1.0/cats.onnx#sha256=…"])
    task: str | None = Field(None, max_length=64)
    description: str | None = Field(None, max_length=4000)
    manifest: str | None = Field(None, max_length=1 << 19, description="The text of a model.yaml.")


class ImportAnswer(Answer):
    """An import and how far it is; `version` is what it became."""

    id: int
    name: str
    source: str
    state: Literal["running", "done", "failed", "cancelled"]
    reason: str
    done_bytes: int
    total_bytes: int | None = None
    commit: str | None = None
    version: int | None = None
    created_by: str
    created_at: Moment
    ended_at: Moment | None = None
