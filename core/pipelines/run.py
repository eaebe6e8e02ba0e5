"""One run of a pipeline over one item: a node runs as soon as what it needs is there, branches at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.errors import (
    InvalidInput,
    ModelNotFound,
    NotReady,
    PlatformError,
    QueueFull,
    RunFailed,
    ShuttingDown,
)
from core.media.images import Decoded
from core.pipelines.pins import Pins
from core.pipelines.plan import Body, Node, Source
from core.pipelines.ports import ANSWER
from core.pipelines.timings import Timings
from core.pipelines.trace import Trace
from core.serving.gathering import Gathering
from core.serving.request import InferenceRequest, InferenceResult, Timing
from core.serving.target import Target
from core.signature import NUMPY_DTYPES
from core.tasks.base import Payload

Values = dict[str, Any]
Call = Callable[[Target, InferenceRequest], Awaitable[InferenceResult]]
FIRST_PAUSE_S, LAST_PAUSE_S = 0.002, 0.1
INLINE_ITEMS = 64
"""So many items are done on the event loop before others get their turn."""


@dataclass(slots=True)
class Run:
    """What all nodes of one run share. `deadline` is in seconds of `time.monotonic()`."""

    pins: Pins
    call: Call
    threads: Gathering
    request: InferenceRequest
    deadline: float
    timings: Timings = field(default_factory=Timings)
    cut_short: str = ""
    """The node that was under way when the run was cancelled."""
    trace: Trace | None = None
    """Keeps what goes in and comes out, where somebody wants to see it."""

    async def nodes(self, nodes: Sequence[Node], values: Values, place: Place) -> None:
        """Run nodes, and add each one's outputs to `values` under its name. Raises PlatformError that names it."""
        left = list(nodes)
        running: dict[asyncio.Task[Values], Node] = {}
        try:
            while left or running:
                waiting = self._inline(left, values, place)
                ready = [node for node in waiting if node.needs <= values.keys()]
                left = [node for node in waiting if node not in ready]
                if len(ready) == 1 and not left and not running:  # a chain needs no task of its own
                    values[ready[0].name] = await self._node(ready[0], values, place)
                    return
                for node in ready:
                    task = asyncio.create_task(self._node(node, values, place), name=place.name_of(node))
                    running[task] = node
                if not running:
                    continue
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    values[running.pop(task).name] = task.result()
        finally:
            await _end(running)

    def _inline(self, nodes: Sequence[Node], values: Values, place: Place) -> list[Node]:
        """Run what needs no waiting and can run now; answers the others."""
        others = []
        for node in nodes:  # in an order in which they can run
            if not waits(node) and node.needs <= values.keys():
                started = time.monotonic()
                values[node.name] = self._operate(node, values, place)
                self._note(node, values, values[node.name], place, started)
            else:
                others.append(node)
        return others

    async def _node(self, node: Node, values: Values, place: Place) -> Values:
        started = time.monotonic()
        try:
            if node.spec.model:
                return await self._model(node, values, place, started)
            if node.spec.op == "map":
                found = await self._map(node, values, place)
            elif node.spec.op == "switch":
                found = await self._switch(node, values, place)
            else:
                found = await self.threads.call(self._operate, node, values, place)
        except asyncio.CancelledError:
            self.cut_short = self.cut_short or place.name_of(node)
            raise
        self._note(node, values, found, place, started)
        return found

    def _note(
        self,
        node: Node,
        values: Values,
        found: Values,
        place: Place,
        started: float,
        timing: Timing | None = None,
    ) -> None:
        self.timings.note(place.name_of(node), started, timing)
        if self.trace is not None:
            inputs = {port: find(source, values) for port, source in node.sources.items()}
            self.trace.note(place.shown + node.name, node.spec.model or node.spec.op, inputs, found, started)

    def _operate(self, node: Node, values: Values, place: Place) -> Values:
        assert node.operation is not None
        try:
            inputs = {port: find(source, values) for port, source in node.sources.items()}
            return node.operation.run(inputs, node.options)
        except PlatformError as error:
            raise place.error(node, error) from error

    async def _model(self, node: Node, values: Values, place: Place, started: float) -> Values:
        try:
            target = await self.pins.target(node.spec.model, node.spec.version)
            if target.modality != node.modality or target.task != node.task:
                raise RunFailed("its model is of another task than when the pipeline was checked.")
            request = self._request(node, values, sibling=place.inner)
            result = await self._answer(target, request)
            found = _outputs(node, result)
        except PlatformError as error:
            raise place.error(node, error) from error
        self._note(node, values, found, place, started, result.timing)
        return found

    def _request(self, node: Node, values: Values, *, sibling: bool) -> InferenceRequest:
        request = InferenceRequest(
            parameters=node.spec.parameters,
            request_id=self.request.request_id,
            priority=self.request.priority,
            deadline=self.deadline,
            sibling=sibling,
        )
        inputs = {port: find(source, values) for port, source in node.sources.items()}
        if node.modality == "tensor":
            request.inputs = {name: _tensor(value, node.tensor_spec(name)) for name, value in inputs.items()}
        else:
            (value,) = inputs.values()
            request.payloads = [payload_of(value)]
        return request

    async def _answer(self, target: Target, request: InferenceRequest) -> InferenceResult:
        """Call a model. What a map has begun waits for room in the queue: most of its work may be done already."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self.call(target, request)
            except QueueFull:
                if not request.sibling or time.monotonic() + pause_s >= self.deadline:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(LAST_PAUSE_S, 2 * pause_s)

    async def _map(self, node: Node, values: Values, place: Place) -> Values:
        spec, body = node.spec, node.body
        assert body is not None
        items = find(node.sources["over"], values)
        if len(items) > spec.max_items:
            reason = f"{len(items)} items came, and it takes {spec.max_items} at most; put a `top-k` before it."
            raise place.error(node, InvalidInput(reason))
        results: list[Any] = [None] * len(items)
        left = iter(range(len(items)))

        async def work() -> None:
            for i in left:
                results[i] = await self._body(body, {**values, spec.item: items[i]}, place.within(node, i))

        if not any(waits(inner) for inner in body.nodes):
            for i in left:
                results[i] = await self._body(body, {**values, spec.item: items[i]}, place.within(node, i))
                if i % INLINE_ITEMS == INLINE_ITEMS - 1:
                    await asyncio.sleep(0)
        else:
            await together([work() for _ in range(min(spec.parallel, len(items)))])
        return {"items": results}

    async def _switch(self, node: Node, values: Values, place: Place) -> Values:
        by = find(node.sources["by"], values)
        body = _choose(node, by)
        return {"value": await self._body(body, dict(values), place.within(node))}

    async def _body(self, body: Body, values: Values, place: Place) -> Any:
        await self.nodes(body.nodes, values, place)
        return find(body.output, values)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the graph a node is: as timings name it, and as errors do, which tell items of a map apart."""

    name: str = ""
    shown: str = ""
    inner: bool = False
    """Whether this is within a map."""

    def within(self, node: Node, item: int | None = None) -> Place:
        """The place of what is in a node's body, for an item of a map."""
        number = "" if item is None else f"[{item}]"
        name, shown = self.name_of(node), f"{self.shown}{node.name}{number}"
        return Place(f"{name}.", f"{shown}.", self.inner or item is not None)

    def name_of(self, node: Node) -> str:
        """The node's dotted name."""
        return f"{self.name}{node.name}"

    def error(self, node: Node, error: PlatformError) -> PlatformError:
        """The same error, which says the node, and nothing of a model that the caller may not know."""
        if isinstance(error, ShuttingDown | ModelNotFound):
            error = NotReady("its model was taken out of service meanwhile.", retry_after_s=1)
        message = f"Node {self.shown + node.name!r}: {error.message}"
        return type(error)(message, retry_after_s=error.retry_after_s)


