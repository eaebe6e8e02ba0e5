"""The locks say what constraints.txt says, hold all that is needed here, and name the hash of every file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from requirements import lock

ROOT = Path(__file__).resolve().parents[2]
HINT = "run `make lock`, or after a change of constraints.txt alone `python requirements/lock.py`"


def _locked(layer: str) -> dict[str, str]:
    text = (ROOT / f"requirements/{layer}.txt").read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines()[1:]:
        requirement, *hashes = line.split()
        assert hashes, line
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), requirement
        name, version = requirement.split("==")
        found[name] = version
    return found


def _layers() -> dict[str, list[str]]:
    try:
        return lock.layers()
    except SystemExit as missing:  # the other accelerator's build is installed here
        pytest.skip(str(missing))


@pytest.mark.parametrize("layer", lock.LAYERS)
def test_a_lock_holds_all_that_its_layer_needs_in_the_pinned_versions(layer: str) -> None:
    versions = lock.pins()
    assert _locked(layer) == {name: versions[name] for name in _layers()[layer]}, HINT


def test_nothing_that_is_pinned_is_left_unlocked_but_for_one_package() -> None:
    locked = set().union(*(_locked(layer) for layer in lock.LAYERS))
    assert set(lock.pins()) - locked == lock.UNLOCKED, HINT


def test_both_accelerators_are_locked_to_the_same_version() -> None:
    of_gpu = {name.removesuffix("-gpu"): version for name, version in _locked("gpu").items()}
    assert of_gpu == _locked("cpu"), HINT


def test_make_installs_by_hash_first() -> None:
    recipes = (ROOT / "Makefile").read_text()
    installs = [line for line in recipes.splitlines() if line.startswith("\t@$(") and "editable" not in line]
    for target in (".base", ".demo", ".test"):
        recipe = recipes.split(f"$(VENV)/{target}:")[1].split("\n\n")[0]
        assert 0 < recipe.index("@$(LOCKED)") < recipe.index("@$(REST)")
    assert "--require-hashes" in recipes
    assert "--no-build-isolation" in recipes  # what builds is locked as well
    assert canonicalize_name("setuptools") in _locked("base")
    assert installs
