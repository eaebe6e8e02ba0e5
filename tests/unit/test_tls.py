"""What of a certificate's files is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.tls import make_context, renew
from core.setting_sources import load_settings
from core.settings import InvalidSettings, TlsSettings
from tests.certificates import Authority

AUTHORITY = Authority()


def test_without_files_there_is_no_tls() -> None:
    assert make_context(TlsSettings()) is None
    renew(None, TlsSettings())


def test_a_certificate_and_its_key(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.write(tmp_path)
    assert make_context(TlsSettings(certificate=certificate, key=key)) is not None
    key.chmod(0o640)  # a group may read it, as Debian's ssl-cert
    assert make_context(TlsSettings(certificate=certificate, key=key)) is not None


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda folder: (folder / "server.key").chmod(0o644), "Everybody on this machine can read"),
        (lambda folder: (folder / "server.key").chmod(0o602), "Everybody on this machine can read or write"),
        (lambda folder: (folder / "server.key").unlink(), "cannot be read: No such file"),
        (lambda folder: (folder / "server.crt").unlink(), "cannot be read: No such file"),
        (lambda folder: (folder / "server.crt").write_text("no certificate"), "not a certificate and a key"),
        (lambda folder: (folder / "server.key").write_text("no key"), "not a certificate and a key"),
        (lambda folder: (folder / "other.key").replace(folder / "server.key"), "does not belong"),
        (lambda folder: (folder / "locked.key").replace(folder / "server.key"), "is encrypted"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, break_it: object, says: str) -> None:
    certificate, key = AUTHORITY.write(tmp_path)
    AUTHORITY.write(tmp_path, "other")
    AUTHORITY.write(tmp_path, "locked", b"a password")
    context = make_context(TlsSettings(certificate=certificate, key=key))
    assert callable(break_it)
    break_it(tmp_path)
    with pytest.raises(InvalidSettings, match=says):
        make_context(TlsSettings(certificate=certificate, key=key))
    with pytest.raises(InvalidSettings, match=says):
        renew(context, TlsSettings(certificate=certificate, key=key))


def test_one_file_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="both a certificate and its key"):
        load_settings(flags={"tls": {"certificate": tmp_path / "server.crt"}}, dotenv=tmp_path / ".env")


@pytest.mark.parametrize(
    "origin", ["null", "app.example.com", "https://app.example.com/", "https://*.example.com", ""]
)
def test_what_is_no_origin(tmp_path: Path, origin: str) -> None:
    with pytest.raises(InvalidSettings, match="is not an origin"):
        load_settings(flags={"server": {"cors_origins": [origin]}}, dotenv=tmp_path / ".env")
