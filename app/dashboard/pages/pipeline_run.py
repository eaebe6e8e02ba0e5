"""A pipeline run with an input, and what went into and came out of each of its nodes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final

import numpy as np
import orjson
from fastapi import Path, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from app.dashboard.guard import Operator, Viewer, pages
from app.dashboard.page import PIPELINES, Crumb, Page, Section
from app.dashboard.pages.playground.shown import pretty
from app.dashboard.pages.playground.target import Choice, choices, read_form
from app.dashboard.rendering import render
from app.dashboard.words import count, size
from app.dependencies import House
from app.external.own_call import answer_own_call
from app.state import Platform
from core.access.roles import Role
from core.errors import NotFound, PlatformError, TooLarge
from core.media.images import Decoded
from core.media.previews import jpeg_of, preview
from core.pipelines.ports import ANSWER
from core.pipelines.target import to_json
from core.pipelines.trace import NodeCall, Trace
from core.tasks.base import Payload

router = pages()
Name = Annotated[str, Path(max_length=255)]
SIDE: Final = 160
"""Pixels of a picture's longer side, at most."""
MOST_PICTURES: Final = 6
_TEXTS: Final = ("text", "inputs", "parameters")
_FIRST: Final = 12


@dataclass(frozen=True, slots=True)
class Value:
    """What lay on an edge: some pictures as `data:` addresses, or a text."""

    port: str
    pictures: Sequence[str] = ()
    text: str = ""
    more: str = ""


@dataclass(frozen=True, slots=True)
class ShownCall:
    """One call of a node."""

    name: str
    what: str
    start_ms: float
    length_ms: float
    inputs: Sequence[Value]
    outputs: Sequence[Value]


@dataclass(frozen=True, slots=True)
class RunPage(Page):
    """The form, and what came of it."""

    template: ClassVar[str] = "pages/pipelines/run.html"
    section: ClassVar[Section] = PIPELINES
    name: str
    chosen: Choice | None
    may_call: bool
    texts: Mapping[str, str] = field(default_factory=dict)
    calls: Sequence[ShownCall] = ()
    left_out: int = 0
    total_ms: float = 0.0
    answer: str = ""
    problem: str = ""

    @property
    def title(self) -> str:
        """See Page."""
        return "Run"

    @property
    def path(self) -> str:
        """Where the pipeline is."""
        return f"{PIPELINES.path}/{self.name}"

    @property
    def crumbs(self) -> tuple[Crumb, ...]:
        """See Page."""
        return (Crumb(PIPELINES.title, PIPELINES.path), Crumb(self.name, self.path))


@router.get("/pipelines/{name}/run")
async def form_of(request: Request, name: Name, user: Viewer, house: House) -> Response:
    """The form."""
    if not house.pipelines.has(name):
        raise NotFound(f"No pipeline called {name[:64]!r} is in service; deploy one of its versions first.")
    return render(request, RunPage(name, _choice(house, name), user.role.allows(Role.OPERATOR)))


@router.post("/pipelines/{name}/run")
async def run(request: Request, name: Name, _: Operator, house: House) -> Response:
    """Run it as an application would, and show each node's part; nothing of it is kept."""
    form = await request.form()
    texts = {key: value for key in _TEXTS if isinstance(value := form.get(key), str)}
    chosen, trace = _choice(house, name), Trace()
    try:
        if chosen is None or not chosen.is_pipeline:
            raise NotFound(f"No pipeline called {name[:64]!r} is in service; deploy one of its versions first.")
        call = read_form(chosen, await _file(form, chosen, house), texts)
        body = orjson.loads(await answer_own_call(house, request.scope, name, None, call, trace))
    except PlatformError as error:
        calls = await asyncio.to_thread(_shown, trace, house)  # how far it came
        page = RunPage(name, chosen, True, texts, calls, trace.left_out, problem=error.message)
        return render(request, page, error.status)
    calls = await asyncio.to_thread(_shown, trace, house)
    total_ms = float(body["timing_ms"]["total"])
    return render(request, RunPage(name, chosen, True, texts, calls, trace.left_out, total_ms, pretty(body)))


def _choice(house: Platform, name: str) -> Choice | None:
    return next((one for one in choices(house) if one.name == name), None)


async def _file(form: FormData, chosen: Choice, house: Platform) -> Payload | None:
    sent = form.get("media")
    if not isinstance(sent, UploadFile) or not sent.filename:
        return None
    most = house.settings.inference.max_body_bytes
    if (sent.size or 0) > most:
        raise TooLarge(f"The body is larger than the {most / (1 << 20):g} MiB that one request may have.")
    part = chosen.modality if chosen.modality in ("image", "audio") else "file"
    return Payload(await sent.read(), sent.content_type or "", part)


def _shown(trace: Trace, house: Platform) -> list[ShownCall]:
    """The calls in the order in which they began. Blocks: pictures are made small."""
    most = house.settings.inference.max_pixels
    calls = sorted(trace.calls, key=lambda call: call.start_ms)
    return [_call(call, most) for call in calls]


def _call(call: NodeCall, max_pixels: int) -> ShownCall:
    return ShownCall(
        call.name,
        call.what,
        call.start_ms,
        call.end_ms - call.start_ms,
        [value_of(port, value, max_pixels) for port, value in call.inputs.items()],
        [value_of(port, value, max_pixels) for port, value in call.outputs.items() if port != ANSWER],
    )


def value_of(port: str, value: Any, max_pixels: int) -> Value:
    """A value as the page shows it."""
    several = value if isinstance(value, list) and value and _is_picture(value[0]) else [value]
    if _is_picture(several[0]):
        pictures = [_picture(one, max_pixels) for one in several[:MOST_PICTURES]]
        left = len(several) - len(pictures)
        return Value(port, [one for one in pictures if one], more=f"and {left} more" if left else "")
    if isinstance(value, Payload):
        return Value(port, text=f"{size(len(value.data))} of {value.media_type or 'an unknown kind'}")
    if isinstance(value, np.ndarray):
        shape = " × ".join(str(axis) for axis in value.shape) or "one value"
        first = ", ".join(f"{one:.4g}" if isinstance(one, float) else str(one) for one in _some(value))
        return Value(port, text=f"{value.dtype} {shape}: {first}{' …' if value.size > _FIRST else ''}")
    said = to_json(value)
    return Value(port, text=said if isinstance(said, str) else pretty(said), more=_length(said))


def _some(value: np.ndarray[Any, Any]) -> list[Any]:
    some: list[Any] = value.reshape(-1)[:_FIRST].tolist()
    return some


def _length(value: Any) -> str:
    return f"{count(len(value))} items" if isinstance(value, list) else ""


def _is_picture(value: Any) -> bool:
    return isinstance(value, Decoded) or (
        isinstance(value, Payload) and (value.image is not None or value.name == "image")
    )


def _picture(value: Any, max_pixels: int) -> str:
    """As a `data:` address; empty for one that cannot be read."""
    image = value if isinstance(value, Decoded) else value.image
    try:
        jpeg = (
            jpeg_of(image, SIDE)
            if image is not None
            else preview(value.data, max_pixels=max_pixels, side=SIDE).jpeg
        )
    except PlatformError:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
