"""The process controls, proven on processes of our own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ADOPTING = """
import os, sys
from ragagent.supervisor.prctl import adopt_orphans
adopt_orphans()
if os.fork() == 0:
    if os.fork() == 0:
        sys.stdin.read()      # the grandchild outlives its parent
        os._exit(7)
    os._exit(0)
os.wait()
os.close(0)
pid, status = os.wait()       # it is ours now, exit code and all
print(os.waitstatus_to_exitcode(status))
"""

DYING = """
import os, sys, time
from ragagent.supervisor.prctl import die_with_parent
parent = os.getpid()
if os.fork() == 0:
    print(os.getpid(), die_with_parent(parent), die_with_parent(1), flush=True)
    time.sleep(60)
time.sleep(60)
"""


def test_orphan_is_adopted_with_its_exit_code() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ADOPTING], input="", capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "7\n"


def test_child_dies_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", DYING], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child, is_ours, is_of_another = parent.stdout.readline().split()
        assert (is_ours, is_of_another) == ("True", "False")
        parent.kill()
    deadline = time.monotonic() + 5
    while _is_alive(int(child)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _is_alive(int(child))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_has_the_name_that_it_gave_itself() -> None:
    code = "from ragagent.supervisor.prctl import name_process; name_process('rag-worker-3')"
    read = "; print(open('/proc/self/comm').read().strip())"
    done = subprocess.run([sys.executable, "-c", code + read], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "rag-worker-3\n"
