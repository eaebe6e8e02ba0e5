"""The engines by name, imported on first use: one whose library is missing is listed so and breaks nothing.

Other packages add engines by entry points of the group `pulvinar.engines` (docs/adding-an-engine.md); a name that
stands here is never theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

from core.engines.base import Engine, EngineInfo
from core.errors import EngineUnavailable, Unprocessable

ENGINES: Final[Mapping[str, str]] = {
    "onnx": "core.engines.onnx:OnnxEngine",
    "openvino": "core.engines.openvino:OpenvinoEngine",
    "torch": "core.engines.torch:TorchEngine",
    "tensorrt": "core.engines.tensorrt:TensorrtEngine",
    "ctranslate2": "core.engines.ctranslate2:Ctranslate2Engine",
    "fake": "core.engines.fake:FakeEngine",
}
GROUP: Final = "pulvinar.engines"


def engine_names() -> list[str]:
    """Every engine known here, usable or not: this release's own, then those of other packages."""
    return list(_places())


def engine_class(name: str) -> type[Engine]:
    """The class behind `name`. Raises Unprocessable (unknown) or EngineUnavailable (it cannot be imported)."""
    try:
        place = _places()[name]
    except KeyError:
        known = ", ".join(_places())
        raise Unprocessable(f"There is no engine {name!r}; the engines are {known}.") from None
    return _import(name, place)


def engines_for(format: str) -> list[str]:
    """The engines that load this artifact format (`onnx`, `fake` …) and can be imported, best first."""
    found = []
    for name in _places():
        try:
            formats = engine_class(name).formats
        except EngineUnavailable:
            continue
        if format in formats:
            found.append(name)
    return found


def list_engines() -> list[EngineInfo]:
    """What each engine says about itself on this machine. Never raises."""
    return [_info(name) for name in _places()]


def outside_engines() -> dict[str, tuple[str, ...]]:
    """The formats of the engines that other packages have brought and that can be imported, by name."""
    found = {}
    for name in _places().keys() - ENGINES.keys():
        try:
            found[name] = engine_class(name).formats
        except EngineUnavailable:
            continue
    return found


def _places() -> Mapping[str, str]:
    return {**ENGINES, **{name: place for name, place in _outside().items() if name not in ENGINES}}


@cache
def _outside() -> Mapping[str, str]:
    # Read once: it looks through every installed package, and none appears while a process runs.
    return {point.name: point.value for point in entry_points(group=GROUP)}


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
    if name not in ENGINES:
        return f"see the package that brings {name}"
    return f"install what docs/engines.md lists for {name}"
