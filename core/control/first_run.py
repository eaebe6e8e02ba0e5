"""What a version is run on before anybody asks it, where its signature alone does not tell: its task's example.

A model whose lengths or sizes vary cannot be fed zeros of the signature's shapes. Its task can make an example of
what it takes, as validation does, and knows the tensors that come of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import structlog

from core.errors import PlatformError
from core.serving.warm_up import warm_up_inputs
from core.signature import Signature
from core.tasks.base import Task
from core.validation.samples import example_of

log = structlog.get_logger(__name__)

Arrays = dict[str, np.ndarray[Any, Any]]
MakeTask = Callable[[Signature], Task]


def example_inputs(make_task: MakeTask, signature: Signature) -> Arrays | None:
    """The tensors of the task's example, of one item; None where there is no need of one, or none to be had.

    What is wrong with the task is not said here, but where it is bound to the model.
    """
    if warm_up_inputs(signature) is not None:
        return None
    try:
        task = make_task(signature)
        example = example_of(task)
        return None if example is None else task.preprocess([example], task.example_parameters()).inputs
    except PlatformError as error:
        log.warning("model.no_example", error=error.message)
        return None
