"""`X-Sticky-Key`: the same key gets the same version while the weights stay."""

from __future__ import annotations

from core.serving.catalogue import Catalogue


def sticky_key(catalogue: Catalogue, name: str, headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """The key of a request; None where it has none, or where one version answers and no key matters."""
    if not catalogue.splits(name):
        return None
    return next((value for header, value in headers if header == b"x-sticky-key" and value), None)
