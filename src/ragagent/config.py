"""The configuration: frozen sections, each key with its default and what a reload does with it.

`conf/ragagent.toml` is the manual; a test holds that it names every key with its default. `config_file.py` reads it.
Stdlib only: the supervisor reads this too. Each key says in its metadata what a reload does with it:

    hot      a reload applies it without a new process
    rolls    a reload replaces the workers
    restart  needs a new supervisor
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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
    def session_locks(self) -> Path:
        return self.path / "sessions.lock"

    @property
    def limits(self) -> Path:
        return self.path / "limits"

    @property
    def warm(self) -> Path:
        return self.path / "warm"

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
    policy: Literal["2q", "lru"] = _key("2q")
    filter_bytes: int = _key(32 * MIB, minimum=0)
    embedding_seconds: float = _key(86_400.0, minimum=0)
    retrieval_seconds: float = _key(3_600.0, minimum=0)
    answer_seconds: float = _key(3_600.0, minimum=0)
    stale_seconds: float = _key(600.0, minimum=0)
    stale_on_error_seconds: float = _key(21_600.0, minimum=0)
    negative_seconds: float = _key(10.0, minimum=0)


@dataclass(frozen=True)
class Semantic:
    enabled: bool = _key(False)
    min_cosine: float = _key(0.8, minimum=0)
    questions: int = _key(10_000, minimum=1)
    namespace_questions: int = _key(1000, minimum=1)
    shadow_share: float = _key(0.01, minimum=0)
    max_false_share: float = _key(0.005, minimum=0)
    min_samples: int = _key(50, minimum=1)
    off_seconds: float = _key(3_600.0, minimum=0)


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
    history_tokens: int = _key(4096, minimum=0)
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
class Session:
    store: Literal["auto", "sqlite", "redis"] = _key("auto")  # auto: shared through Redis where there is one
    wait_seconds: float = _key(2.0, minimum=0)
    idle_seconds: float = _key(86_400.0, minimum=1)
    max_age_seconds: float = _key(30 * 86_400.0, minimum=1)
    turn_bytes: int = _key(128 * 1024, minimum=1)
    max_bytes: int = _key(MIB, minimum=1)
    max_turns: int = _key(200, minimum=1)
    tenant_sessions: int = _key(10_000, minimum=0)  # 0, here and below: no such limit
    tenant_bytes: int = _key(4096 * MIB, minimum=0)


@dataclass(frozen=True)
class Limits:
    requests_per_minute: int = _key(0, minimum=0)  # 0, here and below: no such limit
    tokens_per_minute: int = _key(0, minimum=0)
    concurrent_answers: int = _key(0, minimum=0)
    tenant_requests_per_minute: int = _key(0, minimum=0)
    tenant_tokens_per_minute: int = _key(0, minimum=0)
    tenant_concurrent_answers: int = _key(0, minimum=0)
    burst_seconds: float = _key(60.0, minimum=0)
    on_redis_down: Literal["local", "open", "closed"] = _key("local")


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
    semantic: Semantic = field(default_factory=Semantic)
    embedder: Embedder = field(default_factory=Embedder)
    embedders: Mapping[str, Embedder] = field(default_factory=dict)
    generator: Generator = field(default_factory=Generator)
    retrieval: Retrieval = field(default_factory=Retrieval)
    ingest: Ingest = field(default_factory=Ingest)
    quota: Quota = field(default_factory=Quota)
    session: Session = field(default_factory=Session)
    limits: Limits = field(default_factory=Limits)
    telemetry: Telemetry = field(default_factory=Telemetry)
    profile: Mapping[str, Profile] = field(default_factory=lambda: {"ragagent": Profile()})


SECTIONS: dict[str, type[Any]] = {
    "server": Server,
    "probe": Probe,
    "recycle": Recycle,
    "data": Data,
    "auth": Auth,
    "redis": Redis,
    "cache": Cache,
    "semantic": Semantic,
    "embedder": Embedder,
    "generator": Generator,
    "retrieval": Retrieval,
    "ingest": Ingest,
    "quota": Quota,
    "session": Session,
    "limits": Limits,
    "telemetry": Telemetry,
}


def keys() -> Iterator[tuple[str, str, dataclasses.Field[Any]]]:
    """Yield `(section, key, field)` of every key that there is, profiles' under the section "profile"."""
    for section, kind in {**SECTIONS, "profile": Profile}.items():
        for item in dataclasses.fields(kind):
            yield section, item.name, item
