"""What the pages of the section System share: their tabs."""

from __future__ import annotations

from typing import ClassVar, Final

from app.dashboard.page import SYSTEM, Page, Section

TABS: Final = (
    ("Machine", "/dashboard/system"),
    ("Nodes", "/dashboard/system/nodes"),
    ("Engines", "/dashboard/system/engines"),
    ("Settings", "/dashboard/system/settings"),
    ("About", "/dashboard/system/about"),
)


class SystemPage(Page):
    """A page with the tabs of the section."""

    section: ClassVar[Section | None] = SYSTEM
    tabs: ClassVar = TABS
