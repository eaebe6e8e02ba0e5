"""A task's answer to one payload, by an engine, with nothing of a server around them."""

from __future__ import annotations

from typing import Any

from core.engines.base import Engine
from core.tasks.base import Payload, Task


def answer_of(task: Task, engine: Engine, one: bytes | Payload, **parameters: Any) -> dict[str, Any]:
    """As the task gives it, before it becomes JSON; outputs that do not fit the task raise InvalidPackage."""
    payload = one if isinstance(one, Payload) else Payload(one)
    prepared = task.preprocess([payload], parameters)
    outputs = engine.run(prepared.inputs)
    task.check_outputs(outputs)
    (answer,) = task.postprocess(outputs, prepared.contexts, parameters)
    return answer
