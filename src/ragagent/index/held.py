"""What several hold open at once, and the last one closes."""

from __future__ import annotations

import threading


class Held:
    """Closed by whoever lets go last. Who creates it holds it first; `hold` and `release` come in pairs after that."""

    def __init__(self) -> None:
        self._holders = 1
        self._lock = threading.Lock()  # guards _holders alone; nothing is taken after it

    def hold(self) -> None:
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._close()

    def _close(self) -> None:
        raise NotImplementedError
