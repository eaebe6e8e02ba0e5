"""Whether what traces are sent by is installed; a command asks before it loads anything else."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from core.settings import InvalidSettings
from core.tracing_settings import TracingSettings

INSTALL: Final = "pip install 'pulvinar[tracing]'"
_PACKAGES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def check_tracing(settings: TracingSettings) -> None:
    """Raise InvalidSettings where traces are wanted and what sends them is not installed."""
    if settings.enabled and not all(map(_is_there, _PACKAGES)):
        raise InvalidSettings(f"The setting tracing.enabled needs the extra `tracing`: {INSTALL}")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # one that it would be in
        return False
