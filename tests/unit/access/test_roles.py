from __future__ import annotations

from core.access.roles import Role


def test_each_role_allows_itself_and_what_is_below() -> None:
    allowed = {role: [required for required in Role if role.allows(required)] for role in Role}
    assert allowed == {
        Role.ADMIN: [Role.ADMIN, Role.OPERATOR, Role.VIEWER],
        Role.OPERATOR: [Role.OPERATOR, Role.VIEWER],
        Role.VIEWER: [Role.VIEWER],
    }
