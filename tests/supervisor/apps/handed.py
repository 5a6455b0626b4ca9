"""What systemd does for a socket unit, in a line: `handed.py PID|self FDS COMMAND ...` sets LISTEN_* and execs."""

from __future__ import annotations

import fcntl
import os
import sys

if __name__ == "__main__":
    pid, fds, *command = sys.argv[1:]
    os.environ["LISTEN_PID"] = str(os.getpid()) if pid == "self" else pid
    os.environ["LISTEN_FDS"] = str(len(fds.split(",")))
    os.environ["LISTEN_FDNAMES"] = ":".join(f"http{number}" for number in range(len(fds.split(","))))
    # Away from where they go first: one of them may be 3.
    moved = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in fds.split(",")]
    for fd in fds.split(","):
        os.close(int(fd))
    for number, free in enumerate(moved, start=3):
        os.dup2(free, number, inheritable=True)
        os.close(free)
    os.execv(command[0], command)
