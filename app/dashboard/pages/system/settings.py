"""What the process was told at its start: every setting, its value, and what it is for. Secrets stay secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fastapi import Request
from pydantic import BaseModel, SecretStr
from starlette.responses import Response

from app.dashboard.guard import Operator, pages
from app.dashboard.pages.system.tabs import SystemPage
from app.dashboard.rendering import render
from app.dependencies import House
from core.setting_section import Section
from core.settings import Settings

router = pages()
_HIDDEN = "(set, not shown)"


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting. `origin` is where it came from; empty for a default."""

    name: str
    variable: str
    value: str
    origin: str
    description: str


@dataclass(frozen=True, slots=True)
class SettingsPage(SystemPage):
    """Settings by section."""

    template: ClassVar[str] = "pages/system/settings.html"
    sections: Sequence[tuple[str, Sequence[SettingRow]]]

    @property
    def title(self) -> str:
        """See Page."""
        return "Settings"

    @property
    def changed(self) -> int:
        """How many are not as they come."""
        return sum(bool(row.origin) for _, rows in self.sections for row in rows)


@router.get("/system/settings")
async def settings(request: Request, _: Operator, house: House) -> Response:
    """The settings, read-only: they are changed where the server is started."""
    return render(request, SettingsPage(setting_rows(house.settings)))


def setting_rows(settings: Settings) -> list[tuple[str, list[SettingRow]]]:
    """Every setting by its section; those of none come first, under "general"."""
    sections: list[tuple[str, list[SettingRow]]] = []
    general = [row for row in _rows(settings, "", settings.origins) if row.name in Settings.model_fields]
    sections.append(("general", general))
    for name in Settings.model_fields:
        section = getattr(settings, name)
        if isinstance(section, Section):
            sections.append((name, list(_rows(section, f"{name}.", settings.origins))))
    return sections


def _rows(section: BaseModel, prefix: str, origins: Mapping[str, str]) -> Iterator[SettingRow]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            continue
        dotted = f"{prefix}{name}"
        yield SettingRow(
            name=dotted,
            variable="PULVINAR_" + dotted.replace(".", "__").upper(),
            value=_shown(value),
            origin=_origin(dotted, origins),
            description=field.description or "",
        )


def _origin(name: str, origins: Mapping[str, str]) -> str:
    """Where a setting came from; of one with keys of its own, where the first of them did."""
    inner = (origin for known, origin in origins.items() if known.startswith(f"{name}."))
    return origins.get(name) or next(inner, "")


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        return _HIDDEN
    if value is None or value in ([], {}, ""):
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {one}" for key, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    return str(value)
