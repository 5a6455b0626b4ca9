"""What one image writes down, the next one reads: `test_upgrade` does it for real."""

from __future__ import annotations

import dataclasses
import json
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ragagent.config import Config, Data, Server
from ragagent.errors import RagagentError
from ragagent.supervisor.facts import Facts, Limits, facts_of
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.handover import Estate, dump, load
from ragagent.supervisor.member import Member, Slot, State
from ragagent.supervisor.process import Child, ZygoteProcess
from ragagent.supervisor.release import Release, Zygote

LIMITS = Limits(20, 10, 8)


def facts() -> Facts:
    return facts_of(Config(server=Server(workers=2)))


Take = Callable[[int], socket.socket]


@pytest.fixture
def take() -> Iterator[Take]:
    """Return a throwaway socket for any descriptor, as a rehearsal does."""
    with ExitStack() as opened:
        yield lambda _: opened.enter_context(socket.socket())


@pytest.fixture
def estate(take: Take) -> Iterator[Estate]:
    old, new = Release(1, LIMITS, facts=facts(), workers=1), Release(2, LIMITS, previous=1, facts=facts(), workers=2)
    new.zygote, new.marks, new.changes = Zygote.LOADED, {"loaded": 5.0}, {"server.workers": "rolls"}
    fleet = Fleet(LIMITS, random.Random(0), current=new, last_number=3)
    running = Member("worker", 0, new, born=1.0, state=State.RUNNING, since=2.0, running_at=2.0, told_at=1.5)
    running.wear.requests, running.probe.outcome, running.probe.sent_at = 7, "ok", 9.0
    draining = Member("worker", 0, old, born=0.5, state=State.STOPPING, settled=True, reason="it is old")
    fleet.members = [draining, running]
    fleet.slots = {("worker", 0): Slot(3, 2, 9.5, "signal 9, SIGKILL"), ("indexer", 0): Slot()}
    fleet.reloads.failed, fleet.reloads.last_error = 1, "broken"
    fleet.young_deaths.add(4.0)
    ours, theirs = socket.socketpair()
    child = Child(ours)
    child.pid = 41
    theirs.send(b'{"beat": {}}\n{"be')
    child.read()
    theirs.close()
    config = Config(server=Server(bind="127.0.0.1:0"), data=Data(dir="x"))
    zygote = ZygoteProcess(40, take(0))
    with ours:
        yield Estate(config, 12.5, [3, 4], 5, fleet, {running: child}, {new: zygote})


def through(estate: Estate, take: Take) -> Estate:
    return load(json.loads(json.dumps(dump(estate))), take)


def test_everything_that_goes_on_is_the_same_afterwards(estate: Estate, take: Take) -> None:
    after = through(estate, take)
    for fleet in (estate.fleet, after.fleet):
        for member in fleet.members:
            member.probe.sent_at = None  # Left behind on purpose.
    assert dump(after)["members"][1]["child"]["unread"] == '{"be'
    before, again = dump(estate), dump(after)
    for plain in (before, again):
        for member in plain["members"]:
            if member["child"]:
                member["child"]["fd"] = 0
        for release in plain["releases"]:
            if release["zygote_process"]:
                release["zygote_process"]["fd"] = 0
    assert again == before


def test_members_of_one_release_share_it_again(estate: Estate, take: Take) -> None:
    after = through(estate, take)
    draining, running = after.fleet.members
    assert after.fleet.current is running.release
    assert draining.release is not running.release
    assert list(after.zygotes) == [running.release]
    assert list(after.children) == [running]
    assert after.children[running].pid == 41


def test_a_field_that_only_one_side_knows_stops_nobody(estate: Estate, take: Take) -> None:
    plain = dump(estate)
    plain["members"][0]["invented_later"] = 1
    del plain["members"][0]["killed"]
    assert load(plain, take).fleet.members[0].killed is False


def test_another_format_is_refused_in_words(estate: Estate, take: Take) -> None:
    with pytest.raises(RagagentError, match="in format 2, not 1"):
        load({**dump(estate), "format": 2}, take)


def test_every_descriptor_that_must_stay_open_is_named(estate: Estate) -> None:
    ends: list[Child | ZygoteProcess] = [*estate.children.values(), *estate.zygotes.values()]
    assert sorted(estate.descriptors()) == sorted([3, 4, 5, *(end.fileno() for end in ends)])


def test_every_field_of_the_fleet_is_written_down_or_left_out_on_purpose(estate: Estate) -> None:
    left_out = {"limits", "jitter", "incoming", "reload_wanted", "upgrade", "stop", "left"}
    written = set(dump(estate))
    assert {item.name for item in dataclasses.fields(Fleet)} - left_out <= written, "an upgrade would forget this"


def test_nothing_of_it_is_secret(estate: Estate) -> None:
    assert set(dump(estate)) & {"generator", "embedder", "redis"} == set()
