"""What the pages about access share."""

from __future__ import annotations

from typing import Final

TABS: Final = (
    ("Tokens", "/dashboard/access/tokens"),
    ("Tenants", "/dashboard/access/tenants"),
    ("Usage", "/dashboard/access/usage"),
    ("Users", "/dashboard/access/users"),
    ("Addresses", "/dashboard/access/addresses"),
    ("Keys", "/dashboard/access/keys"),
    ("Audit log", "/dashboard/access/audit"),
)


def lines(text: str | list[str] | None) -> list[str] | None:
    """Several values, by commas or lines; None where there are none."""
    texts = text if isinstance(text, list) else (text or "").replace("\n", ",").split(",")
    found = [one.strip() for one in texts if one.strip()]
    return found or None
