"""Turns on disk: lines and trees of them, who sees which, and what goes."""

from __future__ import annotations

import pytest

from ragagent.errors import Conflict, NotFound
from ragagent.store import turns
from ragagent.store.database import Database, Transaction
from ragagent.types import Caller, Message, Turn
from store.conftest import column

ANN = Caller("tenant-a")
BOUND = Caller("tenant-a", "key-1", frozenset({"vs_1"}))
EVE = Caller("tenant-e")


def turn(name: str, *, answer: str = "Yes.", created_at: int = 1000) -> Turn:
    said = (Message("user", f"Is it {name}?"),)
    return Turn(f"resp_{name}", created_at, said, answer, payload=b'{"k":1}')


def line_of(tx: Transaction, caller: Caller, name: str, *, max_turns: int = 100, max_bytes: int = 10**6) -> list[str]:
    found = turns.chain(tx, caller, f"resp_{name}", max_turns=max_turns, max_bytes=max_bytes)
    return [each.id.removeprefix("resp_") for each in found]


def add_line(tx: Transaction, *names: str, caller: Caller = ANN, parent: str | None = None) -> None:
    for name in names:
        turns.add(tx, caller, turn(name), None if parent is None else f"resp_{parent}")
        parent = name


def test_a_turn_comes_back_as_it_was(database: Database) -> None:
    said = (Message("user", "第一"), Message("assistant", "…"), Message("user", 'a "b"\n'))
    whole = Turn(turns.new_id(), 1234, said, "Ünïcode", "incomplete", b'{"a":[1]}')
    with database.write() as tx:
        turns.add(tx, ANN, whole, None)
    with database.read() as tx:
        assert turns.find(tx, ANN, whole.id) == whole
        assert turns.totals(tx, "tenant-a") == (0, turns.size(whole))


def test_ids_are_128_random_bits() -> None:
    assert len({turns.new_id() for _ in range(1000)}) == 1000
    assert len(turns.new_id()) == len("resp_") + 32


def test_a_line_goes_back_to_its_root_and_may_branch_anywhere(database: Database) -> None:
    with database.write() as tx:
        add_line(tx, "a", "b", "c")
        add_line(tx, "d", "e", parent="b")
    with database.read() as tx:
        assert line_of(tx, ANN, "c") == ["a", "b", "c"]
        assert line_of(tx, ANN, "e") == ["a", "b", "d", "e"]
        assert line_of(tx, ANN, "a") == ["a"]


def test_a_line_is_bounded_from_its_newest_end(database: Database) -> None:
    with database.write() as tx:
        add_line(tx, "a", "b", "c", "d")
    with database.read() as tx:
        assert line_of(tx, ANN, "d", max_turns=2) == ["c", "d"]
        assert line_of(tx, ANN, "d", max_bytes=3 * turns.size(turn("d")) - 1) == ["c", "d"]
        assert line_of(tx, ANN, "d", max_bytes=1) == ["d"]


@pytest.mark.parametrize("parent", ["resp_none", "resp_theirs"])
def test_a_turn_follows_only_what_its_caller_can_see(database: Database, parent: str) -> None:
    with database.write() as tx:
        turns.add(tx, EVE, turn("theirs"), None)
        with pytest.raises(NotFound, match=parent) as raised:
            turns.add(tx, ANN, turn("b"), parent)
    assert raised.value.param == "previous_response_id"


def test_another_tenants_turn_is_not_there(database: Database) -> None:
    with database.write() as tx:
        add_line(tx, "a")
        assert turns.find(tx, EVE, "resp_a") is None
        with pytest.raises(NotFound):
            turns.chain(tx, EVE, "resp_a", max_turns=9, max_bytes=999)
        with pytest.raises(NotFound):
            turns.erase(tx, EVE, "resp_a")
        assert turns.find(tx, ANN, "resp_a") is not None


def test_a_key_of_some_stores_sees_what_such_keys_said_and_a_key_of_all_sees_everything(database: Database) -> None:
    replaced = Caller("tenant-a", "key-2", frozenset({"vs_1"}))
    other = Caller("tenant-a", "key-3", frozenset({"vs_1", "vs_2"}))
    with database.write() as tx:
        add_line(tx, "free")
        add_line(tx, "bound", caller=BOUND)
        assert turns.find(tx, BOUND, "resp_free") is None
        assert turns.find(tx, other, "resp_bound") is None
        assert turns.find(tx, Caller("tenant-a", "key-4", frozenset()), "resp_free") is None
        assert turns.find(tx, replaced, "resp_bound") is not None
        assert turns.find(tx, ANN, "resp_bound") is not None


def test_an_id_is_given_once(database: Database) -> None:
    with database.write() as tx:
        add_line(tx, "a")
        with pytest.raises(Conflict, match="resp_a"):
            turns.add(tx, ANN, turn("a"), None)


def test_an_erased_turn_leaves_its_line_whole_without_it(database: Database) -> None:
    with database.write() as tx:
        add_line(tx, "a", "b", "c")
        turns.erase(tx, ANN, "resp_b")
        assert turns.find(tx, ANN, "resp_b") is None
        assert line_of(tx, ANN, "c") == ["a", "c"]
        with pytest.raises(NotFound):
            line_of(tx, ANN, "b")
        assert column(tx, "SELECT messages || answer || payload FROM turns WHERE id = 'resp_b'") == ["[]"]
        assert turns.totals(tx, "tenant-a")[1] == 2 * turns.size(turn("a"))


def test_an_erased_turn_that_nothing_follows_leaves_nothing(database: Database) -> None:
    with database.write() as tx:
        add_line(tx, "a")
        turns.erase(tx, ANN, "resp_a")
        assert column(tx, "SELECT count(*) FROM turns") == [0]
        assert turns.totals(tx, "tenant-a") == (0, 0)


def test_old_turns_go_in_slices_and_younger_lines_begin_where_they_ended(database: Database) -> None:
    with database.write() as tx:
        for number, parent in enumerate([None, "resp_t0", "resp_t1", "resp_t2"]):
            turns.add(tx, ANN, turn(f"t{number}", created_at=100 + number), parent)
        assert [turns.erase_old(tx, 103, 2) for _ in range(3)] == [2, 1, 0]
        assert line_of(tx, ANN, "t3") == ["t3"]
