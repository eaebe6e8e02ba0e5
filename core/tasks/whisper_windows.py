"""From the tokens of one window of 30 s to segments with times, and how far the next window moves on.

Source: Radford et al. 2022, section 3.8, and the transcription loop published with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TIME_STEP_S: Final = 0.02
"""What one token of time stands for."""
FRAME_S: Final = 0.01
_FRAMES_PER_STEP: Final = 2


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech in seconds, and its tokens, those of its times among them."""

    start: float
    end: float
    tokens: tuple[int, ...]


def segments_of(tokens: Sequence[int], offset_s: float, frames: int, first_time: int) -> tuple[list[Segment], int]:
    """The segments of a window of `frames` frames at `offset_s`, and by how many frames to move on.

    A pair of times ends one segment and begins the next. What follows the last pair is unfinished and heard again
    from there, unless the window closes with a single time: then nothing is said after it.
    """
    tokens = list(tokens)
    cuts = [i for i in range(1, len(tokens)) if min(tokens[i - 1], tokens[i]) >= first_time]
    closed = len(tokens) >= 2 and tokens[-2] < first_time <= tokens[-1]
    if not cuts:
        return [_whole(tokens, offset_s, frames, first_time)], frames
    if closed:
        cuts.append(len(tokens))
    parts = [tokens[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]
    segments = [
        Segment(
            offset_s + (part[0] - first_time) * TIME_STEP_S,
            offset_s + (part[-1] - first_time) * TIME_STEP_S,
            tuple(part),
        )
        for part in parts
    ]
    return segments, frames if closed else (parts[-1][-1] - first_time) * _FRAMES_PER_STEP


def _whole(tokens: list[int], offset_s: float, frames: int, first_time: int) -> Segment:
    """One segment; it ends at its last time where it has one beyond the window's start."""
    times = [token for token in tokens if token >= first_time]
    length_s = (times[-1] - first_time) * TIME_STEP_S if times and times[-1] > first_time else frames * FRAME_S
    return Segment(offset_s, offset_s + length_s, tuple(tokens))
