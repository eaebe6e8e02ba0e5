"""What a stream's caller may choose: in the query of its URL, and in control messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast
from urllib.parse import parse_qsl

from core.access.tokens import PREFIX as TOKEN_BEGINS
from core.errors import BadRequest

Mode = Literal["wait", "newest"]
MODES: Final = ("wait", "newest")
IN_FLIGHT: Final[Mapping[str, int]] = {"wait": 4, "newest": 1}
"""Frames answered side by side where the caller does not say."""
_TOKEN_KEYS: Final = frozenset({"token", "access_token", "x-access-token", "authorization", "api_key", "key"})


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream runs: `wait` takes no frame before there is room, `newest` has room for one, the latest."""

    mode: Mode = "wait"
    in_flight: int = IN_FLIGHT["wait"]
    version: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def options_from_query(query: bytes, *, max_in_flight: int) -> StreamOptions:
    """Read `mode`, `in_flight` and `version`. Raises BadRequest, also for a token, which belongs in no URL."""
    said: dict[str, Any] = {}
    for key, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if key.lower() in _TOKEN_KEYS or value.startswith(TOKEN_BEGINS):
            raise BadRequest("Never send the token in a URL: use a header or the subprotocol.")
        if key not in ("mode", "in_flight", "version"):
            raise BadRequest(f"The query parameter {key[:64]!r} is not known; there are mode, in_flight, version.")
        said[key] = value if key == "mode" else _number(key, value)
    version = said.pop("version", None)
    return replace(change_options(StreamOptions(), said, max_in_flight=max_in_flight), version=version)


def change_options(options: StreamOptions, said: Mapping[str, Any], *, max_in_flight: int) -> StreamOptions:
    """The options with what is said of `mode`, `in_flight` and `parameters`. Raises BadRequest."""
    unknown = said.keys() - {"mode", "in_flight", "parameters"}
    if unknown:
        raise BadRequest(f"The key {min(unknown)[:64]!r} is not known; there are mode, in_flight, parameters.")
    mode = said.get("mode", options.mode)
    if mode not in MODES:
        raise BadRequest(f"`mode` is {' or '.join(MODES)}.")
    before = options.in_flight if mode == options.mode else IN_FLIGHT[mode]
    in_flight = said.get("in_flight", min(before, max_in_flight))
    if type(in_flight) is not int or not 1 <= in_flight <= max_in_flight:
        raise BadRequest(f"`in_flight` is 1 to {max_in_flight}.")
    parameters = said.get("parameters", options.parameters)
    if not isinstance(parameters, Mapping):
        raise BadRequest("`parameters` must be an object.")
    return StreamOptions(cast(Mode, mode), in_flight, options.version, parameters)


def _number(key: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise BadRequest(f"`{key}` must be a whole number.")
    return int(value)