def waits(node: Node) -> bool:
    """Whether a node must be waited for; the others are done at once on the event loop."""
    return node.operation is None or node.operation.heavy


def find(source: Source, values: Mapping[str, Any]) -> Any:
    """The value that an edge leads to. Raises InvalidInput where a model's answer lacks what its kind has."""
    value = values[source.name]
    try:
        if source.port is not None:
            value = value[source.port]
        for name in source.path:
            value = value[name]
    except (KeyError, TypeError):
        missing = ".".join((source.name, *((source.port,) if source.port else ()), *source.path))
        raise InvalidInput(f"there is no {missing!r} in what came.") from None
    return value


def payload_of(value: Any) -> Payload:
    """A value as a model's task takes it; pixels go as they are."""
    if isinstance(value, Payload):
        return value
    if isinstance(value, Decoded):
        return Payload(b"", image=value)
    return Payload(str(value).encode(), "text/plain")


async def together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all of these; the first error ends the others, and is raised once they have ended."""
    tasks = [asyncio.create_task(one) for one in work]
    if not tasks:
        return
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[Any]] | Mapping[asyncio.Task[Any], Any]) -> None:
    """Cancel what still runs, and wait for its end: nothing of a request outlives it."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.gather(*tasks, return_exceptions=True)


def _choose(node: Node, by: Any) -> Body:
    """The body of the case that fits: the text's, or the highest number that is reached; otherwise the default."""
    if isinstance(by, str):
        for branch in node.branches:
            if by in branch.when:
                return branch.body
    elif by is not None:
        reached = [branch for branch in node.branches if branch.at_least is not None and by >= branch.at_least]
        if reached:
            return max(reached, key=lambda branch: branch.at_least or 0.0).body
    return node.branches[-1].body


def _outputs(node: Node, result: InferenceResult) -> Values:
    if node.modality == "tensor":
        return dict(result.outputs or {})
    answer = (result.answers or [{}])[0]
    missing = [port for port in node.outputs if port != ANSWER and port not in answer]
    if missing:
        raise RunFailed(f"its model answered no {missing[0]!r}.")
    return {**answer, ANSWER: answer}


def _tensor(value: Any, spec: tuple[str, int]) -> np.ndarray[Any, Any]:
    """An array of this dtype and so many axes; an embedding becomes a batch of one where two are asked for."""
    if isinstance(value, np.ndarray):
        return value
    array = np.asarray(value, NUMPY_DTYPES[spec[0]])
    return array[None] if array.ndim == spec[1] - 1 else array
