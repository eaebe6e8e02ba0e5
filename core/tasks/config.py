"""Checking a manifest's task section: pydantic's findings in one sentence that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import InvalidPackage


class TaskConfig(BaseModel):
    """A task's section of the manifest, or a part of it; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


_TYPES: Final = frozenset({"int", "float", "str"})
Config = TypeVar("Config", bound=TaskConfig)


def parse(model: type[Config], config: Mapping[str, Any]) -> Config:
    """The checked section. Raises InvalidPackage with the dotted name of the first wrong field."""
    try:
        return model.model_validate(config)
    except ValidationError as error:
        raise InvalidPackage(_sentence(error)) from error


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    # A field with several types names each try after its own name: `mean.float`, `mean.tuple[…]`.
    name = ".".join(str(part) for part in first["loc"] if str(part) not in _TYPES and "[" not in str(part))
    if first["type"] == "extra_forbidden":
        return f"The manifest's field {name} does not exist."
    return f"The manifest's field {name} cannot be used: {first['msg'].removeprefix('Value error, ')}."
