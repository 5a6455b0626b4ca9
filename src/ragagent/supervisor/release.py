"""A release is one loaded pair of code and config: what a reload replaces, as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from ragagent.errors import EXIT_CANNOT_START
from ragagent.supervisor.facts import Facts, Limits

Role = Literal["worker", "indexer"]
SlotKey = tuple[Role, int]

INDEXER: SlotKey = ("indexer", 0)


class Zygote(StrEnum):
    LOADING = "loading"  # imports the code, reads the config
    LOADED = "loaded"  # forks on request
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Failure:
    reason: str
    code: int = EXIT_CANNOT_START


@dataclass(eq=False, slots=True)
class Release:
    number: int
    limits: Limits  # its predecessor's, until its zygote has read the config
    previous: int | None = None  # the release that it is to replace; None: the first boot
    facts: Facts | None = None
    changes: dict[str, str] = field(default_factory=dict)  # key → what a reload does with it
    workers: int = 0  # how many it wants
    zygote: Zygote = Zygote.LOST
    zygote_since: float = 0.0
    zygote_failures: int = 0
    zygote_retry_at: float = 0.0
    switching: bool = False
    finished: bool = False  # it is current, and no member of an older release is left
    failure: Failure | None = None
    marks: dict[str, float] = field(default_factory=dict)  # when it was requested, loaded, ready, serving, finished

    @property
    def is_reload(self) -> bool:
        return self.previous is not None

    def slots(self) -> list[SlotKey]:
        return [*(("worker", slot) for slot in range(self.workers)), INDEXER]
