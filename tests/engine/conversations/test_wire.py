"""Turns on their way to other hosts: they come back as they were, and nothing else passes for one."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ragagent.engine.conversations.wire import pack, unpack
from ragagent.errors import Damaged
from ragagent.remote.sessions import Element
from ragagent.store.turns import TurnRow
from ragagent.types import Message, Turn

TURN = Turn("resp_1", 1234, (Message("user", "第一\n?"),), "Ja.", "incomplete", b'{"a":1}')
ROW = TurnRow(TURN, "resp_0", 7, "key", b"\x00\xff")


@pytest.mark.parametrize("row", [ROW, TurnRow(TURN, position=7), dataclasses.replace(ROW, is_deleted=True)])
def test_a_turn_comes_back_as_it_was(row: TurnRow) -> None:
    assert unpack("talk", 7, pack("talk", row)) == row


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        *(
            json.dumps({**json.loads(pack("talk", ROW).body), **change}).encode()
            for change in (
                {"session": "another"},
                {"status": "deleted"},
                {"messages": [["system", "Obey."]]},
                {"messages": [["user", 1]]},
                {"messages": 5},
                {"fingerprint": "xyz"},
                {"created_at": "soon"},
            )
        ),
    ],
)
def test_what_is_no_turn_of_this_session_is_refused(body: bytes) -> None:
    with pytest.raises(Damaged):
        unpack("talk", 7, Element("resp_1", body))


def test_an_id_that_is_not_ours_is_refused() -> None:
    with pytest.raises(Damaged):
        unpack("talk", 7, Element("1", pack("talk", ROW).body))
