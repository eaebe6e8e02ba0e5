"""What every page is made of: its own typed context, and the frame around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from core.access.roles import Role


@dataclass(frozen=True, slots=True)
class Crumb:
    """A step of the way to a page."""

    title: str
    path: str


@dataclass(frozen=True, slots=True)
class Section:
    """An entry of the left rail."""

    title: str
    path: str
    icon: str
    least: Role = Role.VIEWER


OVERVIEW: Final = Section("Overview", "/dashboard/", "layout-dashboard")
MODELS: Final = Section("Models", "/dashboard/models", "box")
PLAYGROUND: Final = Section("Playground", "/dashboard/playground", "flask")
PIPELINES: Final = Section("Pipelines", "/dashboard/pipelines", "sitemap")
ACCESS: Final = Section("Access", "/dashboard/access", "key", Role.ADMIN)
SYSTEM: Final = Section("System", "/dashboard/system", "server-2")
SECTIONS: Final = (OVERVIEW, MODELS, PLAYGROUND, PIPELINES, ACCESS, SYSTEM)


class Page:
    """The base of pages' contexts: frozen dataclasses whose fields their template reads as `page.…`."""

    template: ClassVar[str]
    """In templates/, as `pages/overview/page.html`."""
    section: ClassVar[Section | None] = None

    @property
    def title(self) -> str:
        """The heading, and the name of the browser's tab."""
        return self.section.title if self.section else "Pulvinar"

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """The way from the rail's entry to this page, without the page itself."""
        if self.section is None or self.section.title == self.title:
            return ()
        return (Crumb(self.section.title, self.section.path),)


@dataclass(frozen=True, slots=True)
class Health:
    """The dot in the top bar."""

    state: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Frame:
    """What the layout shows around a page."""

    user: str
    role: Role
    theme: str
    token: str
    """Goes with every form, as the field `csrf`."""
    health: Health
    flash: str
    version: str
    sections: tuple[Section, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the sections are that this user may see and that there are."""
        return tuple(section.path for section in self.sections)
