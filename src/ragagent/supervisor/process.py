"""The supervisor's handles on other processes: a zygote, a child, and whatever else it may have to reap."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragagent.lifeline import OF_SUPERVISOR
from ragagent.supervisor import memory

_READ_BYTES = 262_144
# What Python sets to be ignored, or we do, would be inherited through exec.
_DEFAULT_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGPIPE, *OF_SUPERVISOR)
# Held back until the new interpreter has said what they are to do: a moved log must not end a release that loads.
_HELD_SIGNALS = (signal.SIGUSR1, *OF_SUPERVISOR)

Message = Mapping[str, Any]
OnExit = Callable[[str, int | None, float], None]  # how it ended, its exit code if it was an exit, and when
Helpers = dict[int, OnExit]  # what runs beside the fleet: pid → who wants to know of its end


class Child:
    """Our end of one child's lifeline. `pid` is None until the child has said it."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._unread = b""
        self.pid: int | None = None
        self.stats: Message = {}
        self.at_end = False
        self._reopens = False

    @classmethod
    def from_plain(cls, plain: Message, end: socket.socket) -> Child:
        child = cls(end)
        child._unread, child.pid, child.stats = plain["unread"].encode("latin-1"), plain["pid"], plain["stats"]
        child._reopens = plain.get("reopens", False)
        return child

    def plain(self) -> Message:
        """Return what a later image of this process needs to go on with the child."""
        unread = self._unread.decode("latin-1")
        return {
            "fd": self.fileno(),
            "pid": self.pid,
            "unread": unread,
            "stats": self.stats,
            "reopens": self._reopens,
        }

    def fileno(self) -> int:
        return self._end.fileno()

    def read(self) -> list[Message]:
        """Return the messages that have arrived, without waiting. `at_end`: no more will come."""
        while not self.at_end:
            try:
                data = self._end.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.at_end = not data
            self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def order(self, word: str, *connections: socket.socket) -> None:
        """Say `word`, and hand over the connections that it is about."""
        line = json.dumps({"order": word}).encode() + b"\n"
        try:
            socket.send_fds(self._end, [line], [connection.fileno() for connection in connections])
        except OSError:
            pass  # It is dying, and its exit will say so; or it does not read, and its silence will.

    def born(self, pid: int) -> None:
        """Take what it says its pid is, unless that is no child of ours; tell it what it has missed."""
        self.pid = pid if is_child(pid) else None
        if self._reopens:
            self.reopen_log()

    def reopen_log(self) -> None:
        """Have it open its log anew: at once, or when it is born, as its zygote may have forked it before it knew."""
        self._reopens = self.pid is None
        self.signal(signal.SIGUSR1)

    def signal(self, number: int) -> None:
        if self.pid is not None:
            os.kill(self.pid, number)  # Never a stranger: until we reap it, its pid is its own.

    def pss_bytes(self) -> int | None:
        return memory.pss_bytes(self.pid) if self.pid is not None else None

    def close(self) -> None:
        self._end.close()


class ZygoteProcess:
    """A fresh interpreter that loads one release and forks its children (`ragagent.supervisor.zygote`)."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid: int | None = pid  # None once it has been reaped: the number may be somebody else's by then
        self._control = control

    @classmethod
    def spawn(cls, listeners: Sequence[socket.socket], arguments: Sequence[str]) -> ZygoteProcess:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            fds = [theirs.fileno(), *(listener.fileno() for listener in listeners)]
            named = ["--control", str(fds[0]), "--listeners", ",".join(map(str, fds[1:]))]
            parent = ["--supervisor", str(os.getpid())]
            pid = spawn("ragagent.supervisor.zygote", [*parent, *named, *arguments], keep=fds)
        return cls(pid, ours)

    def fileno(self) -> int:
        return self._control.fileno()

    def read(self) -> Message | None:
        """Return what it says of its loading, without waiting; None when there is nothing (more)."""
        try:
            data = self._control.recv(_READ_BYTES)
        except OSError:
            return None
        return json.loads(data) if data else None

    def fork(self, role: str, slot: int) -> Child:
        """Ask for one child and return our end of its lifeline. A zygote that cannot lets the line drop."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [json.dumps({"role": role, "slot": slot}).encode()], [theirs.fileno()])
            except OSError:
                pass  # It is dead or stuck: closing `theirs` is all that the caller needs to see.
        return Child(ours)

    def reopen_log(self) -> None:
        if self.pid is not None:
            os.kill(self.pid, signal.SIGUSR1)

    def kill(self) -> None:
        """End it: it holds nothing that could be lost, and its children are not its own any more."""
        self._control.close()
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)


def spawn(module: str, arguments: Sequence[str], *, keep: Sequence[int] = (), stdin: int | None = None) -> int:
    """Start `python -m module` with only the descriptors in `keep` besides the standard three; return its pid."""
    # A duplicate onto itself clears close-on-exec in the child alone.
    actions: list[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in keep]
    if stdin is not None:
        actions.append((os.POSIX_SPAWN_DUP2, stdin, 0))
    argv = [sys.executable, "-m", module, *arguments]
    return os.posix_spawn(
        sys.executable, argv, os.environ, file_actions=actions, setsigmask=_HELD_SIGNALS, setsigdef=_DEFAULT_SIGNALS
    )


def is_child(pid: int) -> bool:
    """Whether `pid` is ours to signal and to reap, be it alive or a zombie."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def described(status: int) -> tuple[str, int | None]:
    """Return a wait status in words, and the exit code if it was an exit."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"signal {number}, {_name(number)}", None
    code = os.WEXITSTATUS(status)
    return f"exit code {code}", code


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # A real-time signal: somebody's orphan may die of anything.
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def kill_orphans() -> None:
    """Kill what was adopted from children that are gone: the supervisor leaves nothing behind."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    for pid in children.read_text().split() if children.exists() else []:
        os.kill(int(pid), signal.SIGKILL)  # Alive or a zombie: it is there until we reap it.
