"""What a user may do."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """`admin` may do all, `operator` whatever concerns models and deployments, `viewer` may read."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"

    def allows(self, required: Role) -> bool:
        """Whether someone of this role may do what asks for `required`."""
        return _RANKS[self] >= _RANKS[required]


_RANKS = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}
