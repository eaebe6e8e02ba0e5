"""`X-Sticky-Key`: the same key gets the same version while the weights stay."""

from __future__ import annotations

from typing import Final

from app.external.sequences import SEQUENCE_ID
from core.serving.catalogue import Catalogue

# All parts of a sequence go where its state is kept.
_KEYS: Final = (b"x-sticky-key", SEQUENCE_ID)


def sticky_key(catalogue: Catalogue, name: str, headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """The key of a request; None where it has none, or where one version answers and no key matters."""
    if not catalogue.splits(name):
        return None
    return next((value for header, value in headers if header in _KEYS and value), None)
