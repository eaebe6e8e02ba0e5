"""Every operation of the OpenAPI documents, called with what its schema allows and with what it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import seed as seeded
from schemathesis import checks
from schemathesis.core.transport import Response

from app.docs import documented
from app.main import external_api, internal_api
from core.settings import Settings
from tests.servers import RunningServer

CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)
# Its answer comes as long as there is something to tell.
ENDLESS = {"/models/{name}/versions/{number}/trials/events"}
# These end the session that all others need.
LEAVING = {"/auth/logout", "/auth/password", "/auth/sessions/{session_id}"}
FIRST_USER = 1


@dataclass
class Called:
    """How often each operation answered with which status."""

    statuses: dict[str, dict[int, int]] = field(default_factory=dict)

    def note(self, label: str, status: int) -> None:
        """Count one answer."""
        counts = self.statuses.setdefault(label, {})
        counts[status] = counts.get(status, 0) + 1


def documents() -> dict[str, FastAPI]:
    """Both APIs."""
    return {"internal": internal_api(Settings()), "external": external_api()}


def operations(name: str) -> Iterator[Any]:
    """The operations of one document, in its order."""
    schema = schemathesis.openapi.from_dict(documented(documents()[name]))
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path not in ENDLESS:
            yield operation


def call(server: RunningServer, operation: Any, headers: Mapping[str, str], called: Called,
         profile: settings, seed: int | None = None) -> None:  # fmt: skip
    """Call one operation as often as the profile says. Raises where an answer breaks the document."""
    prefix = "/api/v1/internal" if "X-Auth-Token" in headers else ""

    base_url = f"http://127.0.0.1:{server.port}{prefix}"
    own = {name.lower() for name in ("X-Auth-Token", "X-Access-Token", "Authorization")}

    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        if case.path_parameters and case.path_parameters.get("user_id") == FIRST_USER:
            case.path_parameters["user_id"] = 999
        case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() not in own}
        sent = {} if operation.path in LEAVING else dict(headers)
        answer: Response = case.call(base_url=base_url, headers=sent, timeout=30)
        called.note(operation.label, answer.status_code)
        case.validate_response(answer, checks=list(CHECKS))

    (profile(check) if seed is None else seeded(seed)(profile(check)))()
