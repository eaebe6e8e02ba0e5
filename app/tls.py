"""TLS by files: a certificate with its chain, and its key; renewed without a restart."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path
from typing import Final

from core.settings import InvalidSettings, TlsSettings

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def make_context(tls: TlsSettings) -> ssl.SSLContext | None:
    """The server's side of TLS; None where it is off. Blocks. Raises InvalidSettings, saying what is wrong."""
    if tls.certificate is None or tls.key is None:
        return None
    _check_key_file(tls.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.minimum]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _load(context, tls.certificate, tls.key)
    return context


def renew(context: ssl.SSLContext | None, tls: TlsSettings) -> None:
    """Let new connections have the certificate that is in the files now; those there are go on.

    Blocks. Raises InvalidSettings, and then nothing has changed.
    """
    if (context is None) != (make_context(tls) is None):  # also tries the files, aside
        raise InvalidSettings("TLS is switched on or off by a restart alone.")
    if context is not None and tls.certificate is not None and tls.key is not None:
        _load(context, tls.certificate, tls.key)


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for path, name in ((certificate, "certificate"), (key, "key")):
        try:
            path.read_bytes()
        except OSError as error:
            raise InvalidSettings(f"The file of tls.{name}, {path}, cannot be read: {error.strerror}.") from error
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise InvalidSettings(_what_is_wrong(error)) from error
    except _Encrypted as error:
        raise InvalidSettings("The file of tls.key is encrypted; the server has no password for it.") from error


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted  # or OpenSSL would ask for it on the terminal


def _what_is_wrong(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if "MISMATCH" in reason:
        return "The key of tls.key does not belong to the certificate of tls.certificate."
    if "TOO_SMALL" in reason or "TOO_WEAK" in reason:
        return "The key or the signature of tls.certificate is too weak to be used."
    return "The files of tls.certificate and tls.key are not a certificate and a key in PEM."


def _check_key_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InvalidSettings(f"The file of tls.key, {path}, cannot be read: {error.strerror}.") from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise InvalidSettings(f"Everybody on this machine can read or write {path}, the key; chmod 600 it.")
