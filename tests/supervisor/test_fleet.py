"""The fleet's own rules: which words move a member, and what is remembered of a slot."""

from __future__ import annotations

import random

import pytest

from ragagent.errors import EXIT_CONFIG
from ragagent.supervisor.backoff import MAX_SECONDS
from ragagent.supervisor.facts import Limits
from ragagent.supervisor.fleet import Fleet
from ragagent.supervisor.member import Member, State
from ragagent.supervisor.release import Failure, Release

LIMITS = Limits(20, 10, 8)


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet(LIMITS, random.Random(0))
    fleet.current = Release(1, LIMITS, workers=2)
    return fleet


def hired(fleet: Fleet, release: Release | None = None) -> Member:
    wanted = release or fleet.current
    assert wanted is not None
    member = Member("worker", 0, wanted, born=0.0)
    fleet.members.append(member)
    return member


def test_words_move_a_member_only_along_the_table(fleet: Fleet) -> None:
    member = hired(fleet)
    assert not fleet.serving(member, 1.0)  # Not ready yet, and not told.
    assert fleet.ready(member, 1.0)
    assert not fleet.ready(member, 2.0)
    assert not fleet.serving(member, 2.0)  # Ready, but nobody has told it to.
    member.told_at = 2.0
    assert fleet.serving(member, 3.0)
    assert fleet.leaving(member, 4.0)
    assert not fleet.ready(member, 5.0)
    assert member.state is State.STOPPING


def test_backoff_begins_with_nothing_and_doubles_to_its_limit(fleet: Fleet) -> None:
    delays = []
    for _ in range(14):
        fleet.exited(hired(fleet), "signal 11", None, 0.0)
        delays.append(fleet.slot(("worker", 0)).retry_at)
    assert delays[0] == 0
    assert 0.25 <= delays[1] <= 0.25 * 1.25
    assert 0.5 <= delays[2] <= 0.5 * 1.25
    assert MAX_SECONDS <= delays[-1] <= MAX_SECONDS * 1.25
    assert fleet.slot(("worker", 0)).restarts == 14


def test_member_that_lived_long_starts_a_new_count(fleet: Fleet) -> None:
    for _ in range(5):
        fleet.exited(hired(fleet), "signal 11", None, 0.0)
    elder = hired(fleet)
    elder.running_at = 0.0
    fleet.exited(elder, "signal 9", None, 100.0)
    assert fleet.slot(("worker", 0)).failures == 0


def test_ordered_end_is_no_restart(fleet: Fleet) -> None:
    member = hired(fleet)
    member.settled = True
    fleet.exited(member, "exit code 0", 0, 0.0)
    assert fleet.slot(("worker", 0)).restarts == 0
    assert fleet.slot(("worker", 0)).last_exit == "exit code 0"


def test_end_in_the_making_fails_the_release_with_what_the_child_said(fleet: Fleet) -> None:
    fleet.incoming = Release(2, LIMITS, previous=1)
    member = hired(fleet, fleet.incoming)
    member.reason = "ConfigError: no such model"
    fleet.exited(member, "exit code 1", EXIT_CONFIG, 0.0)
    failure = Failure("worker 0 of release 2 did not start: ConfigError: no such model (exit code 1)", EXIT_CONFIG)
    assert fleet.incoming.failure == failure
    assert fleet.slot(("worker", 0)).restarts == 0


def test_first_failure_is_the_one_that_is_told(fleet: Fleet) -> None:
    release = Release(2, LIMITS)
    fleet.fail(release, Failure("the cause"))
    fleet.fail(release, Failure("what followed"))
    assert release.failure == Failure("the cause")


def test_scaling_never_ends_the_last_worker(fleet: Fleet) -> None:
    for _ in range(5):
        fleet.ask_workers(-1)
    assert fleet.current is not None
    assert fleet.current.workers == 1
