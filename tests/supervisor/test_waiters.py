"""Clients that wait, on real socket pairs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from ragagent.supervisor.control import Client, Reply
from ragagent.supervisor.waiters import Waiters


@pytest.fixture
def pair() -> Iterator[tuple[Client, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield Client(ours), theirs


def test_a_client_hears_once_and_only_when_it_is_so(pair: tuple[Client, socket.socket]) -> None:
    client, end = pair
    replies: list[Reply | None] = [None, {"ok": True}, {"ok": False}]
    waiters = Waiters()
    waiters.add(client, lambda: replies.pop(0))
    waiters.tell()
    with pytest.raises(BlockingIOError):
        end.recv(100)
    waiters.tell()
    waiters.tell()
    assert json.loads(end.recv(100)) == {"ok": True}
    assert replies == [{"ok": False}]


def test_the_end_is_an_answer_too(pair: tuple[Client, socket.socket]) -> None:
    client, end = pair
    waiters = Waiters()
    waiters.add(client, lambda: None)
    waiters.dismiss("The supervisor has stopped.")
    assert json.loads(end.recv(100)) == {"ok": False, "reason": "The supervisor has stopped."}


def test_a_client_that_has_gone_costs_nothing(pair: tuple[Client, socket.socket]) -> None:
    client, end = pair
    end.close()
    waiters = Waiters()
    waiters.add(client, lambda: {"ok": True})
    waiters.tell()
