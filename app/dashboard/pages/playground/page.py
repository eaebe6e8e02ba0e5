"""The Playground: send something to a model or a pipeline, and see the answer drawn."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final

import orjson
from fastapi import Path, Query, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from app.dashboard.guard import Operator, Viewer, pages
from app.dashboard.page import PLAYGROUND, Page, Section
from app.dashboard.pages.playground.labels import Label, placed
from app.dashboard.pages.playground.marks import Piece, pieces
from app.dashboard.pages.playground.shown import Shown, shown
from app.dashboard.pages.playground.snippets import Same, Snippets, snippets
from app.dashboard.pages.playground.target import NOUNS, Choice, choices, read_form
from app.dashboard.rendering import fragment, render
from app.dashboard.words import size
from app.dependencies import House
from app.external.own_call import answer_own_call
from app.state import Platform
from core.access.roles import Role
from core.errors import NotFound, PlatformError, TooLarge
from core.media.previews import Colour, Waveform, coloured, preview, waveform
from core.serving.catalogue import no_such_model
from core.tasks.base import Payload

router = pages()

Name = Annotated[str, Path(max_length=255)]
_TEXTS: Final = ("text", "inputs", "parameters", "version")
_COLOURS: Final[Sequence[Colour]] = (
    (47, 126, 216),
    (42, 157, 143),
    (224, 159, 62),
    (155, 93, 229),
    (209, 73, 91),
    (95, 168, 211),
    (122, 158, 63),
    (141, 110, 99),
)
"""Those of `.segment-N` in css/components.css."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was sent, as the page shows it: a picture as a `data:` address with its size, or a waveform."""

    picture: str = ""
    width: int = 0
    height: int = 0
    labels: Sequence[Label] = ()
    map: str = ""
    sound: Waveform | None = None
    text: Sequence[Piece] = ()
    """With what was found in it marked; empty where nothing was."""


@dataclass(frozen=True, slots=True)
class PlaygroundPage(Page):
    """A target, a form for it, and perhaps an answer or what was wrong."""

    template: ClassVar[str] = "pages/playground/page.html"
    section: ClassVar[Section] = PLAYGROUND
    choices: Sequence[Choice]
    chosen: Choice | None
    may_call: bool
    role: str
    code: Snippets | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    answer: Shown | None = None
    seen: Seen = field(default_factory=Seen)
    problem: str = ""

    @property
    def groups(self) -> list[tuple[str, list[Choice]]]:
        """The choices by what they take."""
        by_noun = [(noun, [one for one in self.choices if one.modality == kind]) for kind, noun in NOUNS.items()]
        return [(noun, found) for noun, found in by_noun if found]


@router.get("/playground")
async def playground(
    request: Request, user: Viewer, house: House, target: Annotated[str, Query(max_length=255)] = ""
) -> Response:
    """The form for `target`, or for the first that there is."""
    return render(request, _page(request, house, user.role, target))


@router.get("/playground/{name}")
async def playground_of(request: Request, name: Name, user: Viewer, house: House) -> Response:
    """The same at an address of its own."""
    page = _page(request, house, user.role, name)
    if page.chosen is None or page.chosen.name != name:
        raise NotFound(f"Nothing called {name[:64]!r} is in service, so it cannot be tried. Deploy it first.")
    return render(request, page)


