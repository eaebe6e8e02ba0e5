from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.store.archives import ALLOWED_SUFFIXES
from core.store.manifest import Batching, Manifest, parse_manifest
from core.tasks.registry import task_class, task_names

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "model-package.md").read_text(encoding="utf-8")
EXAMPLES = [
    text
    for page in (PAGE, *(path.read_text(encoding="utf-8") for path in (DOCS / "tasks").glob("*.md")))
    for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
]


def test_every_task_has_an_example_that_its_task_takes() -> None:
    manifests = [parse_manifest(text) for text in EXAMPLES]
    for manifest in manifests:
        task_class(manifest.task).check(manifest.task_config())
    assert {manifest.task for manifest in manifests} >= set(task_names())


@pytest.mark.parametrize(
    "name",
    [
        *sorted(set(Manifest.model_fields) - {"batching"}),
        *(f"batching.{field}" for field in Batching.model_fields),
    ],
)
def test_every_field_is_on_the_page(name: str) -> None:
    assert f"| `{name}` |" in PAGE


def test_every_suffix_is_on_the_page() -> None:
    assert f"`{' '.join(ALLOWED_SUFFIXES)}`" in PAGE
