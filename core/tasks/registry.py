"""The tasks by name, imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from core.errors import Unprocessable
from core.tasks.base import Task

TASKS: Final[Mapping[str, str]] = {
    "tensor": "core.tasks.tensor:TensorTask",
    "image-classification": "core.tasks.image_classification:ImageClassification",
}


def task_names() -> list[str]:
    """Every task this release knows."""
    return list(TASKS)


def task_class(name: str) -> type[Task]:
    """The class behind `name`. Raises Unprocessable, naming those that exist."""
    try:
        module, _, attribute = TASKS[name].partition(":")
    except KeyError:
        known = ", ".join(TASKS)
        raise Unprocessable(f"There is no task {name!r}; the tasks are {known}.") from None
    loaded: type[Task] = getattr(import_module(module), attribute)
    return loaded
