"""PSS, of real processes."""

from __future__ import annotations

import os
import subprocess
import sys

from ragagent.supervisor.memory import pss_bytes


def test_memory_of_its_own_is_counted() -> None:
    before = pss_bytes(os.getpid())
    ballast = bytearray(os.urandom(1) * (32 << 20))
    after = pss_bytes(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before > 24 << 20
    assert len(ballast) == 32 << 20


def test_a_process_that_is_gone_has_none() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert pss_bytes(done.pid) is None
