"""Where settings come from; later sources win.

Defaults, then the YAML file, then `.env`, then `PULVINAR_*` (nested with `__`), then the command line. An unknown
key or a bad value stops the start with one line that names it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource, SettingsError

from core.settings import InvalidSettings, Settings, setting_names

COMMAND_LINE: Final = "command line"
ENVIRONMENT: Final = "environment"


def load_settings(
    config: Path | None = None, flags: Mapping[str, Any] | None = None, dotenv: Path = Path(".env")
) -> Settings:
    """Merge all sources and check them. `flags` is nested like the file. Raises InvalidSettings.

    Without `config`, `config.yaml` in the working directory is read where it exists.
    """
    if config is None and Path("config.yaml").is_file():
        config = Path("config.yaml")
    _refuse_unknown_variables(dotenv)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in _read_all(config, flags or {}, dotenv):
        _merge(merged, values)
        origins.update(dict.fromkeys(_dotted(values), origin))
    try:
        return Settings(**merged).came_from(origins)
    except ValidationError as error:
        raise InvalidSettings(_one_line(error)) from error


def _read_all(
    config: Path | None, flags: Mapping[str, Any], dotenv: Path
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if config:
        yield config.name, _read_yaml(config)
    try:
        yield dotenv.name, DotEnvSettingsSource(Settings, env_file=dotenv)()
        yield ENVIRONMENT, EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise InvalidSettings(f"The environment holds a setting that cannot be read: {error}.") from error
    yield COMMAND_LINE, flags


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


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


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"The setting {name} does not exist."
    message = first["msg"].removeprefix("Value error, ")
    return f"The setting {name} cannot be used: {message}."
