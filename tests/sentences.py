"""Sentences of any length in plain English, made of what the demo's classifier knows; the same every time."""

from __future__ import annotations

import random

from tests.servers import ROOT

_LABELS = ROOT / "demo" / "models" / "efficientnet-lite0" / "labels.txt"
_OPENINGS = ("I saw", "We were looking for", "There is", "Nobody wanted", "She photographed", "He asked about")
_JOINS = ("and", "next to", "but not", "beside", "with", "instead of", "in front of", "because of")
_ENDINGS = (".", "!", "?", " – really…", " (naïve, isn't it?)", " for 3.50 €.", " 👍")


def sentences(count: int, *, least: int = 5, most: int = 100, seed: int = 0) -> list[str]:
    """So many, each of `least` to about `most` words."""
    chance = random.Random(seed)
    things = [line.split(",")[0] for line in _LABELS.read_text().splitlines() if line]
    return [_sentence(chance, things, chance.randint(least, most)) for _ in range(count)]


def _sentence(chance: random.Random, things: list[str], words: int) -> str:
    made = [*chance.choice(_OPENINGS).split(), "a", *chance.choice(things).split()]
    while len(made) < words:
        made += [*chance.choice(_JOINS).split(), "the", *chance.choice(things).split()]
    return " ".join(made[: max(words, 3)]) + chance.choice(_ENDINGS)
