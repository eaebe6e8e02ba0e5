"""What the process is told at its start: addresses, places, caps. What a model does is in the database.

Where settings come from, and which source wins, is in `core.setting_sources`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from core.oidc_settings import OidcSettings
from core.setting_section import Section
from core.stream_settings import SequenceSettings, StreamSettings
from core.tracing_settings import TracingSettings

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# As the library of `core.access.rates` reads them, without the weight of importing it.
_RATE = re.compile(
    r"0*[1-9]\d{0,9}\s*(?:/|\s+per\s+)\s*(?:0*[1-9]\d{0,4}\s*)?(?:second|minute|hour|day|month|year)s?",
    re.IGNORECASE,
)


class InvalidSettings(Exception):
    """A setting that cannot be used; the message is one line that names it and where it came from."""


class ServerSettings(Section):
    """Where and how HTTP is served."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    prod: bool = Field(False, description="Production mode: JSON logs, secure cookies, no debug helpers.")
    workers: int = Field(1, ge=1, le=64, description="HTTP worker processes.")
    docs: bool = Field(True, description="Serve the API pages under /docs.")
    node: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9.-]{1,64}$",
        description="Name of this server among those on one database; unset makes one in the data directory.",
    )
    drain_s: float = Field(20, ge=0, description="Seconds that a stop waits for requests in flight.")
    metrics_allow: list[str] = Field(
        ["127.0.0.0/8", "::1/128"], description="Networks (CIDR) that may read /metrics."
    )
    trusted_proxies: list[str] = Field(
        [], description="Networks (CIDR) of proxies that are believed about who called."
    )
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for", description="The header in which those proxies say it; the other one is never read."
    )
    keep_alive_s: float = Field(
        75, gt=0, description="Seconds for a request's head to come; a connection without one is closed."
    )
    max_connections: int = Field(12_000, ge=1, description="Connections held at once; more answer 503.")
    cors_origins: list[str] = Field(
        [], description="Origins whose pages may call the inference API from a browser; `*` is any."
    )

    @field_validator("metrics_allow", "trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for text in value:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise ValueError(f"{text!r} is not a network such as 10.0.0.0/8") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: list[str]) -> list[str]:
        for text in value:
            if text != "*" and not re.fullmatch(r"https?://[a-z0-9._-]+(?::\d{1,5})?", text):
                raise ValueError(f"{text!r} is not an origin such as https://app.example.com")
        return value


class TlsSettings(Section):
    """TLS by the server itself, for all that it answers."""

    certificate: Path | None = Field(
        None, description="The certificate and its chain, in PEM; unset is plain HTTP."
    )
    key: Path | None = Field(None, description="The certificate's key, in PEM, not readable by everybody.")
    minimum: Literal["1.2", "1.3"] = Field("1.2", description="The oldest version of TLS that is spoken.")
    hsts_s: int = Field(
        365 * 24 * 3600,
        ge=0,
        description="Seconds that browsers shall insist on TLS (HSTS); 0 does not ask for it.",
    )

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("give both a certificate and its key, or neither")
        return self


class LogSettings(Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level logged.")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is JSON in production and readable text in development."
    )
    access: bool = Field(True, description="One line for each request.")
    slow_ms: float | None = Field(
        None, gt=0, description="Milliseconds from which an inference request gets a second line, with its stages."
    )


class DatabaseSettings(Section):
    """The SQL store."""

    url: SecretStr | None = Field(
        None,
        description="`postgresql://user:password@host/name` or `sqlite:///path`; "
        "unset is SQLite in the data directory.",
    )
    pool_size: int = Field(5, ge=1, le=100, description="Connections kept to PostgreSQL by one process.")
    timeout_s: float = Field(10, gt=0, description="Seconds before a connection or a locked database gives up.")
    poll_s: float = Field(0.15, gt=0, le=60, description="Seconds between looks for changes made elsewhere.")


class AccessSettings(Section):
    """Sign-in, sessions and the default limits of tokens."""

    session_minutes: int = Field(30, ge=1, description="Life of a sign-in token before it must be refreshed.")
    refresh_days: int = Field(14, ge=1, description="Life of a refresh token.")
    idle_minutes: int = Field(480, ge=1, description="Minutes without a request that end a dashboard's session.")
    login_rate: str = Field("10/minute", description="Sign-in attempts allowed for one address.")
    user_failure_rate: str = Field(
        "5/minute;20/hour;60/day", description="Wrong passwords allowed for one user name, from anywhere."
    )
    token_rate: str | None = Field(None, description="Rate for access tokens that carry none; unset is no limit.")
    expiry_reminder_days: int = Field(
        14, ge=1, le=366, description="Days before a token ends in which the log and the metrics remind of it."
    )
    limit_slots: int = Field(
        131_072, ge=1024, le=1 << 24, description="Windows of tokens' rates counted at once, 40 bytes each."
    )
    limits_on_failure: Literal["open", "closed"] = Field(
        "open", description="Where limits cannot be counted: `open` lets requests in, `closed` refuses them."
    )

    @field_validator("login_rate", "user_failure_rate", "token_rate")
    @classmethod
    def _rates(cls, value: str | None) -> str | None:
        if value is not None and not all(_RATE.fullmatch(rate.strip()) for rate in re.split("[;,|]", value)):
            raise ValueError(f"{value!r} is not a rate such as 100/second or 10000/day")
        return value


class RedisSettings(Section):
    """Redis, where several machines count limits together."""

    url: SecretStr | None = Field(None, description="`redis://host:6379/0`; unset is no Redis.")
    prefix: str = Field(
        "pulvinar", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Begins all keys: one for each installation."
    )
    timeout_s: float = Field(0.25, gt=0, le=10, description="Seconds before Redis is taken to be away.")

    @field_validator("url")
    @classmethod
    def _redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        # Here and not at the first use: by then the start has made a database and an administrator.
        if value is not None and not _is_redis_url(value.get_secret_value()):
            raise ValueError("it is not an address such as redis://host:6379/0")
        return value


def _is_redis_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("redis", "rediss", "unix") and (parts.port or 1) > 0
    except ValueError:  # of a port that is no number
        return False


class UsageSettings(Section):
    """What callers used, and for how long that is kept."""

    flush_s: float = Field(2, ge=0.1, le=60, description="Seconds between writes of what was used.")
    minute_hours: int = Field(26, ge=1, le=24 * 366, description="Hours for which counts by minute are kept.")
    hour_days: int = Field(40, ge=1, le=3660, description="Days for which counts by hour are kept.")
    day_days: int = Field(1100, ge=62, le=36_600, description="Days for which counts by day are kept.")


class StoreSettings(Section):
    """Uploads and artifacts."""

    directory: Path | None = Field(
        None, description="Holds artifacts and samples; servers on one database share it. Unset: `data_dir`."
    )
    max_upload_bytes: int = Field(2 * GIB, ge=1, description="Largest model upload.")
    max_unpacked_bytes: int = Field(4 * GIB, ge=1, description="Largest total size a zip may unpack to.")
    max_archive_files: int = Field(1000, ge=1, description="Most files in a zip.")
    max_compression_ratio: float = Field(200, ge=1, description="Largest unpacked to packed ratio of a zip entry.")
    min_free_bytes: int = Field(64 * MIB, ge=0, description="Disk space that uploads leave free.")


class SourceSettings(Section):
    """Where models are fetched from, and how."""

    hub_url: str = Field("https://huggingface.co", description="The model hub, or a mirror that answers like it.")
    hub_token: SecretStr | None = Field(None, description="For gated and private repositories of the hub.")
    hub_organisations: list[str] | None = Field(
        None, description="Organisations whose models may be fetched; unset is any, an empty list is none."
    )
    package_index_url: SecretStr | None = Field(
        None, description="Package index (PEP 503) of `pypi:`; unset is what pip is configured for."
    )
    offline: bool = Field(False, description="Fetch nothing; take only what is in the cache.")
    cache_bytes: int = Field(20 * GIB, ge=1, description="Largest total size of fetched files kept in the cache.")
    stall_s: float = Field(30, gt=0, description="Seconds without a byte before a transfer is taken up anew.")
    timeout_s: float = Field(4 * 3600, gt=0, description="Seconds before an import is given up.")

    @field_validator("hub_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?", value):
            raise ValueError("it must be http(s)://host, without a user, a query or a fragment")
        return value.rstrip("/")


class ValidationSettings(Section):
    """Limits of the subprocess that tries an uploaded model."""

    memory_bytes: int = Field(8 * GIB, ge=256 * MIB, description="Address space of the validator.")
    cpu_s: int = Field(300, ge=1, description="CPU seconds of the validator.")
    wall_s: float = Field(180, gt=0, description="Seconds before the validator is ended.")
    concurrency: int = Field(1, ge=1, le=16, description="Validations run side by side.")


class EngineSettings(Section):
    """What engines may do."""

    trust_plans: bool = Field(
        False, description="Load TensorRT plans built elsewhere. They hold code: whoever uploads one runs it here."
    )


class SamplesSettings(Section):
    """What may be kept of a model's inputs, to calibrate and judge conversions with."""

    max_count: int = Field(5000, ge=1, le=1_000_000, description="Most samples of one model.")
    max_bytes: int = Field(1 * GIB, ge=1, description="Most bytes of all samples of one model.")
    max_sample_bytes: int = Field(32 * MIB, ge=1, description="Largest single sample.")
    live_queue: int = Field(64, ge=1, le=10_000, description="Live inputs that may wait to be written down.")


_BUDGET = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)\s*(%|B|[KMGT]i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1} | {
    f"{letter}{kind}": base**power
    for kind, base in (("ib", 1024), ("b", 1000))
    for power, letter in enumerate("kmgt", 1)
}


