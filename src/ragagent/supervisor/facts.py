"""What a zygote tells the supervisor of the config that it has loaded.

The numbers that the supervisor needs, and one digest per key: enough to name what a reload changes, without sending
secrets. Computed by the release's own code, so that a release whose config knows new keys can be loaded by a
supervisor that does not.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ragagent.config import Config, Probe, Recycle, keys

T = TypeVar("T")

NO_PROBES = Probe(interval_seconds=0)


@dataclass(frozen=True, slots=True)
class Limits:
    ready_seconds: float
    hang_seconds: float
    graceful_seconds: float
    probe: Probe = NO_PROBES
    recycle: Recycle = Recycle()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Limits:
        parts = {"probe": known(Probe, plain["probe"]), "recycle": known(Recycle, plain["recycle"])}
        return known(cls, {**plain, **parts})


@dataclass(frozen=True, slots=True)
class Facts:
    workers: int
    limits: Limits
    endpoint: str  # of the collector; empty: none
    service_name: str
    keys: Mapping[str, tuple[str, str]]  # "section.key" → (digest of its value, what a reload does with it)
    metrics_seconds: float = 10.0

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Facts:
        keys = {name: (digest, reload) for name, (digest, reload) in plain["keys"].items()}
        return known(cls, {**plain, "limits": Limits.from_plain(plain["limits"]), "keys": keys})

    def changes(self, older: Facts) -> dict[str, str]:
        """Return what differs from `older`, as key → "hot", "rolls" or "restart"."""
        return {key: reload for key, (digest, reload) in self.keys.items() if older.keys.get(key, ("",))[0] != digest}


def limits_of(config: Config) -> Limits:
    server = config.server
    return Limits(server.ready_seconds, server.hang_seconds, server.graceful_seconds, config.probe, config.recycle)


def facts_of(config: Config) -> Facts:
    telemetry = config.telemetry
    return Facts(
        workers=config.server.worker_count,
        limits=limits_of(config),
        endpoint=telemetry.endpoint,
        service_name=telemetry.service_name,
        keys=dict(_digests(config)),
        metrics_seconds=telemetry.metrics_seconds,
    )


def known(kind: type[T], table: Mapping[str, Any]) -> T:
    """Return `kind` from the keys of `table` that it has: whoever wrote it may be newer, and know more."""
    names = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in table.items() if name in names})


def _digests(config: Config) -> Iterator[tuple[str, tuple[str, str]]]:
    for section, key, item in keys():
        if section != "profile":
            value = getattr(getattr(config, section), key)
            yield f"{section}.{key}", (_digest(value), item.metadata["reload"])
    yield "embedders", (_digest(sorted(config.embedders.items())), "rolls")
    yield "profile", (_digest(sorted(config.profile.items())), "rolls")


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
