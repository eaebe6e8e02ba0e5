"""Strategies for bytes and texts that look like what a parser expects, and then do not."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

# Numbers at which lengths and offsets go wrong.
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes], most: int = 8) -> bytes:
    """One of the seeds after some damage: cut, doubled, moved, overwritten, with numbers at their edges."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(0, 64))
        match draw(st.integers(0, 6)):
            case 0:
                del data[at:]
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length] * draw(st.integers(1, 4))
            case 3:
                data[at : at + 1] = draw(st.binary(max_size=4))
            case 4:
                edge, width = draw(st.sampled_from(EDGES)), draw(st.sampled_from("BHIQ"))
                order = draw(st.sampled_from("<>"))
                packed = struct.pack(order + width, edge & ((1 << 8 * struct.calcsize(width)) - 1))
                data[at : at + len(packed)] = packed
            case 5:
                data[at:at] = draw(st.sampled_from(seeds))[: draw(st.integers(0, 4096))]
            case _:
                data[at : at + length] = draw(st.binary(max_size=64))
    return bytes(data)


def damaged_text(seeds: Sequence[str], pieces: Sequence[str], most: int = 6) -> st.SearchStrategy[str]:
    """One of the seeds with pieces of the language, or any characters, in and instead of its parts."""

    @st.composite
    def build(draw: st.DrawFn) -> str:
        text = draw(st.sampled_from(seeds))
        for _ in range(draw(st.integers(0, most))):
            at = draw(st.integers(0, len(text)))
            piece = draw(st.sampled_from(pieces) | st.text(max_size=12))
            text = text[:at] + piece * draw(st.integers(1, 3)) + text[at + draw(st.integers(0, 12)) :]
        return text

    return build() | st.text(max_size=200)


def json_values(leaves: int = 12) -> st.SearchStrategy[object]:
    """What JSON can say, with odd numbers and texts."""
    atoms = (
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.sampled_from(EDGES)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    )
    return st.recursive(
        atoms,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4)
        ),
        max_leaves=leaves,
    )
