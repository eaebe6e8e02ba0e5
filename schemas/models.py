"""Models and versions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from schemas.base import Answer, Body, Moment

Modality = Literal["image", "audio", "text", "tensor"]
VersionStatus = Literal["uploaded", "validating", "valid", "invalid", "archived"]


class ModelPatch(Body):
    """What is left out stays as it is."""

    description: str | None = Field(None, max_length=4000)
    tags: list[str] | None = Field(None, max_length=16, description="All of them; an empty list removes them.")


class ModelActivate(Body):
    """Which target answers what `/predict` gets of one modality; with `model: null`, none does."""

    model: str | None = Field(max_length=255)
    modality: Modality | None = Field(None, description="Must be the model's own; needed where `model` is null.")


class DefaultsAnswer(Answer):
    """The default target of each modality that has one."""

    defaults: dict[Modality, str]


class ModelAnswer(Answer):
    """A model, with its newest version's number and its state in service."""

    name: str
    task: str
    description: str
    tags: list[str] = Field(default_factory=list)
    created_by: str
    created_at: Moment
    updated_at: Moment
    latest_version: int | None = None
    state: str | None = None
    default_for: Modality | None = Field(None, description="Of which modality it is the default for `/predict`.")


class TensorAnswer(Answer):
    """One tensor; `-1` in `shape` is a dynamic dimension."""

    name: str
    dtype: str
    shape: list[int]


class SignatureAnswer(Answer):
    """Inputs and outputs, in the model's order."""

    inputs: list[TensorAnswer]
    outputs: list[TensorAnswer]


class CheckAnswer(Answer):
    """One line of a validation report."""

    check: str
    ok: bool
    detail: str
    ms: float


class DerivedAnswer(Answer):
    """A converted form of a version; it has no number, and cannot be uploaded or fetched."""

    id: int
    conversion: str
    format: str
    size_bytes: int
    sha256: str
    recipe: dict[str, Any] = Field(description="How it was made: options, calibration, libraries.")
    made_by: str
    made_at: Moment


class VersionAnswer(Answer):
    """One version; `signature` and `report` fill up as it is validated."""

    version: int
    format: str
    size_bytes: int
    sha256: str
    status: VersionStatus
    signature: SignatureAnswer | None = None
    report: list[CheckAnswer] = Field(default_factory=list)
    manifest: dict[str, Any] = Field(default_factory=dict)
    derived: list[DerivedAnswer] = Field(default_factory=list)
    created_by: str
    created_at: Moment


class UploadAnswer(Answer):
    """A model and the version that an upload made."""

    model: ModelAnswer
    version: VersionAnswer


class ModelDetailAnswer(ModelAnswer):
    """A model with all its versions, newest first."""

    versions: list[VersionAnswer]
