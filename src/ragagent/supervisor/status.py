"""The answer to `status`: one plain document, from the fleet and what its children last said of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member, State
from ragagent.supervisor.process import Child
from ragagent.supervisor.release import INDEXER, SlotKey
from ragagent.supervisor.wear import worn

Children = Mapping[Member, Child]


def status(fleet: Fleet, children: Children, now: float) -> dict[str, Any]:
    """Return workers (draining ones of an older release included), the indexer, and the stores it tells of."""
    indexers = _entries(fleet, children, "indexer", now)
    # The newest one that serves, else the one that will: a draining predecessor is not the answer.
    indexer = next((entry for entry in indexers if entry["state"] == State.RUNNING), indexers[0])
    return {
        "workers": _entries(fleet, children, "worker", now),
        "indexer": indexer,
        "queue": indexer["stats"].get("queue", {}),
        "stores": indexer["stats"].get("stores", []),
        "store_count": indexer["stats"].get("store_count", 0),
    }


def state(fleet: Fleet) -> str:
    """Return the supervisor's own state in one word."""
    if fleet.stop is not None:
        return "stopping"
    if fleet.current is None:
        return "starting"
    if fleet.is_failing:
        return "fatal"
    healthy = {member.key for member in fleet.of(fleet.current) if member.is_healthy}
    return "running" if healthy >= set(fleet.current.slots()) else "degraded"


def reloads(fleet: Fleet) -> dict[str, Any]:
    return {"ok": fleet.reloads.ok, "failed": fleet.reloads.failed, "last_error": fleet.reloads.last_error}


def _entries(fleet: Fleet, children: Children, role: str, now: float) -> list[dict[str, Any]]:
    members = sorted((m for m in fleet.members if m.role == role), key=lambda m: (m.slot, -m.release.number, m.born))
    entries = [_filled(fleet, member, children, now) for member in members]
    filled = {member.key for member in members}
    wanted = fleet.current.slots() if fleet.current is not None else [INDEXER]
    vacant = [_vacant(fleet, key) for key in wanted if key[0] == role and key not in filled]
    return sorted([*entries, *vacant], key=lambda entry: entry["slot"])


def _filled(fleet: Fleet, member: Member, children: Children, now: float) -> dict[str, Any]:
    slot, child = fleet.slot(member.key), children.get(member)
    return {
        "pid": child.pid if child is not None else None,
        "slot": member.slot,
        "role": member.role,
        "release": member.release.number,
        "state": member.state.value,
        "age_seconds": round(now - member.born, 3),
        "heartbeat_age_seconds": round(now - member.beat_at, 3),
        "restarts": slot.restarts,
        "last_exit": slot.last_exit,
        "pss_bytes": child.pss_bytes() if child is not None else None,
        "probe": {"outcome": member.probe.outcome, "failures": member.probe.failures},
        "worn": member.wear.why or worn(member, now) or None,
        "stats": dict(child.stats) if child is not None else {},
    }


def _vacant(fleet: Fleet, key: SlotKey) -> dict[str, Any]:
    slot = fleet.slot(key)
    return {
        "pid": None,
        "slot": key[1],
        "role": key[0],
        "release": fleet.current.number if fleet.current is not None else None,
        "state": slot.state.value if slot.failures else State.STARTING.value,
        "age_seconds": 0.0,
        "heartbeat_age_seconds": None,
        "restarts": slot.restarts,
        "last_exit": slot.last_exit,
        "pss_bytes": None,
        "probe": {"outcome": None, "failures": 0},
        "worn": None,
        "stats": {},
    }
