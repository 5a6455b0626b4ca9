"""The parser process: it reads hostile documents, and therefore may do almost nothing.

`python -m ragagent.engine.indexing.parsing.child PARENT MEMORY_BYTES`, with a socket as standard input, answers one
frame with one frame until the socket closes. It imports only what parsing needs, so that it starts in a fraction of a
second.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
from typing import Any

from ragagent.engine.indexing.parsing import frames
from ragagent.engine.indexing.parsing.parse import parse
from ragagent.engine.indexing.parsing.parsed import Unparsable

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_MAX_FILES = 32  # descriptors: codecs are imported when they are first used
_MAX_REQUEST_BYTES = 1 << 40  # the parent decided already what is too large


def main() -> None:
    # Our owner ends us, when it is done: a Ctrl-C at the terminal must not fail the document in hand.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    peer = _take_socket()
    # First, because the kernel forgets with whom we die when we change what we may do.
    has_network = not leave_network()
    _die_with(parent)
    _limit(memory_bytes)
    frames.send(peer, {"ready": os.getpid(), "has_network": has_network})
    while _serve_one(peer):
        pass


def _take_socket() -> socket.socket:
    """Keep the socket for ourselves: what a library prints must not become part of a frame."""
    peer = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return peer


def leave_network() -> bool:
    """Move into a network of our own that has nothing in it, not even loopback; return whether that was permitted.

    Root may do so as it is. Others may where the kernel lets them have a user namespace, in which they may do anything,
    to themselves alone.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return any(libc.unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


def _die_with(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # The parent may have died before the line above that would have told us.
    if os.getppid() != parent:
        sys.exit(1)


def _limit(memory_bytes: int) -> None:
    os.umask(0o077)
    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, _MAX_FILES),
    ):
        resource.setrlimit(kind, (limit, limit))


def _serve_one(peer: socket.socket) -> bool:
    """Answer one request; return whether another may come. After a MemoryError none may: what is left is not sound."""
    try:
        request, data = frames.receive(peer, max_bytes=_MAX_REQUEST_BYTES)
    except EOFError:
        return False
    except MemoryError:
        frames.send(peer, {"memory": True})
        return False
    _allow_cpu(request["cpu_seconds"])
    try:
        parsed = parse(request["filename"], bytes(data), max_chars=request["max_chars"])
        reply: dict[str, Any] = {"title": parsed.title}
        body = parsed.text.encode()
    except Unparsable as exc:
        reply, body = {"code": exc.code, "message": exc.message}, b""
    except MemoryError:
        reply, body = {"memory": True}, b""
    frames.send(peer, reply, body)
    return "memory" not in reply


def _allow_cpu(seconds: int) -> None:
    """Let the next document use so much processor time; beyond it the kernel kills, even if the parent cannot."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
