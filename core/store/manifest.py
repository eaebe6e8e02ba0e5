from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from core.errors import InvalidPackage
from core.signature import NUMPY_DTYPES
from core.store.paths import check_member
from core.store.yaml_reader import Document, check_json, read_yaml


class Batching(BaseModel):
    """Hints for deployments that say nothing themselves."""

    model_config = ConfigDict(extra="forbid", strict=True)

    max_batch: int | None = Field(None, ge=1, le=4096)
    max_delay_ms: float | None = Field(None, ge=0, le=10_000)
    max_tokens: int | None = Field(None, ge=1, le=10_000_000)


class Tensor(BaseModel):
    """One input or output of a model whose file does not describe it; -1 in a shape is a dynamic dimension."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=200)
    dtype: str
    shape: list[Annotated[int, Field(ge=-1, le=2**31)]] = Field(max_length=32)

    @field_validator("dtype")
    @classmethod
    def _dtype_is_known(cls, value: str) -> str:
        if value not in NUMPY_DTYPES:
            raise ValueError(f"the dtypes are {', '.join(NUMPY_DTYPES)}")
        return value


class Manifest(BaseModel):
    """`model.yaml`: what a package says of its model; docs/model-package.md is its description.

    `preprocess` and `postprocess` belong to the task, which checks them itself.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    task: str = Field("tensor", min_length=1, max_length=64)
    model: str | None = Field(None, max_length=500)
    format: str | None = Field(None, max_length=32)
    description: str = Field("", max_length=4000)
    labels: list[str] | str | None = None
    preprocess: dict[str, Any] = Field(default_factory=dict)
    postprocess: dict[str, Any] = Field(default_factory=dict)
    batching: Batching = Field(default_factory=Batching)
    inputs: list[Tensor] | None = Field(None, min_length=1, max_length=256)
    outputs: list[Tensor] | None = Field(None, min_length=1, max_length=256)

    @field_validator("model")
    @classmethod
    def _model_is_inside(cls, value: str | None) -> str | None:
        return None if value is None else str(_member(value))

    @field_validator("labels")
    @classmethod
    def _labels_fit(cls, value: list[str] | str | None) -> list[str] | str | None:
        if isinstance(value, str):
            return str(_member(value))
        if value is not None and (not value or len(value) > 200_000 or any(len(label) > 500 for label in value)):
            raise ValueError("give 1 to 200000 labels of at most 500 characters, or the name of a file")
        return value

    @field_validator("inputs", "outputs")
    @classmethod
    def _names_differ(cls, value: list[Tensor] | None) -> list[Tensor] | None:
        if value is not None and len({tensor.name for tensor in value}) < len(value):
            raise ValueError("give each tensor a name of its own")
        return value

    def task_config(self) -> dict[str, Any]:
        """What the task is given: `preprocess`, `postprocess`, and `labels` where there are any."""
        config: dict[str, Any] = {"preprocess": self.preprocess, "postprocess": self.postprocess}
        return config if self.labels is None else {**config, "labels": self.labels}

    def engine_extra(self) -> dict[str, Any]:
        """What an engine is told in `EngineOptions.extra`: `inputs` and `outputs`, where they are listed."""
        return self.model_dump(mode="json", include={"inputs", "outputs"}, exclude_none=True)

    def to_json(self) -> dict[str, Any]:
        """As it is kept: JSON's types only, without what was not said."""
        return self.model_dump(mode="json", exclude_none=True)


# Whose fields those below a field are.
_FIELDS: Final[Mapping[str | int, type[BaseModel]]] = {"batching": Batching, "inputs": Tensor, "outputs": Tensor}


def parse_manifest(text: str) -> Manifest:
    """Read a manifest. Raises InvalidPackage with the field and the line."""
    document = read_yaml(text, "model.yaml")
    value = {} if document.value is None else document.value
    if not isinstance(value, Mapping):
        raise InvalidPackage("model.yaml must hold fields by name, such as `task: tensor`.")
    check_json(value, (), document)
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        raise InvalidPackage(_sentence(error, document)) from error


def manifest_from_json(value: Mapping[str, Any]) -> Manifest:
    """The inverse of `Manifest.to_json`. Raises InvalidPackage."""
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        raise InvalidPackage(_sentence(error, Document(value, {}, "model.yaml"))) from error


def _member(name: str) -> object:
    try:
        return check_member(name)
    except InvalidPackage as error:
        raise ValueError(error.message) from error


def _sentence(error: ValidationError, document: Document) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    # A field with several types names each try after its own name: the field is what the reader knows.
    where = tuple(part for part in first["loc"] if not isinstance(part, str) or part not in ("list[str]", "str"))
    place = document.place(where)
    if first["type"] == "extra_forbidden":
        known = ", ".join(
            _FIELDS.get(where[0], Manifest).model_fields if len(where) > 1 else Manifest.model_fields
        )
        return f"{place} is not a known field; there are: {known}."
    hint = " (put it in quotes)" if first["type"] == "string_type" else ""
    message = first["msg"].removeprefix("Value error, ").removesuffix(".")
    return f"{place} cannot be used: {message}{hint}."
