"""What the process is told at its start: addresses, places, caps. What a model does is in the database.

Later sources win: defaults, then the YAML file, then `.env`, then `PULVINAR_*` (nested with `__`), then the
command line. An unknown key or a bad value stops the start with one line that names it.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# As the library of `core.access.rates` reads them, without the weight of importing it.
_RATE = re.compile(
    r"0*[1-9]\d{0,9}\s*(?:/|\s+per\s+)\s*(?:0*[1-9]\d{0,4}\s*)?(?:second|minute|hour|day|month|year)s?",
    re.IGNORECASE,
)


class InvalidSettings(Exception):
    """A setting that cannot be used; the message is one line that names it and where it came from."""


class Section(BaseModel):
    """A group of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ServerSettings(Section):
    """Where and how HTTP is served."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    prod: bool = Field(False, description="Production mode: JSON logs, secure cookies, no debug helpers.")
    workers: int = Field(1, ge=1, le=64, description="HTTP worker processes.")
    docs: bool = Field(True, description="Serve the API pages under /docs.")
    drain_s: float = Field(20, ge=0, description="Seconds that a stop waits for requests in flight.")
    metrics_allow: list[str] = Field(
        ["127.0.0.0/8", "::1/128"], description="Networks (CIDR) that may read /metrics."
    )
    keep_alive_s: float = Field(
        75, gt=0, description="Seconds for a request's head to come; a connection without one is closed."
    )
    max_connections: int = Field(12_000, ge=1, description="Connections held at once; more answer 503.")

    @field_validator("metrics_allow")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for text in value:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise ValueError(f"{text!r} is not a network such as 10.0.0.0/8") from None
        return value


class LogSettings(Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level logged.")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is JSON in production and readable text in development."
    )
    access: bool = Field(True, description="One line for each request.")


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
    login_rate: str = Field("10/minute", description="Sign-in attempts allowed for one address.")
    token_rate: str | None = Field(None, description="Rate for access tokens that carry none; unset is no limit.")

    @field_validator("login_rate", "token_rate")
    @classmethod
    def _rates(cls, value: str | None) -> str | None:
        if value is not None and not all(_RATE.fullmatch(rate.strip()) for rate in re.split("[;,|]", value)):
            raise ValueError(f"{value!r} is not a rate such as 100/second or 10000/day")
        return value


class StoreSettings(Section):
    """Uploads and artifacts."""

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
    timeout_ms: int = Field(30_000, ge=1, description="Deadline of a request where the deployment sets none.")
    queue_size: int = Field(256, ge=1, description="Queue capacity in items where the deployment sets none.")
    max_batch: int = Field(32, ge=1, description="Largest batch where the deployment sets none.")
    body_timeout_s: float = Field(30, gt=0, description="Seconds a client may take to send a request body.")
    threads: int = Field(0, ge=0, description="Threads that decode and pre-process; 0 is one a core.")
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
    log: LogSettings = LogSettings()
    database: DatabaseSettings = DatabaseSettings()
    access: AccessSettings = AccessSettings()
    store: StoreSettings = StoreSettings()
    sources: SourceSettings = SourceSettings()
    validation: ValidationSettings = ValidationSettings()
    engines: EngineSettings = EngineSettings()
    inference: InferenceSettings = InferenceSettings()
    samples: SamplesSettings = SamplesSettings()

    @property
    def database_url(self) -> str:
        """The URL as configured, or SQLite in the data directory. Holds the password: never log it."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.data_dir.resolve() / 'pulvinar.db'}"

    @property
    def artifacts_dir(self) -> Path:
        """Content-addressed model files."""
        return self.data_dir / "artifacts"

    @property
    def plans_dir(self) -> Path:
        """What engines have built for this machine's GPUs."""
        return self.data_dir / "plans"

    @property
    def samples_dir(self) -> Path:
        """Content-addressed samples of models' inputs."""
        return self.data_dir / "samples"

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


def load_settings(
    config: Path | None = None, flags: Mapping[str, Any] | None = None, dotenv: Path = Path(".env")
) -> Settings:
    """Merge all sources and check them. `flags` is nested like the file. Raises InvalidSettings.

    Without `config`, `config.yaml` in the working directory is read where it exists.
    """
    if config is None and Path("config.yaml").is_file():
        config = Path("config.yaml")
    merged = _read_yaml(config) if config else {}
    _refuse_unknown_variables(dotenv)
    for source in (DotEnvSettingsSource(Settings, env_file=dotenv), EnvSettingsSource(Settings)):
        try:
            _merge(merged, source())
        except SettingsError as error:
            raise InvalidSettings(f"The environment holds a setting that cannot be read: {error}.") from error
    _merge(merged, flags or {})
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise InvalidSettings(_one_line(error)) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettings(f"The configuration file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise InvalidSettings(f"The configuration file {path} is not YAML{line}.") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidSettings(f"The configuration file {path} must hold settings by name.")
    return value


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif isinstance(value, Mapping):
            into[key] = dict(value)
        else:
            into[key] = value


def _refuse_unknown_variables(dotenv: Path) -> None:
    known = {name.upper() for name in setting_names()}
    variables = {**(dotenv_values(dotenv) if dotenv.is_file() else {}), **os.environ}
    for variable in sorted(variables):
        if variable.startswith("PULVINAR_"):
            name = variable.removeprefix("PULVINAR_").replace("__", ".")
            if name not in known:
                raise InvalidSettings(f"The environment variable {variable} is not a setting.")


def setting_names() -> list[str]:
    """Every setting by its dotted name, and every section by its own."""
    names: list[str] = []
    for name, field in Settings.model_fields.items():
        names.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            names.extend(f"{name}.{inner}" for inner in field.annotation.model_fields)
    return names


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"The setting {name} does not exist."
    message = first["msg"].removeprefix("Value error, ")
    return f"The setting {name} cannot be used: {message}."
