"""The servers that share this database, and which of them were heard of lately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fastapi import Request
from starlette.responses import Response

from app.dashboard.guard import Viewer, pages
from app.dashboard.pages.system.tabs import SystemPage
from app.dashboard.rendering import render
from app.dependencies import House
from core.control.nodes import NodeState, list_nodes

router = pages()


@dataclass(frozen=True, slots=True)
class NodesPage(SystemPage):
    """Each node with its last heart-beat."""

    template: ClassVar[str] = "pages/system/nodes.html"
    here: str
    nodes: Sequence[NodeState]

    @property
    def title(self) -> str:
        """See Page."""
        return "Nodes"


@router.get("/system/nodes")
async def nodes(request: Request, _: Viewer, house: House) -> Response:
    """The nodes."""
    return render(request, NodesPage(house.node, await list_nodes(house.database)))
