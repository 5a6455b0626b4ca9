"""The process that reads every byte of the indexes, one after another, with the CPU time that nobody else wants.

A process and not a thread: a thread that is hardly ever scheduled, and holds Python's lock, would stop its process.
Names come in lines on standard input, what was found goes out in lines of JSON; it ends when its input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

from ragagent.index.verify import verify

SHOWN_PROBLEMS = 20


def main(root: Path) -> None:
    with contextlib.suppress(OSError):  # Where the system does not allow it, it is done like any other work.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    for line in sys.stdin:
        print(json.dumps(verify(root, line.strip())[:SHOWN_PROBLEMS]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
