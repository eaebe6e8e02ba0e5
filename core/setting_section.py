"""What all groups of settings are made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """A group of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads `port: yes` as true, which would be taken as the number 1.
        if isinstance(value, bool) and not _takes_bool(cls, info.field_name):
            raise ValueError("this is no switch: write a number or text, not yes or no")
        return value


def _takes_bool(section: type[BaseModel], name: str | None) -> bool:
    annotation = section.model_fields[name or ""].annotation
    return annotation is bool or bool in getattr(annotation, "__args__", ())
