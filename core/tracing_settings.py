"""Settings of tracing."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from core.setting_section import Section


class TracingSettings(Section):
    """Spans of requests, sent to an OpenTelemetry collector; off unless `enabled`."""

    enabled: bool = Field(False, description="Trace requests; needs the extra `tracing`.")
    endpoint: str = Field(
        "http://127.0.0.1:4318/v1/traces", description="Where spans are sent: OTLP over HTTP, with its path."
    )
    sample_ratio: float = Field(
        1.0, ge=0, le=1, description="Part of the requests that is traced, where the caller does not say."
    )
    service_name: str = Field("pulvinar", min_length=1, max_length=255, description="`service.name` of all spans.")
    queue_spans: int = Field(
        4096, ge=64, le=1 << 20, description="Spans that one process lets wait to be sent; more are dropped."
    )
    flush_s: float = Field(5, gt=0, le=60, description="Seconds that a stop waits for spans to be sent.")

    @field_validator("endpoint")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/?#@]+/[^\s?#]*", value):
            raise ValueError("it must be http(s)://host:port/path, without a user, a query or a fragment")
        return value