def budget_bytes(budget: int | str, total_bytes: int) -> int:
    """A memory budget in bytes, given as such, with a unit (`2GiB`), or as a share (`60%`) of the total.

    Raises ValueError.
    """
    found = _BUDGET.fullmatch(str(budget).strip())
    if found is None:
        raise ValueError(f"{budget!r} is not a size such as 2GiB, 512MiB or 60%")
    number, unit = float(found[1]), (found[2] or "").lower()
    if unit == "%":
        if number > 100:
            raise ValueError("a share may not be more than 100%")
        return int(total_bytes * number / 100)
    return int(number * _UNITS[unit])


class InferenceSettings(Section):
    """Caps and defaults of inference requests."""

    max_body_bytes: int = Field(32 * MIB, ge=1 * KIB, description="Largest inference request body.")
    max_items: int = Field(64, ge=1, description="Most files in one request.")
    max_pixels: int = Field(50_000_000, ge=1, description="Most pixels of one image, checked before decoding.")
    max_text_bytes: int = Field(1 << 20, ge=1, description="Longest text in bytes of UTF-8.")
    max_audio_s: float = Field(600, gt=0, description="Longest recording in seconds.")
    max_audio_bytes: int = Field(
        512 * MIB, ge=1, description="Most bytes of one recording once unpacked, 4 for a sample and channel."
    )
    timeout_ms: int = Field(30_000, ge=1, description="Deadline of a request where the deployment sets none.")
    queue_size: int = Field(256, ge=1, description="Queue capacity in items where the deployment sets none.")
    max_batch: int = Field(32, ge=1, description="Largest batch where the deployment sets none.")
    body_timeout_s: float = Field(30, gt=0, description="Seconds a client may take to send a request body.")
    threads: int = Field(0, ge=0, description="Threads that decode and pre-process; 0 is one a core.")
    cache_bytes: int = Field(
        256 * MIB,
        ge=0,
        description="Most bytes of kept answers in one process; 0 keeps none, whatever is deployed.",
    )
    memory_budget: int | str = Field(
        0, description="Host memory for loaded models: bytes, a size such as 2GiB, or 60%; 0 is no limit."
    )

    @field_validator("memory_budget")
    @classmethod
    def _budget(cls, value: int | str) -> int | str:
        budget_bytes(value, 0)
        return value


