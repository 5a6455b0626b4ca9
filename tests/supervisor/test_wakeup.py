"""Signals arrive as values, in order, and only those that were asked for."""

from __future__ import annotations

import os
import select
import signal

from ragagent.supervisor.wakeup import Wakeup


def test_signals_end_a_wait_and_arrive_in_order() -> None:
    wakeup = Wakeup([signal.SIGHUP, signal.SIGUSR1])
    try:
        assert wakeup.signals() == []
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert select.select([wakeup], [], [], 5)[0]
        assert wakeup.signals() == [signal.SIGHUP, signal.SIGUSR1]
        assert wakeup.signals() == []
    finally:
        wakeup.close()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_flood_of_signals_loses_none_of_a_kind() -> None:
    wakeup = Wakeup([signal.SIGHUP])
    try:
        for _ in range(5_000):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.SIGHUP in wakeup.signals()
    finally:
        wakeup.close()
