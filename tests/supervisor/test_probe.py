"""The supervisor's end of a probe, with the test as worker at the other end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ragagent.supervisor.probe import Probe


@pytest.fixture
def probe() -> Iterator[Probe]:
    probe = Probe()
    yield probe
    probe.close()
    probe.theirs.close()


def test_the_question_is_there_before_anybody_reads(probe: Probe) -> None:
    asked = probe.theirs.recv(4096)
    assert asked.startswith(b"GET /readyz HTTP/1.1\r\n")
    assert asked.endswith(b"\r\n\r\n")
    assert b"\r\nHost: " in asked
    assert b"\r\nConnection: close\r\n" in asked


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", "ok"),
        (b"HTTP/1.1 200", "ok"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "not_ready"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "not_ready"),
    ],
)
def test_the_status_is_the_answer(probe: Probe, answer: bytes, outcome: str) -> None:
    probe.theirs.sendall(answer)
    assert probe.read() == outcome


def test_an_answer_may_come_in_pieces(probe: Probe) -> None:
    assert probe.read() is None
    probe.theirs.sendall(b"HTTP/1.")
    assert probe.read() is None
    probe.theirs.sendall(b"1 200 OK")
    assert probe.read() == "ok"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2"])
def test_hanging_up_before_the_status_is_no_answer(probe: Probe, said: bytes) -> None:
    probe.theirs.sendall(said)
    probe.theirs.close()
    outcome = probe.read()
    assert (outcome or probe.read()) == "no_answer"
