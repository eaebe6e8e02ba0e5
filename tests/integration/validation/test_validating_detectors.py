"""Detectors whose manifest does not tell the truth about them are found out before they are served."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.settings import ValidationSettings
from core.validation.runner import ValidationResult, validate

DEMO = Path(__file__).parents[3] / "demo" / "models" / "centernet-mobilenetv3"
LIMITS = ValidationSettings(memory_bytes=2 << 30, cpu_s=60, wall_s=60)


def check(**changed: Any) -> ValidationResult:
    """The report on the demo detector, with some of its manifest's `postprocess` and its `labels` changed."""
    manifest = yaml.safe_load((DEMO / "model.yaml").read_text())
    labels = changed.pop("labels", manifest["labels"])
    manifest |= {"labels": labels, "postprocess": {**manifest["postprocess"], **changed}}
    return asyncio.run(validate(DEMO, manifest, LIMITS))


def failures(result: ValidationResult) -> dict[str, str]:
    return {row["check"]: row["detail"] for row in result.report if not row["ok"]}


def test_the_demo_detector_is_valid() -> None:
    result = check()
    assert result.ok, failures(result)
    (example,) = (row["detail"] for row in result.report if row["check"] == "example")
    assert example == "A generated picture was answered with detections, image."


@pytest.mark.parametrize(
    ("changed", "where", "says"),
    [
        ({"outputs": {"scores": "confidence"}}, "task", "no output 'confidence'"),
        ({"layout": "yolov8"}, "task", "80 labels, but the model has 96 classes"),
        ({"outputs": {"scores": "classes", "classes": "scores"}}, "example", "holds numbers that are no classes"),
        ({"box_format": "cxcywh", "box_unit": "fraction"}, "example", "set postprocess.box_unit to pixel"),
        ({"labels": ["person", "bicycle"]}, "example", "but there are 2 labels"),
    ],
)
def test_outputs_that_are_not_those_of_the_manifest(changed: dict[str, Any], where: str, says: str) -> None:
    found = failures(check(**changed))
    assert list(found) == [where]
    assert says in found[where]
