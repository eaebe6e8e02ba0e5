"""QR codes as a path of SVG: drawn by the page itself, so that a secret goes to no other address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import segno

QUIET: Final = 4
"""Light modules around the code; readers want them (ISO/IEC 18004, section 6.3.8)."""


@dataclass(frozen=True, slots=True)
class QrCode:
    """A square of `side` modules, the quiet zone counted; `path` covers the dark ones, a unit each."""

    side: int
    path: str


def qr_code(text: str) -> QrCode:
    """The code of a text, with error correction of level M."""
    rows = segno.make(text, micro=False, error="m").matrix
    dark = [
        f"M{x + QUIET} {y + QUIET}h1v1h-1z" for y, row in enumerate(rows) for x, module in enumerate(row) if module
    ]
    return QrCode(len(rows) + 2 * QUIET, "".join(dark))
