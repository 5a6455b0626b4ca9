"""The cheapest client there is: one keep-alive connection, prepared bytes out, whole answers in.

A general client takes as long for a request as the server does, on the same two cores.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

RECEIVE = 262_144


class Connection:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, request: bytes) -> bytes:
        """Return the body of the answer, which must be 200."""
        self._socket.sendall(request)
        data = self._socket.recv(RECEIVE)
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        head = data[:end].lower()
        assert head.startswith(b"http/1.1 200"), data[:2000]
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(data) < end + 4 + length:
            data += self._more()
        return data[end + 4 :]

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> bytes:
        data = self._socket.recv(RECEIVE)
        assert data, "the server has closed the connection amid an answer"
        return data


def request(path: str, body: dict[str, Any]) -> bytes:
    """Return the whole request, ready to be sent."""
    encoded = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(encoded)}"
    return f"{head}\r\n\r\n".encode() + encoded


def search(store: str, query: str, **more: Any) -> bytes:
    return request(f"/v1/vector_stores/{store}/search", {"query": query, **more})


def each(port: int, requests: Sequence[bytes], rounds: int = 1) -> list[float]:
    """Ask one after the other on one connection; return the seconds of each."""
    connection = Connection(port)
    seconds = []
    for _ in range(rounds):
        for one in requests:
            begun = time.perf_counter()
            connection.post(one)
            seconds.append(time.perf_counter() - begun)
    connection.close()
    return seconds


def bodies(port: int, requests: Sequence[bytes]) -> list[bytes]:
    connection = Connection(port)
    found = [connection.post(one) for one in requests]
    connection.close()
    return found


def throughput(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> float:
    """Return the answers in a second to so many connections that ask without pause."""
    answered = [0] * connections
    until = time.monotonic() + seconds

    def run(slot: int) -> None:
        connection = Connection(port)
        number = slot * len(requests) // connections
        while time.monotonic() < until:
            connection.post(requests[number % len(requests)])
            number += 1
            answered[slot] += 1
        connection.close()

    begun = time.monotonic()
    in_parallel([partial(run, slot) for slot in range(connections)])
    return sum(answered) / (time.monotonic() - begun)


def paced(port: int, requests: Sequence[bytes], rate: float, goes_on: Callable[[], bool]) -> list[float]:
    """Ask so many times a second while `goes_on`; return the seconds from when each was due to its answer.

    From when it was due, not from when it was sent: a stall then counts for all that it held up.
    """
    connection = Connection(port)
    seconds: list[float] = []
    due = time.perf_counter()
    while goes_on():
        time.sleep(max(due - time.perf_counter(), 0))
        connection.post(requests[len(seconds) % len(requests)])
        seconds.append(time.perf_counter() - due)
        due += 1 / rate
    connection.close()
    return seconds


def in_parallel(work: Sequence[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
