"""What users may be called."""

from __future__ import annotations

import re

from core.errors import Unprocessable

_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)


def check_user_name(name: str) -> str:
    """The name itself. Raises Unprocessable for one that a user cannot have."""
    if not _USER.fullmatch(name):
        raise Unprocessable(
            "A user name has 1 to 64 of the characters A-Z a-z 0-9 . _ @ - and begins with one of A-Z 0-9."
        )
    return name
