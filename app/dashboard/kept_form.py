"""A form that was sent after its session had ended: it is handed back and forth until somebody has signed in."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

import orjson
from starlette.datastructures import UploadFile
from starlette.requests import Request

from app.dashboard.csrf import FIELD
from app.state import platform_of

_MAX_BYTES: Final = 64 << 10
_PURPOSE: Final = "kept form"
_SECRET: Final = ("password", "secret")


@dataclass(frozen=True, slots=True)
class KeptForm:
    """Where a form goes and what is in it: names with values, in their order, never a password."""

    action: str
    fields: tuple[tuple[str, str], ...]
    left_out: bool = False
    """Whether it had something that is not kept: a password, a file, or too much of it all."""

    @property
    def shown(self) -> tuple[tuple[str, str], ...]:
        """The fields in which there is something, for people."""
        return tuple((name.replace("_", " "), value) for name, value in self.fields if value)


async def keep_form(request: Request) -> KeptForm:
    """What a request would have sent."""
    fields, left_out = [], False
    for name, value in (await request.form()).multi_items():
        if isinstance(value, UploadFile) or any(word in name for word in _SECRET):
            left_out = left_out or bool(value)
        elif name != FIELD:
            fields.append((name, value))
    kept = KeptForm(request.url.path, tuple(fields), left_out)
    return kept if len(orjson.dumps(kept)) <= _MAX_BYTES else KeptForm(request.url.path, (), True)


def seal_form(request: Request, kept: KeptForm) -> str:
    """The form as the sign-in page carries it; nobody else can make one."""
    text = base64.urlsafe_b64encode(orjson.dumps(kept)).decode()
    return f"{text}.{platform_of(request).access.seals.make(_PURPOSE, text)}"


def open_form(request: Request, sealed: str) -> KeptForm | None:
    """The inverse of `seal_form`; None where it was not made here."""
    text, _, seal = sealed.partition(".")
    if not text or not platform_of(request).access.seals.fits(_PURPOSE, text, seal):
        return None
    try:
        said = orjson.loads(base64.urlsafe_b64decode(text))
    except (binascii.Error, ValueError):
        return None
    return KeptForm(said["action"], tuple((name, value) for name, value in said["fields"]), said["left_out"])
