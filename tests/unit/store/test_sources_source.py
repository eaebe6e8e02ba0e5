from __future__ import annotations

import asyncio

import pytest

from core.errors import BadRequest, SourceUnavailable
from core.setting_sources import load_settings
from core.settings import InvalidSettings
from core.store.sources.addresses import check_redirect
from core.store.sources.repository import choose_model, companions, nearest
from core.store.sources.source import HubSource, PackageSource, is_source, parse_source

PIN = "ab" * 32


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:acme/cats", HubSource("acme", "cats")),
        ("hf:acme/cats@v1.0", HubSource("acme", "cats", "v1.0")),
        ("hf:acme/cats@refs/pr/7/a.onnx", HubSource("acme", "cats", "refs/pr/7", "a.onnx")),
        ("hf:a.c-m_e/C4ts/onnx/model.onnx", HubSource("a.c-m_e", "C4ts", "main", "onnx/model.onnx")),
        (f"pypi:a-b==1.0+cpu/x/y.onnx#sha256={PIN.upper()}", PackageSource("a-b", "1.0+cpu", "x/y.onnx", PIN)),
    ],
)
def test_a_source_is_read(text: str, source: HubSource | PackageSource) -> None:
    assert is_source(text)
    assert parse_source(text) == source


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf:",
        "hf:gpt2",
        "hf:acme/",
        "hf:acme/../etc",
        "hf:../acme/cats",
        "hf:ac..me/cats",
        "hf:acme/cats@",
        "hf:acme/cats@a..b",
        "hf:acme/cats/../../x",
        "hf:acme/cats//x",
        "hf:acme/cats/a\\b",
        "hf:acme/cats/a\0b",
        "hf:acme/cats/%2e%2e?x=1",
        "hf:acme@evil.example/cats",
        "hf:http://evil.example/acme/cats",
        "hf:аcme/cats",
        "https://evil.example/model.onnx",
        "file:///etc/passwd",
        "/etc/passwd",
        f"pypi:a==1.0/x.onnx#sha256={PIN}&sha256={PIN}",
        f"pypi:a==1.0/../x.onnx#sha256={PIN}",
        f"pypi:a==1.0//etc/passwd#sha256={PIN}",
        f"pypi:-r==1.0/x.onnx#sha256={PIN}",
        f"pypi:a==1.0 --index-url=http://evil.example/x.onnx#sha256={PIN}",
        f"pypi:a\n--pre==1.0/x.onnx#sha256={PIN}",
        f"pypi:a=={'1' * 100}/x.onnx#sha256={PIN}",
        "pypi:a==1.0/x.onnx#sha256=abc",
        "hf:acme/cats/" + "a/" * 600,
    ],
)
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_source(text)


def test_a_package_without_a_pin_is_told_how_to_get_one() -> None:
    with pytest.raises(BadRequest, match="pip hash"):
        parse_source("pypi:a==1.0/x.onnx")


def test_the_usual_file_is_chosen_before_others() -> None:
    assert choose_model({"model.onnx": 1, "onnx/model.onnx": 1, "a.onnx": 1}, None) == "onnx/model.onnx"
    assert choose_model({"model.onnx": 1, "a.onnx": 1}, None) == "model.onnx"
    assert choose_model({"a.onnx": 1, "b.bin": 1}, None) == "a.onnx"


def test_what_lies_beside_a_model() -> None:
    files = dict.fromkeys(["o/m.onnx", "o/m.onnx_data", "o/m.onnx.data", "m.data", "o/x.onnx_data", "c.json"], 1)
    assert companions(files, "o/m.onnx") == ("o/m.onnx.data", "o/m.onnx_data")
    assert nearest(files, "o/m.onnx", "c.json") == "c.json"
    assert nearest({**files, "o/c.json": 1}, "o/m.onnx", "c.json") == "o/c.json"


REDIRECTS = [
    ("8.8.8.8", "1.1.1.1", True),
    ("10.0.0.1", "10.0.0.2", True),
    ("8.8.8.8", "10.0.0.2", True),
    ("10.0.0.1", "1.1.1.1", False),
    ("127.0.0.1", "1.1.1.1", False),
    ("::ffff:127.0.0.1", "1.1.1.1", False),
    ("169.254.169.254", "10.0.0.2", False),
    ("::ffff:169.254.169.254", "10.0.0.2", False),
    ("fe80::1", "10.0.0.2", False),
    ("0.0.0.0", "10.0.0.2", False),
]


@pytest.mark.parametrize(("target", "hub", "good"), REDIRECTS)
def test_where_a_redirect_may_lead(target: str, hub: str, good: bool) -> None:
    if good:
        asyncio.run(check_redirect(target, 443, hub))
    else:
        with pytest.raises(SourceUnavailable):
            asyncio.run(check_redirect(target, 443, hub))


@pytest.mark.parametrize(
    "url", ["ftp://hub", "hub", "https://user:word@hub", "https://hub?x=1", "https://", "a b"]
)
def test_a_hub_s_url_that_cannot_be_used(url: str) -> None:
    with pytest.raises(InvalidSettings, match=r"sources\.hub_url"):
        load_settings(flags={"sources": {"hub_url": url}})


def test_a_hub_below_a_path_is_a_mirror() -> None:
    assert load_settings(flags={"sources": {"hub_url": "https://m.example/hub/"}}).sources.hub_url.endswith("/hub")
