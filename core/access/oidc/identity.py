"""Whom a provider's claims speak of, and what they may do here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.access.roles import Role
from core.errors import Forbidden
from core.oidc_settings import OidcSettings


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody whom the provider knows and whom the settings let in."""

    subject: str
    """SHA-256 of issuer and `sub`, 64 hexadecimal digits: what stays when the name changes."""
    name: str
    role: Role


def identity_of(claims: Mapping[str, Any], oidc: OidcSettings) -> Identity:
    """Raises Forbidden, in words, for whoever the settings do not let in."""
    _check_domain(claims, oidc)
    groups = _groups(claims.get(oidc.groups_claim))
    if oidc.allowed_groups and not groups & set(oidc.allowed_groups):
        raise Forbidden("You are in none of the groups that may sign in here.")
    roles = [Role(role) for group, role in oidc.roles.items() if group in groups]
    if oidc.default_role is not None:
        roles.append(Role(oidc.default_role))
    if not roles:
        raise Forbidden("None of your groups has a role here; ask an administrator.")
    role = next(role for role in Role if role in roles)  # from the highest down
    name = claims.get(oidc.name_claim)
    if not isinstance(name, str) or not name:
        raise Forbidden(f"The provider did not say your user name (the claim {oidc.name_claim}).")
    subject = hashlib.sha256(f"{claims['iss']}\0{claims['sub']}".encode()).hexdigest()
    return Identity(subject, name, role)


def _groups(value: object) -> set[str]:
    if isinstance(value, str):
        return {value}
    return {group for group in value if isinstance(group, str)} if isinstance(value, list) else set()


def _check_domain(claims: Mapping[str, Any], oidc: OidcSettings) -> None:
    if not oidc.allowed_domains:
        return
    email = claims.get("email")
    domain = email.rpartition("@")[2].lower() if isinstance(email, str) else ""
    if claims.get("email_verified") is not True or domain not in {one.lower() for one in oidc.allowed_domains}:
        raise Forbidden("Your e-mail address is not verified, or not of a domain that may sign in here.")
