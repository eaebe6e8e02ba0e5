"""Samples of a model's inputs."""

from __future__ import annotations

from typing import Literal

from schemas.base import Answer, Moment, Page

SampleKind = Literal["uploaded", "live"]


class SampleAnswer(Answer):
    """One sample; what is in it is not given out."""

    id: int
    kind: SampleKind
    media_type: str
    name: str
    label: str | None = None
    size_bytes: int
    sha256: str
    created_by: str
    created_at: Moment


class SamplePage(Page[SampleAnswer]):
    """One page of samples, and how many there are in all."""

    count: int
    size_bytes: int


class SamplesAdded(Answer):
    """What an upload added, and how many samples there are now."""

    added: int
    known: int
    count: int


class SamplesRemoved(Answer):
    """How many samples went."""

    removed: int
