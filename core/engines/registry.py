"""The engines by name, imported on first use: one whose library is missing is listed so and breaks nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Final

from core.engines.base import Engine, EngineInfo
from core.errors import EngineUnavailable, Unprocessable

ENGINES: Final[Mapping[str, str]] = {
    "onnx": "core.engines.onnx:OnnxEngine",
    "fake": "core.engines.fake:FakeEngine",
}


def engine_names() -> list[str]:
    """Every engine this release knows, usable here or not."""
    return list(ENGINES)


def engine_class(name: str) -> type[Engine]:
    """The class behind `name`. Raises Unprocessable (unknown) or EngineUnavailable (it cannot be imported)."""
    try:
        place = ENGINES[name]
    except KeyError:
        known = ", ".join(ENGINES)
        raise Unprocessable(f"There is no engine {name!r}; the engines are {known}.") from None
    return _import(name, place)


def engines_for(format: str) -> list[str]:
    """The engines that load this artifact format (`onnx`, `fake` …) and can be imported, best first."""
    found = []
    for name in ENGINES:
        try:
            formats = engine_class(name).formats
        except EngineUnavailable:
            continue
        if format in formats:
            found.append(name)
    return found


def list_engines() -> list[EngineInfo]:
    """What each engine says about itself on this machine. Never raises."""
    return [_info(name) for name in ENGINES]


@cache
def _import(name: str, place: str) -> type[Engine]:
    module, _, attribute = place.partition(":")
    try:
        loaded: type[Engine] = getattr(import_module(module), attribute)
    except Exception as error:
        raise EngineUnavailable(
            f"The engine {name} cannot be used here: {_what(error)}; {_hint(name)}."
        ) from error
    return loaded


def _info(name: str) -> EngineInfo:
    try:
        return engine_class(name).info()
    except EngineUnavailable as error:
        return EngineInfo(name, available=False, reason=error.message, hint=_hint(name))
    except Exception as error:  # a broken library must not take the list down with it
        return EngineInfo(name, available=False, reason=_what(error), hint=_hint(name))


def _what(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the Python module {error.name} is missing"
    return f"its library fails to import ({type(error).__name__})"


def _hint(name: str) -> str:
    return f"install what docs/engines.md lists for {name}"
