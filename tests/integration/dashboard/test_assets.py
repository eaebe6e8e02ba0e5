from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from app.dashboard.assets import ASSETS, STATIC
from app.dashboard.rendering import TEMPLATES
from tests.integration.dashboard.conftest import Browser

NAME = "css/frame.css"
VENDORED = "vendor/htmx/htmx.min.js"


def test_an_address_with_its_version_is_kept_for_ever(visitor: Browser) -> None:
    answer = visitor.get(ASSETS.url(NAME))
    assert answer.content == (STATIC / NAME).read_bytes()
    assert "immutable" in answer.headers["cache-control"]
    for path in (f"/static/{NAME}", f"/static/{NAME}?v=0"):
        assert visitor.get(path).headers["cache-control"] == "no-cache"


def test_a_file_that_the_browser_has_is_not_sent_again(visitor: Browser) -> None:
    etag = visitor.get(f"/static/{NAME}").headers["etag"]
    answer = visitor.get(f"/static/{NAME}", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize(
    ("name", "accepted", "encoding"),
    [
        (VENDORED, "gzip, deflate, br", "br"),
        (NAME, "gzip, br", "gzip"),
        (VENDORED, "gzip", "gzip"),
        (VENDORED, "br;q=0, gzip", "gzip"),
        (VENDORED, "identity", None),
    ],
)
def test_a_file_is_sent_in_the_smallest_form_that_is_taken(
    visitor: Browser, name: str, accepted: str, encoding: str | None
) -> None:
    with visitor.client.stream("GET", f"/static/{name}", headers={"Accept-Encoding": accepted}) as answer:
        raw = b"".join(answer.iter_raw())
        assert answer.headers.get("content-encoding") == encoding
        assert answer.headers["vary"] == "Accept-Encoding"
    plain = (STATIC / name).read_bytes()
    assert encoding is None or len(raw) < len(plain) / 2
    if encoding == "gzip":
        assert gzip.decompress(raw) == plain


@pytest.mark.parametrize("file", sorted(STATIC.rglob("*.br")), ids=lambda file: file.name)
def test_what_was_compressed_before_is_what_is_there(file: Path) -> None:
    brotli = pytest.importorskip("brotli")
    assert brotli.decompress(file.read_bytes()) == file.with_suffix("").read_bytes()


@pytest.mark.parametrize(
    "path", ["nothing.js", "../run.py", "%2e%2e/run.py", "vendor/refresh.sh", "vendor/README.md", "", "css"]
)
def test_nothing_else_is_served(visitor: Browser, path: str) -> None:
    assert visitor.get(f"/static/{path}").status_code == 404


def test_every_icon_that_a_template_names_is_in_the_sprite() -> None:
    sprite = (STATIC / "vendor/icons/sprite.svg").read_text()
    there = set(re.findall(r'<symbol id="([^"]+)"', sprite))
    listed = (STATIC / "vendor/icons/names.txt").read_text().split()
    assert there == set(listed)
    for file in [*TEMPLATES.rglob("*.html"), *(TEMPLATES.parent / "app/dashboard").rglob("*.py")]:
        for name in re.findall(r'\bicon\("([\w-]+)"\)|ui\.empty\("([\w-]+)"', file.read_text()):
            assert (name[0] or name[1]) in there, f"{file.name}: {name}"
