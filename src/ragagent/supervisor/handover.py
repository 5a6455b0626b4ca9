"""The supervisor's state as plain JSON: what it leaves to the image that replaces it in the same process.

`exec` keeps the pid, the children and the descriptors that are marked inheritable; everything else is written down
here. Moments are on the monotonic clock, which goes on. What cannot go on is left out: a reload in the making (there is
none when this is used), probes under way, clients of the control socket.

Unknown fields are ignored and absent ones take their default, so a version may add some; FORMAT changes when the
meaning of one does.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ragagent.config import Config, Data, Server
from ragagent.errors import RagagentError
from ragagent.supervisor.backoff import YoungDeaths
from ragagent.supervisor.facts import Facts, Limits, known, limits_of
from ragagent.supervisor.fleet import Fleet, Reloads
from ragagent.supervisor.member import Member, Probing, Slot, State, Wear
from ragagent.supervisor.process import Child, ZygoteProcess
from ragagent.supervisor.release import Release, Zygote

FORMAT = 1

Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Estate:
    """All that one image leaves to the next."""

    config: Config
    started_at: float
    listeners: Sequence[int]
    pidfile: int
    fleet: Fleet
    children: Mapping[Member, Child]
    zygotes: Mapping[Release, ZygoteProcess]

    def descriptors(self) -> list[int]:
        """Return what must stay open through `exec`."""
        handles: list[Child | ZygoteProcess] = [*self.children.values(), *self.zygotes.values()]
        return [self.pidfile, *self.listeners, *(handle.fileno() for handle in handles)]


def dump(estate: Estate) -> Plain:
    """Return the estate as JSON can hold it."""
    fleet = estate.fleet
    releases = _distinct([fleet.current, *estate.zygotes, *(member.release for member in fleet.members)])
    return {
        "format": FORMAT,
        "server": dataclasses.asdict(estate.config.server),
        "data": dataclasses.asdict(estate.config.data),
        "started_at": estate.started_at,
        "listeners": list(estate.listeners),
        "pidfile": estate.pidfile,
        "current": fleet.current.number if fleet.current is not None else None,
        "last_number": fleet.last_number,
        "recycled_at": fleet.recycled_at,
        "answered": fleet.answered,
        "young_deaths": dataclasses.asdict(fleet.young_deaths),
        "reloads": {"ok": fleet.reloads.ok, "failed": fleet.reloads.failed, "last_error": fleet.reloads.last_error},
        "slots": [[*key, dataclasses.asdict(slot)] for key, slot in fleet.slots.items()],
        "releases": [_release(release, estate.zygotes.get(release)) for release in releases],
        "members": [_member(member, estate.children.get(member)) for member in fleet.members],
    }


def load(plain: Mapping[str, Any], take: Callable[[int], socket.socket]) -> Estate:
    """Return the estate that `plain` describes; `take` makes a socket of a descriptor. Raises RagagentError for another
    format."""
    if plain["format"] != FORMAT:
        raise RagagentError(f"The running supervisor writes its state in format {plain['format']}, not {FORMAT}.")
    config = Config(server=known(Server, plain["server"]), data=known(Data, plain["data"]))
    releases = {item["number"]: _restored_release(item) for item in plain["releases"]}
    fleet = Fleet(limits_of(config))
    fleet.current = releases.get(plain["current"])
    fleet.last_number, fleet.recycled_at = plain["last_number"], plain["recycled_at"]
    fleet.answered, fleet.young_deaths = plain["answered"], known(YoungDeaths, plain["young_deaths"])
    fleet.reloads = known(Reloads, plain["reloads"])
    fleet.slots = {(role, number): known(Slot, slot) for role, number, slot in plain["slots"]}
    fleet.reload_wanted = False
    children: dict[Member, Child] = {}
    for item in plain["members"]:
        member = _restored_member(item, releases[item["release"]])
        fleet.members.append(member)
        if item["child"] is not None:
            children[member] = Child.from_plain(item["child"], take(item["child"]["fd"]))
    zygotes = {
        releases[item["number"]]: ZygoteProcess(item["zygote_process"]["pid"], take(item["zygote_process"]["fd"]))
        for item in plain["releases"]
        if item["zygote_process"] is not None
    }
    return Estate(config, plain["started_at"], plain["listeners"], plain["pidfile"], fleet, children, zygotes)


def _distinct(releases: Iterable[Release | None]) -> list[Release]:
    return list(dict.fromkeys(release for release in releases if release is not None))


def _release(release: Release, process: ZygoteProcess | None) -> Plain:
    fields = {item.name: getattr(release, item.name) for item in dataclasses.fields(release)}
    return fields | {
        "limits": dataclasses.asdict(release.limits),
        "facts": dataclasses.asdict(release.facts) if release.facts is not None else None,
        "failure": None,
        "zygote_process": {"pid": process.pid, "fd": process.fileno()} if process is not None else None,
    }


def _restored_release(item: Mapping[str, Any]) -> Release:
    facts = item["facts"]
    return known(
        Release,
        {
            **item,
            "limits": Limits.from_plain(item["limits"]),
            "facts": Facts.from_plain(facts) if facts is not None else None,
            "zygote": Zygote(item["zygote"]),
        },
    )


def _member(member: Member, child: Child | None) -> Plain:
    fields = {item.name: getattr(member, item.name) for item in dataclasses.fields(member)}
    return fields | {
        "release": member.release.number,
        "probe": {**dataclasses.asdict(member.probe), "sent_at": None},
        "wear": dataclasses.asdict(member.wear),
        "child": child.plain() if child is not None else None,
    }


def _restored_member(item: Mapping[str, Any], release: Release) -> Member:
    parts = {"probe": known(Probing, item["probe"]), "wear": known(Wear, item["wear"])}
    return known(Member, {**item, **parts, "release": release, "state": State(item["state"])})
