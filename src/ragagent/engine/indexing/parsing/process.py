"""The parser as its owner sees it: a process that is started when it is first needed, and replaced when it fails.

One document can take the process down, by time, by memory or by a bug in a library; that document alone fails, and the
next one finds a new process.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ragagent.engine.indexing.parsing import frames
from ragagent.engine.indexing.parsing.parsed import Parsed, Unparsable
from ragagent.errors import Unavailable

log = logging.getLogger("ragagent.indexer")

_MIB = 1024 * 1024
_MODULE = "ragagent.engine.indexing.parsing.child"
_START_SECONDS = 30.0
_MAX_UTF8_BYTES = 4  # per character
_REASONS = frozenset(("unsupported_file", "invalid_file", "server_error"))
_PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")


class ParserProcess:
    """Parses documents one after the other, each within `seconds` and `memory_bytes`. Safe to share between threads.

    One thread of our own starts the process and speaks to it. It has to be one that stays: the kernel takes the end of
    the *thread* that started a process for the death of its parent.
    """

    def __init__(self, *, seconds: float, memory_bytes: int, max_chars: int) -> None:
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._max_chars = max_chars
        # The process inherits this thread's mask. SIGUSR1 is about the log, which it does not write, and would kill it.
        held = (signal.SIG_BLOCK, {signal.SIGUSR1})
        self._thread = ThreadPoolExecutor(1, "parser", initializer=signal.pthread_sigmask, initargs=held)
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def parse(self, filename: str, data: bytes) -> Parsed:
        """Return the document's text and title; blocks. Raises Unparsable; Unavailable when no process will start."""
        return self._thread.submit(self._parse, filename, data).result()

    def close(self) -> None:
        """End the process, after the document in hand."""
        self._thread.shutdown(wait=True)
        self._discard()

    def _parse(self, filename: str, data: bytes) -> Parsed:
        try:
            return self._ask(filename, data)
        except _Killed:
            # By an operator, or by the kernel where memory is short: once, that is not the document's fault.
            try:
                return self._ask(filename, data)
            except _Killed as exc:
                raise self._crashed(-signal.SIGKILL) from exc

    def _ask(self, filename: str, data: bytes) -> Parsed:
        child = self._ready_child()
        request = {"filename": filename, "max_chars": self._max_chars, "cpu_seconds": math.ceil(self._seconds) + 1}
        deadline = time.monotonic() + self._seconds
        try:
            frames.send(child.peer, request, data, deadline=deadline)
            reply, body = frames.receive(child.peer, max_bytes=self._max_chars * _MAX_UTF8_BYTES, deadline=deadline)
        except TimeoutError as exc:
            self._discard()
            raise self._too_slow() from exc
        except (EOFError, OSError, ValueError) as exc:
            status = self._discard()
            raise _Killed if status == -signal.SIGKILL else self._crashed(status) from exc
        return self._read(reply, body)

    def _ready_child(self) -> _Child:
        if self._child and not self._child.is_alive:
            self._discard()
        if self._child is None:
            self._child = _Child.start(self._memory_bytes)
        return self._child

    def _read(self, reply: dict[str, Any], body: bytearray) -> Parsed:
        """Turn the reply into its meaning. It comes from a process that has read a hostile document."""
        if "memory" in reply:
            self._discard()
            raise self._too_large()
        if reply.get("code") in _REASONS:
            raise Unparsable(reply["code"], str(reply.get("message")))
        title = reply.get("title")
        return Parsed(body.decode(errors="replace"), title if isinstance(title, str) else None)

    def _discard(self) -> int:
        """Kill the process, if there is one, and return what it died of."""
        child, self._child = self._child, None
        return child.stop() if child else 0

    def _crashed(self, status: int) -> Unparsable:
        if status == -signal.SIGXCPU:
            return self._too_slow()
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return Unparsable("server_error", f"This file made the parser process die ({cause}).")

    def _too_slow(self) -> Unparsable:
        return Unparsable("server_error", f"This file needed more than {self._seconds:g} s to parse.")

    def _too_large(self) -> Unparsable:
        return Unparsable("server_error", f"This file needed more than {self._memory_bytes // _MIB} MiB to parse.")


class _Killed(Exception):
    """The process died of SIGKILL, which neither its own limits nor a fault of its code send."""


class _Child:
    """One process and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], peer: socket.socket) -> None:
        self._process = process
        self.peer = peer

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @classmethod
    def start(cls, memory_bytes: int) -> _Child:
        ours, theirs = socket.socketpair()
        # -P: the directory that we were started in must not decide which code reads hostile files.
        command = [sys.executable, "-P", "-m", _MODULE, str(os.getpid()), str(memory_bytes)]
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        try:
            with theirs:
                fd = theirs.fileno()
                process = subprocess.Popen(command, stdin=fd, stdout=fd, stderr=subprocess.DEVNULL, env=environment)
        except OSError as exc:
            ours.close()
            raise Unavailable(f"The parser process cannot be started: {exc.strerror}.") from exc
        child = cls(process, ours)
        try:
            ready, _ = frames.receive(ours, max_bytes=0, deadline=time.monotonic() + _START_SECONDS)
        except (EOFError, OSError, ValueError) as exc:
            raise Unavailable(f"The parser process did not start (exit status {child.stop()}).") from exc
        if ready.get("has_network"):
            _warn_of_network()
        return child

    def stop(self) -> int:
        """End the process and return its exit status, the one that it died of if it was dead already."""
        self.peer.close()
        # A process that has just crashed is given the moment that the kernel needs to say of what.
        try:
            return self._process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@functools.cache
def _warn_of_network() -> None:
    """Say once, and go on: a parser is limited in time, memory and files all the same."""
    log.warning(
        "the parser could not be cut off from the network: the kernel, or the container's profile, lets this user have "
        "no namespaces"
    )
