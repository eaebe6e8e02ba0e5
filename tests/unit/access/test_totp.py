from __future__ import annotations

import base64
from urllib.parse import parse_qs, urlsplit

import pytest

from core.access.sealing import Sealer, Unreadable
from core.access.totp import (
    STEP_S,
    accepted_step,
    hash_recovery_code,
    new_recovery_codes,
    new_secret,
    otpauth_uri,
    plain_code,
)

# RFC 6238, appendix B: SHA-1, the last six of its eight digits.
SECRET = base64.b32encode(b"12345678901234567890").decode()
VECTORS = {
    59: "287082",
    1111111109: "081804",
    1111111111: "050471",
    1234567890: "005924",
    2000000000: "279037",
    20000000000: "353130",
}


@pytest.mark.parametrize(("now_s", "code"), VECTORS.items())
def test_the_codes_of_the_rfc(now_s: int, code: str) -> None:
    assert accepted_step(SECRET, code, now_s, 0) == now_s // STEP_S


def test_a_clock_may_be_off_by_one_step_to_either_side() -> None:
    for off_s, accepted in ((-60, False), (-30, True), (30, True), (60, False)):
        assert (accepted_step(SECRET, VECTORS[1234567890], 1234567890 + off_s, 0) is not None) is accepted


def test_no_code_is_let_in_twice_nor_one_from_before() -> None:
    step = accepted_step(SECRET, VECTORS[1234567890], 1234567890, 0)
    assert step is not None
    assert accepted_step(SECRET, VECTORS[1234567890], 1234567890, step) is None
    assert accepted_step(SECRET, VECTORS[1234567890], 1234567890, step + 1) is None


@pytest.mark.parametrize("code", ["", "0", "00592", "0059240", "٠٠٥٩٢٤", "\ud800", "x" * 64])
def test_what_is_no_code(code: str) -> None:
    assert accepted_step(SECRET, plain_code(code), 1234567890, 0) is None


def test_what_an_app_is_given() -> None:
    secret = new_secret()
    assert len(base64.b32decode(secret)) == 20
    uri = urlsplit(otpauth_uri(secret, "ada@example.com"))
    assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", "/Pulvinar:ada%40example.com")
    assert parse_qs(uri.query)["secret"] == [secret]
    assert parse_qs(uri.query)["issuer"] == ["Pulvinar"]


def test_recovery_codes_are_read_as_people_write_them() -> None:
    codes = new_recovery_codes()
    assert len(set(codes)) == 10
    for code in codes:
        assert len(code.replace("-", "")) == 16
        assert hash_recovery_code(code) == hash_recovery_code(code.upper().replace("-", " "))


def test_a_sealed_secret_is_of_no_use_elsewhere() -> None:
    sealer = Sealer(b"k" * 32)
    sealed = sealer.seal("a secret", "totp:1")
    assert b"secret" not in sealed
    assert sealer.unseal(sealed, "totp:1") == "a secret"
    assert sealer.seal("a secret", "totp:1") != sealed
    for other, purpose, text in (
        (sealer, "totp:2", sealed),
        (Sealer(b"x" * 32), "totp:1", sealed),
        (sealer, "totp:1", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (sealer, "totp:1", b""),
    ):
        with pytest.raises(Unreadable):
            other.unseal(text, purpose)
