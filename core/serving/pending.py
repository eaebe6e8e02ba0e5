"""A request on its way to a host."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from core.errors import PlatformError
from core.serving.trace import Halted, current_id
from core.serving.wire import Header
from core.tasks.base import Prepared

Tensors = Mapping[str, np.ndarray[Any, Any]]


class Pending:
    """A request that has been sent, or waits to be sent again."""

    __slots__ = (
        "crashes",
        "deadline",
        "each",
        "future",
        "halted",
        "id",
        "inputs",
        "items",
        "priority",
        "sibling",
        "trace_id",
    )

    def __init__(
        self,
        id_: int,
        inputs: Tensors,
        items: int,
        priority: int,
        deadline: float,
        future: asyncio.Future[Any],
        each: Prepared | None = None,
        sibling: bool = False,
    ) -> None:
        self.id = id_
        self.sibling = sibling
        self.inputs = inputs
        self.items = items
        self.priority = priority
        self.deadline = deadline
        self.future = future
        """Gets a RunResult, or an EachResult where `each` is given."""
        self.each = each
        """The same request, where its items differ in length."""
        self.crashes = 0
        self.trace_id = current_id()
        self.halted: Halted | None = None
        """How far it came, where it is traced and the host has told that it failed."""

    def header(self) -> Header:
        """What the host needs to know beside the tensors. One that has been in a crash runs alone."""
        header: Header = {"n": self.items, "p": self.priority, "d": self.deadline, "s": self.crashes > 0}
        if self.sibling:
            header["g"] = True
        if self.each is not None:
            padding = {name: tuple(how) for name, how in self.each.padding.items()}
            header["e"] = [[int(length) for length in self.each.lengths or ()], padding]
        if self.trace_id is not None:
            header["x"] = list(self.trace_id)
        return header

    def fail(self, error: PlatformError) -> None:
        """Answer with an error, unless it is answered already."""
        if not self.future.done():
            self.future.set_exception(error)
