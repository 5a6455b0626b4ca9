"""The configuration: frozen sections, one TOML file, the environment on top, validated before any process starts.

Precedence: command line > environment > file > default. An unknown key is an error that names the nearest known one.
`conf/ragagent.toml` is the manual; a test holds that it names every key with its default. Stdlib only: the supervisor
reads this too. Each key says in its metadata what a reload does with it:

    hot      a reload applies it without a new process
    rolls    a reload replaces the workers
    restart  needs a new supervisor
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ragagent.errors import ConfigError

MIB = 1024 * 1024
Reload = Literal["hot", "rolls", "restart"]


def _key(default: Any, *, reload: Reload = "rolls", minimum: float | None = None, env: str | None = None) -> Any:
    """Declare one key. `env` is a standard variable that is honoured beside RAGAGENT_SECTION__KEY."""
    metadata = {"reload": reload, "minimum": minimum, "env": env}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Server:
    bind: str = _key("127.0.0.1:8000", reload="restart")
    workers: int = _key(0, minimum=0)  # 0: one per core, at most 4
    backlog: int = _key(2048, reload="restart", minimum=1)
    http1: Literal["llhttp", "hypercorn"] = _key("llhttp")
    keep_alive_seconds: float = _key(5.0, minimum=0)
    graceful_seconds: float = _key(30.0, minimum=0.1)
    ready_seconds: float = _key(60.0, reload="hot", minimum=1)
    hang_seconds: float = _key(10.0, reload="hot", minimum=1)
    max_body_bytes: int = _key(25 * MIB, minimum=1024)
    body_seconds: float = _key(60.0, minimum=1)
    log_level: Literal["debug", "info", "warning", "error"] = _key("info")
    log_file: str = _key("", reload="restart")  # empty: standard error
    access_log: bool = _key(True)

    @property
    def log_path(self) -> Path | None:
        return Path(self.log_file).absolute() if self.log_file else None

    @property
    def worker_count(self) -> int:
        return self.workers or min(os.cpu_count() or 1, 4)

    @property
    def host(self) -> str:
        return self.bind.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.bind.rpartition(":")[2])

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # A name may resolve to anything: treat it as public.


@dataclass(frozen=True)
class Probe:
    interval_seconds: float = _key(2.0, reload="hot", minimum=0)  # 0: no probes
    timeout_seconds: float = _key(5.0, reload="hot", minimum=0.1)
    failures: int = _key(3, reload="hot", minimum=1)  # in a row, until the worker is replaced


@dataclass(frozen=True)
class Recycle:
    requests: int = _key(0, reload="hot", minimum=0)  # 0, here and below: no such limit
    pss_bytes: int = _key(0, reload="hot", minimum=0)
    lifetime_seconds: float = _key(0.0, reload="hot", minimum=0)
    jitter: float = _key(0.2, reload="hot", minimum=0)  # each worker's limits are up to this share lower
    spacing_seconds: float = _key(10.0, reload="hot", minimum=0)


@dataclass(frozen=True)
class Data:
    dir: str = _key("./ragagent-data", reload="restart")
    welcome: list[str] = _key([])  # files loaded into the store `welcome` while there is no store yet

    @property
    def path(self) -> Path:
        return Path(self.dir)

    @property
    def database(self) -> Path:
        return self.path / "ragagent.db"

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def pepper(self) -> Path:
        return self.path / "pepper"

    @property
    def doorbell(self) -> Path:
        return self.path / "indexer.sock"


@dataclass(frozen=True)
class Auth:
    required: Literal["auto", "always"] = _key("auto")  # auto: keys are optional on loopback only
    cors_origins: list[str] = _key([])


@dataclass(frozen=True)
class Redis:
    url: str = _key("", env="REDIS_URL")
    connections: int = _key(16, minimum=1)
    timeout_seconds: float = _key(0.1, minimum=0.001)


@dataclass(frozen=True)
class Cache:
    enabled: bool = _key(True)
    local_bytes: int = _key(64 * MIB, minimum=0)
    filter_bytes: int = _key(32 * MIB, minimum=0)
    embedding_seconds: float = _key(86_400.0, minimum=0)
    retrieval_seconds: float = _key(3_600.0, minimum=0)
    answer_seconds: float = _key(3_600.0, minimum=0)


@dataclass(frozen=True)
class Embedder:
    provider: Literal["wordllama", "openai"] = _key("wordllama")
    model: str = _key("wordllama-256")
    dimension: int = _key(256, minimum=1)
    base_url: str = _key("", env="OPENAI_BASE_URL")
    api_key: str = _key("", env="OPENAI_API_KEY")
    timeout_seconds: float = _key(10.0, minimum=0.01)
    retries: int = _key(2, minimum=0)
    batch: int = _key(64, minimum=1)


@dataclass(frozen=True)
class Generator:
    provider: Literal["extractive", "openai"] = _key("extractive")
    model: str = _key("extractive")
    base_url: str = _key("", env="OPENAI_BASE_URL")
    api_key: str = _key("", env="OPENAI_API_KEY")
    timeout_seconds: float = _key(60.0, minimum=0.01)
    retries: int = _key(2, minimum=0)
    temperature: float = _key(0.1, minimum=0)
    max_tokens: int = _key(1024, minimum=1)


@dataclass(frozen=True)
class Retrieval:
    results: int = _key(8, minimum=1)
    candidates: int = _key(50, minimum=1)  # per leg
    fusion: Literal["convex", "rrf"] = _key("convex")
    dense_weight: float = _key(0.2, minimum=0)
    min_evidence: float = _key(0.42, minimum=0)
    min_cosine: float = _key(0.0, minimum=0)  # 0: words alone decide whether there is evidence
    max_stores: int = _key(8, minimum=1)
    max_query_chars: int = _key(32_768, minimum=1)
    ef_search: int = _key(0, minimum=0)  # 0: by the size of each graph


@dataclass(frozen=True)
class Ingest:
    wait_seconds: float = _key(10.0, minimum=0)
    chunk_tokens: int = _key(400, minimum=100)
    chunk_overlap_tokens: int = _key(0, minimum=0)
    parse_seconds: float = _key(60.0, minimum=1)
    parse_memory_bytes: int = _key(1024 * MIB, minimum=128 * MIB)
    max_text_chars: int = _key(20_000_000, minimum=1)
    max_delta_rows: int = _key(4096, minimum=1)
    hnsw_rows: int = _key(10_000, minimum=1)
    vectors: Literal["float32", "int8"] = _key("float32")
    retain_bytes: int = _key(0, minimum=0)  # 0: nothing is kept of what is superseded
    max_queue_documents: int = _key(10_000, minimum=0)  # 0, here and below: no such limit
    max_queue_bytes: int = _key(1024 * MIB, minimum=0)


@dataclass(frozen=True)
class Quota:
    store_documents: int = _key(0, minimum=0)
    store_bytes: int = _key(0, minimum=0)


@dataclass(frozen=True)
class Telemetry:
    endpoint: str = _key("", env="OTEL_EXPORTER_OTLP_ENDPOINT")
    service_name: str = _key("ragagent", env="OTEL_SERVICE_NAME")
    sample_ratio: float = _key(1.0, minimum=0)
    metrics_seconds: float = _key(10.0, minimum=0.1)


@dataclass(frozen=True)
class Profile:
    """What `model` names in a request: the stores it answers from and how. No stores: all that the caller may read."""

    stores: list[str] = _key([])
    instructions: str = _key("")
    results: int = _key(0, minimum=0)  # 0: retrieval.results


@dataclass(frozen=True)
class Config:
    server: Server = field(default_factory=Server)
    probe: Probe = field(default_factory=Probe)
    recycle: Recycle = field(default_factory=Recycle)
    data: Data = field(default_factory=Data)
    auth: Auth = field(default_factory=Auth)
    redis: Redis = field(default_factory=Redis)
    cache: Cache = field(default_factory=Cache)
    embedder: Embedder = field(default_factory=Embedder)
    embedders: Mapping[str, Embedder] = field(default_factory=dict)
    generator: Generator = field(default_factory=Generator)
    retrieval: Retrieval = field(default_factory=Retrieval)
    ingest: Ingest = field(default_factory=Ingest)
    quota: Quota = field(default_factory=Quota)
    telemetry: Telemetry = field(default_factory=Telemetry)
    profile: Mapping[str, Profile] = field(default_factory=lambda: {"ragagent": Profile()})


_SECTIONS: dict[str, type[Any]] = {
    "server": Server,
    "probe": Probe,
    "recycle": Recycle,
    "data": Data,
    "auth": Auth,
    "redis": Redis,
    "cache": Cache,
    "embedder": Embedder,
    "generator": Generator,
    "retrieval": Retrieval,
    "ingest": Ingest,
    "quota": Quota,
    "telemetry": Telemetry,
}


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the file (if any), lay the environment over it, and return the whole, validated.

    Raises ConfigError: the file is missing or is not TOML, a key is unknown, a value is of the wrong type or range.
    """
    environ = os.environ if environ is None else environ
    document = _read(path) if path is not None else {}
    profiles = document.pop("profile", {})
    embedders = document.pop("embedders", {})
    _refuse_unknown(document, _SECTIONS, "section")
    overrides = dict(_from_environment(environ))
    sections = {
        name: _section(kind, name, document.get(name, {}), overrides.get(name, {})) for name, kind in _SECTIONS.items()
    }
    config = Config(**sections, embedders=_embedders(embedders, environ), profile=_profiles(profiles))
    _validate(config)
    return config


def keys() -> Iterator[tuple[str, str, dataclasses.Field[Any]]]:
    """Yield `(section, key, field)` of every key that there is, profiles' under the section "profile"."""
    for section, kind in {**_SECTIONS, "profile": Profile}.items():
        for item in dataclasses.fields(kind):
            yield section, item.name, item


def changes(old: Config, new: Config) -> Iterator[tuple[str, Reload]]:
    """Yield `("section.key", reload class)` of every key whose value differs."""
    for section, kind in _SECTIONS.items():
        for item in dataclasses.fields(kind):
            if getattr(getattr(old, section), item.name) != getattr(getattr(new, section), item.name):
                yield f"{section}.{item.name}", item.metadata["reload"]
    for section in ("embedders", "profile"):
        if getattr(old, section) != getattr(new, section):
            yield section, "rolls"


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
