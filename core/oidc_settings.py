"""Settings of signing in by an OpenID provider."""

from __future__ import annotations

import ipaddress
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from core.setting_section import Section


class OidcSettings(Section):
    """Signing in by an OpenID provider, beside passwords; off while `issuer` is unset."""

    issuer: str | None = Field(None, description="The provider's address, as its ID tokens name it; unset is off.")
    client_id: str = Field("", max_length=255, description="What the provider calls this installation.")
    client_secret: SecretStr | None = Field(None, description="Unset where the provider asks for none.")
    label: str = Field("single sign-on", max_length=64, description="What the sign-in page calls the provider.")
    public_url: str | None = Field(
        None, description="Where browsers find Pulvinar, as `https://host`; unset is what each request names."
    )
    scopes: list[str] = Field(["openid", "profile", "email"], description="What the provider is asked for.")
    name_claim: str = Field("preferred_username", min_length=1, description="The claim that holds the user name.")
    groups_claim: str = Field("groups", min_length=1, description="The claim that lists a user's groups.")
    roles: dict[str, Literal["admin", "operator", "viewer"]] = Field(
        {}, description="Groups and the role that each gives; the highest counts, at each sign-in."
    )
    default_role: Literal["operator", "viewer"] | None = Field(
        None, description="Role of whoever no group gives one; unset refuses them."
    )
    allowed_groups: list[str] = Field([], description="Groups one of which a user must be in; empty is any.")
    allowed_domains: list[str] = Field(
        [], description="Domains one of which a verified e-mail address must be of; empty is any."
    )
    create_users: bool = Field(True, description="Add whoever is let in and is not there yet.")
    link_users: bool = Field(
        False, description="Let the provider sign in users that were made here, by their names."
    )
    timeout_s: float = Field(5, gt=0, le=30, description="Seconds before the provider is taken to be away.")

    @field_validator("issuer", "public_url")
    @classmethod
    def _safe_url(cls, value: str | None) -> str | None:
        if value is not None and not is_safe_url(value):
            raise ValueError("it must be https://host (http:// on this machine alone), without a query")
        return value

    @field_validator("public_url")
    @classmethod
    def _origin(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).path not in ("", "/"):
            raise ValueError("it must be an origin such as https://models.example.com, without a path")
        return None if value is None else value.rstrip("/")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.issuer is None:
            return self
        if not self.client_id:
            raise ValueError("oidc.issuer needs oidc.client_id")
        if "openid" not in self.scopes:
            raise ValueError("oidc.scopes must hold openid")
        if not self.roles and self.default_role is None:
            raise ValueError("give oidc.roles, oidc.default_role or both, or nobody can come in")
        return self


def is_safe_url(url: str) -> bool:
    """Whether it is https without user, query or fragment; http is good enough for this machine itself."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        local = host == "localhost" or _is_loopback(host)
        parts.port  # noqa: B018  # raises where it is no number
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or "@" in parts.netloc) and url.isprintable() and " " not in url
    return plain and bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and local))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
