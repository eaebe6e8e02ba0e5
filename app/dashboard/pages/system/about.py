"""Which release this is, and what it runs on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

from fastapi import Request
from starlette.responses import Response

from app.dashboard.guard import Viewer, pages
from app.dashboard.pages.system.tabs import SystemPage
from app.dashboard.rendering import render
from app.dependencies import House

router = pages()
_PARTS = ("fastapi", "uvicorn", "sqlalchemy", "pydantic", "numpy", "pillow", "onnxruntime", "openvino", "torch")


@dataclass(frozen=True, slots=True)
class AboutPage(SystemPage):
    """Versions, and where to read on."""

    template: ClassVar[str] = "pages/system/about.html"
    release: str
    python: str
    machine: str
    database: str
    parts: Sequence[tuple[str, str]]

    @property
    def title(self) -> str:
        """See Page."""
        return "About"


@router.get("/system/about")
async def about(request: Request, _: Viewer, house: House) -> Response:
    """About this server."""
    return render(
        request,
        AboutPage(
            release=version("pulvinar"),
            python=platform.python_version(),
            machine=f"{platform.system()} {platform.release()}, {platform.machine()}",
            database={"sqlite": "SQLite", "postgresql": "PostgreSQL"}[house.database.dialect],
            parts=[(name, found) for name in _PARTS if (found := _version(name))],
        ),
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