class Settings(BaseSettings):
    """All process settings, checked. Made by `load_settings`, or directly with keywords."""

    model_config = SettingsConfigDict(
        env_prefix="PULVINAR_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    data_dir: Path = Field(Path("data"), description="Holds the SQLite file, the artifacts and the keys.")
    admin_password: SecretStr | None = Field(
        None, description="Password of the first `admin`; unset makes a random one, printed once."
    )
    server: ServerSettings = ServerSettings()
    tls: TlsSettings = TlsSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    database: DatabaseSettings = DatabaseSettings()
    access: AccessSettings = AccessSettings()
    oidc: OidcSettings = OidcSettings()
    redis: RedisSettings = RedisSettings()
    usage: UsageSettings = UsageSettings()
    store: StoreSettings = StoreSettings()
    sources: SourceSettings = SourceSettings()
    validation: ValidationSettings = ValidationSettings()
    engines: EngineSettings = EngineSettings()
    inference: InferenceSettings = InferenceSettings()
    samples: SamplesSettings = SamplesSettings()
    streams: StreamSettings = StreamSettings()
    sequences: SequenceSettings = SequenceSettings()
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each setting that is not a default came from, by its dotted name; empty where nobody noted it."""
        return self._origins

    def came_from(self, origins: Mapping[str, str]) -> Self:
        """Note where the settings came from."""
        self._origins.update(origins)
        return self

    @property
    def database_url(self) -> str:
        """The URL as configured, or SQLite in the data directory. Holds the password: never log it."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.data_dir.resolve() / 'pulvinar.db'}"

    @property
    def secure_cookies(self) -> bool:
        """Whether browsers are told to send cookies over TLS alone: with TLS here, or in front of production."""
        return self.server.prod or self.tls.certificate is not None

    @property
    def artifacts_dir(self) -> Path:
        """Content-addressed model files."""
        return (self.store.directory or self.data_dir) / "artifacts"

    @property
    def plans_dir(self) -> Path:
        """What engines have built for this machine's GPUs."""
        return self.data_dir / "plans"

    @property
    def samples_dir(self) -> Path:
        """Content-addressed samples of models' inputs."""
        return (self.store.directory or self.data_dir) / "samples"

    @property
    def models_cache_dir(self) -> Path:
        """What was fetched from a hub or a package index."""
        return self.data_dir / "models_cache"

    @property
    def keys_dir(self) -> Path:
        """Secrets made by the server, readable by its user alone."""
        return self.data_dir / "keys"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keywords alone: `load_settings` merges the sources, so that tests never see the environment."""
        return (init_settings,)


def setting_names() -> list[str]:
    """Every setting by its dotted name, and every section by its own."""
    names: list[str] = []
    for name, field in Settings.model_fields.items():
        names.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            names.extend(f"{name}.{inner}" for inner in field.annotation.model_fields)
    return names


def section_names() -> set[str]:
    """The names of the groups."""
    fields = Settings.model_fields.items()
    return {name for name, field in fields if _section(field) is not None}


def composed_names() -> set[str]:
    """The settings that variables hold as JSON: lists, mappings, and whole groups."""
    names = section_names()
    for group, outer in Settings.model_fields.items():
        inner = getattr(_section(outer), "model_fields", {})
        names |= {f"{group}.{name}" for name, field in inner.items() if _is_composed(field.annotation)}
    return names


def _section(field: FieldInfo) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _is_composed(annotation: Any) -> bool:
    return any(get_origin(part) in (list, dict) for part in (annotation, *get_args(annotation)))
