"""A text with the names that were found in it, in pieces: each either a name or what stands between two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.dashboard.pages.playground.shown import Entity


@dataclass(frozen=True, slots=True)
class Piece:
    """Some characters of the text as it was sent, and what they are, where they are anything."""

    text: str
    entity: Entity | None = None


def pieces(text: str, entities: Sequence[Entity]) -> list[Piece]:
    """The whole text in its order; of entities that overlap the first is marked. Empty where none is marked."""
    found, at = [], 0
    for one in sorted(entities, key=lambda entity: entity.start):
        if not at <= one.start < one.end <= len(text):
            continue
        if one.start > at:
            found.append(Piece(text[at : one.start]))
        found.append(Piece(text[one.start : one.end], one))
        at = one.end
    if not found:
        return []
    return [*found, Piece(text[at:])] if at < len(text) else found
