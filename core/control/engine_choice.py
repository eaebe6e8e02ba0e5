"""Whether an engine runs what is to be deployed, and in the way that is asked for."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Mapping
from typing import Any, Final

from core.engines.registry import engine_class, engines_for
from core.errors import EngineUnavailable, Unprocessable

OPTIONS: Final = ("precision", "hint")
"""What a deployment may choose of the options of an engine that it names."""


def chosen_options(spec: Mapping[str, Any]) -> dict[str, str]:
    """Those that are chosen, of a deployment's `spec`."""
    return {name: str(spec[name]) for name in OPTIONS if spec.get(name) is not None}


def check_engine(engine: str, format_: str) -> None:
    """Raises Unprocessable where there is no such engine, or it does not run this format."""
    if engine == "auto":
        return
    engine_class(engine)
    if engine not in engines_for(format_):
        raise Unprocessable(f"The engine {engine} does not run {format_} models.")


async def check_choices(wanted: Mapping[str, Any]) -> None:
    """Raises Unprocessable for an option in `wanted` that its engine does not have on its device here.

    It may import the engine's library: call it outside of a transaction.
    """
    chosen = chosen_options(wanted)
    if chosen:
        engine, device = str(wanted.get("engine", "auto")), str(wanted.get("device", "cpu"))
        await to_thread(_check_options, engine, device, chosen)


def _check_options(engine: str, device: str, chosen: Mapping[str, str]) -> None:
    first = next(iter(chosen))
    if engine == "auto":
        raise Unprocessable(
            f"`{first}` is chosen for an engine: name one. `auto` takes what a search has found to be best."
        )
    try:
        has = engine_class(engine).choices(device)
    except EngineUnavailable as error:
        raise Unprocessable(f"`{first}` cannot be checked here. {error.message}") from error
    for name, word in chosen.items():
        if word not in has.get(name, ()):
            raise Unprocessable(_what_it_has(engine, device, name, word, has.get(name, ())))


def _what_it_has(engine: str, device: str, name: str, word: str, words: Any) -> str:
    if not words:
        return f"The engine {engine} has no `{name}` to choose."
    more = " A model becomes int8 by being converted, as a search tries it." if word == "int8" else ""
    return f"The engine {engine} has the {name} {' or '.join(words)} on {device} here, not {word}.{more}"
