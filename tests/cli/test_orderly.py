from __future__ import annotations

import os
import signal

import pytest

from ragagent.cli.orderly import orderly


def test_sigterm_runs_what_cleans_up() -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def work() -> None:
        with orderly():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                cleaned.append(True)

    with pytest.raises(SystemExit) as caught:
        work()
    assert (caught.value.code, cleaned) == (143, [True])
    assert signal.getsignal(signal.SIGTERM) == before
