"""Where settings come from; later sources win.

Defaults, then the YAML file, then `.env`, then `PULVINAR_*` (nested with `__`), then the command line. An unknown
key or a bad value stops the start with one line that names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from dotenv.parser import parse_stream
from pydantic import ValidationError
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource, SettingsError

from core.settings import InvalidSettings, Settings, composed_names, section_names, setting_names

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
    _refuse_variables(dotenv)
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


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: the first of two sections would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise _Twice(problem=f"{key.value} is there twice; keep one", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Twice(yaml.MarkedYAMLError):
    pass


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  # nosec B506  # a safe loader
    except OSError as error:
        raise InvalidSettings(f"The configuration file {path} cannot be read: {error.strerror}.") from error
    except _Twice as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidSettings(f"The configuration file {path}{place}: {error.problem}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise InvalidSettings(f"The configuration file {path} is not YAML{line}.") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidSettings(f"The configuration file {path} must hold settings by name.")
    sections = section_names()
    for name, inner in value.items():
        if name in sections and not isinstance(inner, dict | None):
            raise InvalidSettings(f"The section {name} of {path} must hold settings by name, as {name}: {{…}}.")
    # A section of which all is commented out is as one that is not there.
    return {name: inner for name, inner in value.items() if inner is not None or name not in sections}


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif isinstance(value, Mapping):
            into[key] = dict(value)
        else:
            into[key] = value


def _refuse_variables(dotenv: Path) -> None:
    known = {name.upper() for name in setting_names()}
    composed = {name.upper() for name in composed_names()}
    for place, variables in ((f"{dotenv.name}: ", _dotenv_lines(dotenv)), ("", dict(os.environ))):
        for variable in sorted(variables):
            if not variable.upper().startswith("PULVINAR_"):
                if place:
                    raise InvalidSettings(f"{place}{variable} is not a setting; their names begin with PULVINAR_.")
                continue
            name = variable.upper().removeprefix("PULVINAR_").replace("__", ".")
            if name not in known:
                raise InvalidSettings(f"{place}The environment variable {variable} is not a setting.")
            if name in composed and "${" not in variables[variable]:  # which is put in later
                _check_json(f"{place}The environment variable {variable}", variables[variable])


def _dotenv_lines(path: Path) -> dict[str, str]:
    """The values of a `.env` by their names; a line that is none is refused rather than passed over."""
    try:
        with path.open(encoding="utf-8") as file:
            bindings = list(parse_stream(file))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InvalidSettings(f"The file {path} cannot be read: {why}.") from error
    for binding in bindings:
        if binding.error or (binding.key is not None and binding.value is None):
            line = binding.original.line
            raise InvalidSettings(f"The file {path}, line {line}: write NAME=value.")
    return {binding.key: binding.value or "" for binding in bindings if binding.key is not None}


def _check_json(what: str, value: str) -> None:
    # The secret stays out of the message, and so does the rest.
    try:
        json.loads(value)
    except ValueError:
        raise InvalidSettings(
            f'{what} must be written as JSON, a list as \'["one", "two"]\' and names as \'{{"name": "value"}}\'.'
        ) from None


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"The setting {name} does not exist."
    message = first["msg"].removeprefix("Value error, ")
    return f"The setting {name} cannot be used: {message}."
