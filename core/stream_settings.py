"""Settings of what comes piece by piece: streams over one connection, and sequences over many requests."""

from __future__ import annotations

from pydantic import Field

from core.setting_section import Section


class StreamSettings(Section):
    """WebSocket streams. One holds at most its frames in flight, and two more, of the largest size."""

    max_streams: int = Field(64, ge=0, description="Streams held at once by one process; more answer 503.")
    max_frame_bytes: int = Field(8 << 20, ge=1 << 10, description="Largest message of a stream.")
    max_in_flight: int = Field(8, ge=1, le=256, description="Most frames that one stream may have in flight.")
    idle_s: float = Field(60, gt=0, description="Seconds without a message before a stream is closed.")
    slow_reader_s: float = Field(30, gt=0, description="Seconds for a peer to read before its stream is cut off.")


class SequenceSettings(Section):
    """What is kept of sequences between their parts."""

    max_sequences: int = Field(1024, ge=0, description="Sequences kept at once by one version of a model.")
    idle_s: float = Field(60, gt=0, description="Seconds without a part before a sequence is dropped.")
    max_state_bytes: int = Field(
        32 << 10, ge=1 << 10, le=16 << 20, description="Largest array of a sequence's state."
    )
