"""Control clients whose answer lies in the future: each is told as soon as what it waits for has come true."""

from __future__ import annotations

from collections.abc import Callable

from ragagent.supervisor.control import Client, Reply

Answer = Callable[[], Reply | None]  # None: not yet


class Waiters:
    def __init__(self) -> None:
        self._waiting: list[tuple[Client, Answer]] = []

    def add(self, client: Client, answer: Answer) -> None:
        self._waiting.append((client, answer))

    def tell(self) -> None:
        """Answer those whose moment has come."""
        waiting, self._waiting = self._waiting, []
        for client, answer in waiting:
            reply = answer()
            if reply is None:
                self._waiting.append((client, answer))
            else:
                client.reply(reply)

    def dismiss(self, reason: str) -> None:
        """Tell all who are left that what they wait for will not be."""
        for client, _ in self._waiting:
            client.reply({"ok": False, "reason": reason})
        self._waiting.clear()
