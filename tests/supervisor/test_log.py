"""One line per event, on stderr, whatever was configured before."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import logging
from ragagent.supervisor import log
logging.basicConfig(format="something else: %(message)s")
log.configure("warning")
logging.getLogger("ragagent.supervisor").info("hidden")
logging.getLogger("ragagent.supervisor").warning("worker %d has ended.", 3)
"""


def test_line_has_time_level_name_and_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "WARNING" in line
    assert "ragagent.supervisor[" in line
    assert line.endswith("worker 3 has ended.")
