"""Forms: what was typed, what it means, and what is wrong with it, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData

from app.dashboard.csrf import FIELD
from core.errors import PlatformError

Model = TypeVar("Model", bound=BaseModel)
WHOLE: Final = ""
"""In `errors`, what is wrong with the form as a whole."""
_MISSING: Final = "Fill this in."


@dataclass(frozen=True, slots=True)
class Filled(Generic[Model]):
    """A form as somebody filled it in. `value` is None where `errors` (by field) says what is wrong."""

    texts: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    value: Model | None = None
    prefix: str = ""
    """Before the ids of its fields, where a page has several forms."""

    def refused(self, error: PlatformError, name: str = WHOLE) -> Filled[Model]:
        """The same with what the platform said against it, shown at a field or above the form."""
        return replace(self, value=None, errors={**self.errors, name: error.message})


def fill(model: type[Model], form: FormData) -> Filled[Model]:
    """Read a form as `model`. An empty field counts as left out; a field sent several times is a list."""
    texts = {name: ", ".join(_texts(form, name)) for name in form if name != FIELD}
    values = {name: _value(_texts(form, name)) for name in texts}
    try:
        return Filled(texts, value=model.model_validate({key: value for key, value in values.items() if value}))
    except ValidationError as error:
        errors: dict[str, str] = {}
        for one in error.errors():
            message = _MISSING if one["type"] == "missing" else one["msg"].removeprefix("Value error, ")
            errors.setdefault(str(one["loc"][0]) if one["loc"] else WHOLE, message)
        return Filled(texts, errors)


def _texts(form: FormData, name: str) -> list[str]:
    return [value.strip() for value in form.getlist(name) if isinstance(value, str)]


def _value(texts: list[str]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else texts
