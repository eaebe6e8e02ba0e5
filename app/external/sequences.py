"""Parts of sequences: the id of a sequence is the caller's own, and no other token's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from core.access.records import TokenRecord
from core.errors import BadRequest
from core.serving.request import SequencePart

MAX_ID_CHARACTERS: Final = 128
SEQUENCE_ID: Final = b"x-sequence-id"
_FLAGS: Final = {b"x-sequence-start": "sequence_start", b"x-sequence-end": "sequence_end"}
_TRUE, _FALSE = (b"1", b"true"), (b"", b"0", b"false")


def sequence_of(
    record: TokenRecord, headers: Sequence[tuple[bytes, bytes]], parameters: Mapping[str, Any]
) -> SequencePart | None:
    """What the headers `X-Sequence-ID`, `-Start` and `-End` say, or else the parameters `sequence_id`,
    `sequence_start` and `sequence_end`. Raises BadRequest.
    """
    said = [value for name, value in headers if name == SEQUENCE_ID and value]
    if said:
        flags = {_FLAGS[name]: _flag(value) for name, value in headers if name in _FLAGS}
        return part_of(record, {**flags, "sequence_id": said[0].decode("latin-1")})
    return part_of(record, parameters) if "sequence_id" in parameters else None


def part_of(record: TokenRecord, parameters: Mapping[str, Any]) -> SequencePart | None:
    """The part that the parameters name; None for an id of 0 or "", which is none. Raises BadRequest."""
    id_ = parameters.get("sequence_id")
    if not id_ and not isinstance(id_, bool):
        return None
    if isinstance(id_, bool) or not isinstance(id_, int | str) or len(str(id_)) > MAX_ID_CHARACTERS:
        raise BadRequest(
            f"`sequence_id` must be a whole number or a text of at most {MAX_ID_CHARACTERS} characters."
        )
    start, end = parameters.get("sequence_start", False), parameters.get("sequence_end", False)
    if not isinstance(start, bool) or not isinstance(end, bool):
        raise BadRequest("`sequence_start` and `sequence_end` must be true or false.")
    return SequencePart(f"{record.id}/{id_}", start=start, end=end)


def _flag(value: bytes) -> bool:
    if value.lower() not in (*_TRUE, *_FALSE):
        raise BadRequest("X-Sequence-Start and X-Sequence-End are true or false.")
    return value.lower() in _TRUE