@router.post("/playground/{name}")
async def call(request: Request, name: Name, user: Operator, house: House) -> Response:
    """Call the target as an application would, and show what it answers."""
    form = await request.form()
    texts = {key: value for key in _TEXTS if isinstance(value := form.get(key), str)}
    parameters: dict[str, Any] = {}
    sent = ""
    try:
        chosen = next((one for one in choices(house) if one.name == name), None)
        if chosen is None:
            raise house.catalogue.why_not(name) if house.catalogue.has(name) else no_such_model(name)
        file = await _file(form, chosen, house)
        sent = f"{size(len(file.data))} of {file.media_type or 'an unknown kind'}" if file is not None else ""
        asked = read_form(chosen, file, texts)
        parameters = dict(asked.parameters)
        if chosen.is_pipeline:
            asked.parameters.setdefault("node_timings", True)
        body = await answer_own_call(house, request.scope, name, _version(texts), asked)
        answer, seen = await asyncio.to_thread(_drawn, body, chosen.modality, file, texts.get("text", ""), house)
        page = _page(request, house, user.role, name, texts, answer, seen, parameters=parameters, sent=sent)
        return _show(request, page, 200)
    except PlatformError as error:
        said = error.message
        page = _page(request, house, user.role, name, texts, problem=said, parameters=parameters, sent=sent)
        response = _show(request, page, error.status)
        response.headers.update(error.headers())
        return response


def _show(request: Request, page: PlaygroundPage, status: int) -> Response:
    if "hx-request" in request.headers:
        return fragment(request, "pages/playground/answer.html", page, status)
    return render(request, page, status)


async def _file(form: FormData, chosen: Choice, house: Platform) -> Payload | None:
    """What was chosen as a file. Raises TooLarge; the body as a whole is capped where it is read."""
    sent = form.get("media")
    if not isinstance(sent, UploadFile) or not sent.filename:
        return None
    most = house.settings.inference.max_body_bytes
    if (sent.size or 0) > most:
        raise TooLarge(f"The body is larger than the {most / (1 << 20):g} MiB that one request may have.")
    part = chosen.modality if chosen.modality in ("image", "audio") else "file"
    return Payload(await sent.read(), sent.content_type or "", part)


def _drawn(body: bytes, modality: str, file: Payload | None, text: str, house: Platform) -> tuple[Shown, Seen]:
    """The answer sorted, and what was sent as a browser shows it. Blocks: it decodes pictures and sounds."""
    found = shown(orjson.loads(body))
    caps = house.settings.inference
    if file is None or modality not in ("image", "audio"):
        return found, Seen(text=pieces(text, found.entities))
    if modality == "audio":
        return found, Seen(sound=waveform(file.data, max_seconds=caps.max_audio_s, max_bytes=caps.max_audio_bytes))
    picture = preview(file.data, max_pixels=caps.max_pixels)
    laid_over = _data("image/png", coloured(found.map_png, _COLOURS)) if found.map_png else ""
    labels = placed(found.shapes, picture.width, picture.height)
    return found, Seen(_data("image/jpeg", picture.jpeg), picture.width, picture.height, labels, laid_over)


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _page(
    request: Request,
    house: Platform,
    role: Role,
    name: str,
    texts: Mapping[str, str] | None = None,
    answer: Shown | None = None,
    seen: Seen | None = None,
    *,
    problem: str = "",
    parameters: dict[str, Any] | None = None,
    sent: str = "",
) -> PlaygroundPage:
    there = choices(house)
    chosen = next((one for one in there if one.name == name), None)
    if chosen is None and not problem:
        chosen = there[0] if there else None
    return PlaygroundPage(
        choices=there,
        chosen=chosen,
        may_call=role.allows(Role.OPERATOR),
        role=role.value,
        code=_code(request, chosen, texts or {}, parameters or {}, sent),
        texts=texts or {},
        answer=answer,
        seen=seen or Seen(),
        problem=problem,
    )


def _code(
    request: Request, chosen: Choice | None, texts: Mapping[str, str], parameters: dict[str, Any], sent: str
) -> Snippets | None:
    if chosen is None:
        return None
    inputs: Any = texts.get("text") or "The text."
    if chosen.modality == "tensor":
        inputs = _json_or_name(texts.get("inputs") or chosen.example_inputs)
    same = Same(chosen.name, chosen.modality, inputs, parameters, _version(texts), sent)
    return snippets(str(request.base_url).split("/dashboard")[0], same)


def _version(texts: Mapping[str, str]) -> int | None:
    said = texts.get("version", "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 10 else None


def _json_or_name(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return {"input": []}
    return value["inputs"] if isinstance(value, dict) and "inputs" in value else value
