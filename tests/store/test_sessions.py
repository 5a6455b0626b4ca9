"""Sessions on disk: a name moves to the next turn only from the one before, within bounds."""

from __future__ import annotations

from ragagent.store import sessions, turns
from ragagent.store.database import Database, Transaction
from ragagent.store.sessions import Bounds, SessionRow
from ragagent.store.turns import TurnRow
from ragagent.types import Caller
from store.conftest import column
from store.test_turns import ANN, BOUND, EVE, turn

WIDE = Bounds(turns=100, bytes=10**6, idle_seconds=50)
NOW = 1000.0


def say(
    tx: Transaction,
    name: str,
    parent: str | None,
    position: int,
    *,
    caller: Caller = ANN,
    bounds: Bounds = WIDE,
    now: float = NOW,
    key: str | None = None,
    answer: str = "Yes.",
) -> bool:
    fingerprint = None if key is None else key.encode()
    row = TurnRow(turn(name, answer=answer), parent and f"resp_{parent}", position, key, fingerprint)
    return sessions.append(tx, caller, "talk", row, bounds, now)


def there(tx: Transaction, caller: Caller = ANN, now: float = NOW) -> SessionRow:
    found = sessions.find(tx, caller, "talk", now)
    assert found is not None
    return found


def shown(tx: Transaction, bounds: Bounds = WIDE, now: float = NOW) -> list[str]:
    return [row.turn.id.removeprefix("resp_") for row in sessions.line(tx, there(tx, now=now), bounds)]


def test_turns_stand_in_their_order(database: Database) -> None:
    with database.write() as tx:
        assert say(tx, "a", None, 1)
        assert say(tx, "b", "a", 2)
        assert say(tx, "c", "b", 3)
        assert shown(tx) == ["a", "b", "c"]
        assert (there(tx).head, there(tx).position) == ("resp_c", 3)
        assert turns.totals(tx, "tenant-a")[0] == 1


def test_a_turn_after_one_that_is_no_longer_the_last_is_kept_aside(database: Database) -> None:
    with database.write() as tx:
        say(tx, "a", None, 1)
        assert say(tx, "b", "a", 2)
        assert not say(tx, "b2", "a", 2)
        assert not say(tx, "first", None, 1)
        assert shown(tx) == ["a", "b"]
        assert turns.find(tx, ANN, "resp_b2") is not None
        found = turns.chain(tx, ANN, "resp_b2", max_turns=9, max_bytes=9999)
        assert [each.id for each in found] == ["resp_a", "resp_b2"]


def test_the_same_name_is_another_session_for_another_tenant_and_for_another_reach(database: Database) -> None:
    with database.write() as tx:
        for number, caller in enumerate((ANN, BOUND, EVE)):
            assert sessions.find(tx, caller, "talk", NOW) is None
            assert say(tx, f"t{number}", None, 1, caller=caller)
        assert {there(tx, caller).head for caller in (ANN, BOUND, EVE)} == {"resp_t0", "resp_t1", "resp_t2"}


def test_the_oldest_turns_are_erased_beyond_the_bounds(database: Database) -> None:
    few = Bounds(turns=3, bytes=10**6, idle_seconds=50)
    with database.write() as tx:
        for position, (name, parent) in enumerate(zip("abcde", [None, *"abcd"], strict=True), start=1):
            say(tx, name, parent, position, bounds=few)
        assert shown(tx) == ["c", "d", "e"]
        assert column(tx, "SELECT count(*) FROM turns") == [3]
        assert there(tx).position == 5
        small = Bounds(turns=3, bytes=2 * turns.size(turn("x")), idle_seconds=50)
        say(tx, "f", "e", 6, bounds=small)
        assert shown(tx) == ["e", "f"]
        say(tx, "g", "f", 7, bounds=small, answer="long " * 500)
        assert shown(tx) == ["g"]  # The last one stays, however large.


def test_a_session_lives_on_with_each_turn_and_ends_without(database: Database) -> None:
    with database.write() as tx:
        say(tx, "a", None, 1, now=1000)
        say(tx, "b", "a", 2, now=1040)
        assert shown(tx, now=1089.9) == ["a", "b"]
        assert sessions.find(tx, ANN, "talk", 1090) is None
        assert say(tx, "c", None, 1, now=1090)
        assert shown(tx, now=1091) == ["c"]
        assert column(tx, "SELECT id FROM turns") == ["resp_c"]
        assert turns.totals(tx, "tenant-a") == (1, turns.size(turn("c")))


def test_expired_sessions_are_erased_in_slices_with_their_turns(database: Database) -> None:
    with database.write() as tx:
        for number, caller in enumerate((ANN, BOUND, EVE)):
            say(tx, f"t{number}", None, 1, caller=caller, now=NOW + number)
        assert [sessions.erase_expired(tx, NOW + 51, 1) for _ in range(3)] == [1, 1, 0]
        assert column(tx, "SELECT id FROM turns") == ["resp_t2"]


def test_the_turn_of_an_idempotency_key_is_found_in_its_session_alone(database: Database) -> None:
    with database.write() as tx:
        say(tx, "a", None, 1, key="k")
        say(tx, "b", None, 1, key="k", caller=EVE)
        found = sessions.by_key(tx, there(tx), "k")
        assert found is not None
        assert (found.turn.id, found.fingerprint) == ("resp_a", b"k")
        assert sessions.by_key(tx, there(tx), "other") is None


def test_a_deleted_turn_keeps_its_place_in_the_line(database: Database) -> None:
    with database.write() as tx:
        say(tx, "a", None, 1)
        say(tx, "b", "a", 2)
        turns.erase(tx, ANN, "resp_b")
        assert say(tx, "c", "b", 3)
        rows = sessions.line(tx, there(tx), WIDE)
        assert [(row.position, row.is_deleted) for row in rows] == [(1, False), (2, True), (3, False)]
