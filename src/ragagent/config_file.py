"""From a TOML file and the environment to a validated configuration, before any process starts.

Precedence: command line > environment > file > default. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ragagent.config import SECTIONS, Config, Embedder, Generator, Profile, keys
from ragagent.errors import ConfigError

MAX_BURST_SECONDS = 3600


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the file (if any), lay the environment over it, and return the whole, validated.

    Raises ConfigError: the file is missing or is not TOML, a key is unknown, a value is of the wrong type or range.
    """
    environ = os.environ if environ is None else environ
    document = _read(path) if path is not None else {}
    profiles = document.pop("profile", {})
    embedders = document.pop("embedders", {})
    _refuse_unknown(document, SECTIONS, "section")
    overrides = dict(_from_environment(environ))
    sections = {
        name: _section(kind, name, document.get(name, {}), overrides.get(name, {})) for name, kind in SECTIONS.items()
    }
    config = Config(**sections, embedders=_embedders(embedders, environ), profile=_profiles(profiles))
    _validate(config)
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"Config file '{path}' cannot be read: {exc.strerror}.") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"Config file '{path}' is not valid TOML: {exc}.") from exc


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each section's overrides. Ours win over the standard variables; an unknown one of ours is an error."""
    found: dict[str, dict[str, str]] = {}
    for section, key, item in keys():
        standard = item.metadata["env"]
        if standard and environ.get(standard):
            found.setdefault(section, {})[key] = environ[standard]
    for variable, value in environ.items():
        if not variable.startswith("RAGAGENT_") or "__" not in variable:
            continue
        section, _, key = variable.removeprefix("RAGAGENT_").lower().partition("__")
        known = {f"{s}.{k}" for s, k, _ in keys() if s != "profile"}
        if f"{section}.{key}" not in known:
            hint = _nearest(f"{section}.{key}", known)
            raise ConfigError(f"Environment variable '{variable}' names no config key{hint}")
        found.setdefault(section, {})[key] = value
    yield from found.items()


def _section(kind: type[Any], name: str, table: Any, overrides: Mapping[str, str]) -> Any:
    if not isinstance(table, dict):
        raise ConfigError(f"Config section '{name}' must be a table, as in [{name}].")
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    _refuse_unknown(table, fields, "key", prefix=f"{name}.")
    values: dict[str, Any] = {}
    for key, item in fields.items():
        if key in overrides:
            values[key] = _from_text(f"{name}.{key}", hints[key], overrides[key])
        elif key in table:
            values[key] = _typed(f"{name}.{key}", hints[key], table[key])
        if key in values:
            _in_range(f"{name}.{key}", item, values[key])
    return kind(**values)


def _profiles(table: Any) -> Mapping[str, Profile]:
    if not isinstance(table, dict):
        raise ConfigError("Config section 'profile' must hold tables, as in [profile.support].")
    profiles = {name: _section(Profile, f"profile.{name}", values, {}) for name, values in table.items()}
    return types.MappingProxyType(profiles or {"ragagent": Profile()})


def _embedders(table: Any, environ: Mapping[str, str]) -> Mapping[str, Embedder]:
    """Return the embedders beside `[embedder]`. The standard variables stand in for what a table does not say."""
    if not isinstance(table, dict):
        raise ConfigError("Config section 'embedders' must hold tables, as in [embedders.old].")
    standard = {item.name: environ.get(item.metadata["env"] or "", "") for item in dataclasses.fields(Embedder)}
    found = {}
    for name, values in table.items():
        said = values if isinstance(values, dict) else {}
        overrides = {key: value for key, value in standard.items() if value and key not in said}
        found[name] = _section(Embedder, f"embedders.{name}", values, overrides)
    return types.MappingProxyType(found)


def _typed(name: str, kind: Any, value: Any) -> Any:
    """Return `value` as `kind`, or refuse it by name and value."""
    if typing.get_origin(kind) is Literal:
        if value in typing.get_args(kind):
            return value
        allowed = ", ".join(typing.get_args(kind))
        raise ConfigError(f"Config key '{name}' has value '{value}'; it must be one of {allowed}.")
    if typing.get_origin(kind) is list:
        if isinstance(value, list) and all(isinstance(element, str) for element in value):
            return value
        raise ConfigError(f"Config key '{name}' has value '{value}'; it must be a list of strings.")
    if kind is float and type(value) in (int, float):
        return float(value)
    if type(value) is kind:
        return value
    raise ConfigError(f"Config key '{name}' has value '{value}'; it must be {_described(kind)}.")


def _from_text(name: str, kind: Any, text: str) -> Any:
    if typing.get_origin(kind) is list:
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind is bool:
        if text.lower() in ("true", "1", "yes", "on"):
            return True
        if text.lower() in ("false", "0", "no", "off"):
            return False
        raise ConfigError(f"Config key '{name}' has value '{text}'; it must be true or false.")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ConfigError(f"Config key '{name}' has value '{text}'; it must be {_described(kind)}.") from None
    return _typed(name, kind, text)


def _in_range(name: str, item: dataclasses.Field[Any], value: Any) -> None:
    minimum = item.metadata["minimum"]
    # Written as `not >=` so that a NaN is refused as well.
    if minimum is not None and not value >= minimum:
        raise ConfigError(f"Config key '{name}' has value '{value}'; it must be at least {minimum:g}.")


def _described(kind: Any) -> str:
    return {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}.get(kind, str(kind))


def _refuse_unknown(table: Mapping[str, Any], known: Mapping[str, Any], noun: str, prefix: str = "") -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"Unknown config {noun} '{prefix}{key}'{_nearest(key, known, prefix)}")


def _nearest(key: str, known: Mapping[str, Any] | set[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean '{prefix}{close[0]}'?" if close else "."


def _validate(config: Config) -> None:
    """Check what no single key can say of itself."""
    try:
        valid = bool(config.server.host) and 0 <= config.server.port <= 65535
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"Config key 'server.bind' has value '{config.server.bind}'; it must be HOST:PORT.")
    if config.recycle.jitter >= 1:
        raise ConfigError(f"Config key 'recycle.jitter' has value '{config.recycle.jitter:g}'; it must be below 1.")
    if config.retrieval.dense_weight > 1:
        raise ConfigError(
            f"Config key 'retrieval.dense_weight' has value '{config.retrieval.dense_weight:g}'; it must be at most 1."
        )
    if config.limits.burst_seconds > MAX_BURST_SECONDS:
        raise ConfigError(
            f"Config key 'limits.burst_seconds' has value '{config.limits.burst_seconds:g}'; it must be at most "
            f"{MAX_BURST_SECONDS}."
        )
    if config.ingest.chunk_overlap_tokens * 2 > config.ingest.chunk_tokens:
        raise ConfigError(
            f"Config key 'ingest.chunk_overlap_tokens' has value '{config.ingest.chunk_overlap_tokens}'; "
            f"it must be at most half of ingest.chunk_tokens ({config.ingest.chunk_tokens})."
        )
    endpoints: dict[str, Embedder | Generator] = {"embedder": config.embedder, "generator": config.generator}
    endpoints |= {f"embedders.{name}": section for name, section in config.embedders.items()}
    for name, section in endpoints.items():
        if section.provider == "openai" and not section.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"Config key '{name}.base_url' has value '{section.base_url}'; with provider 'openai' it must be an "
                "http(s) URL ending in the API's version, as in http://127.0.0.1:11434/v1."
            )
