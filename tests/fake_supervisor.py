"""A control socket that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Request = dict[str, Any]
Reply = dict[str, Any]
# A reply; several, of which the last one stays; or what makes one of a request. None hangs up without an answer.
Answer = Reply | Sequence[Reply] | Callable[[Request], Reply | None]


class FakeSupervisor:
    """Called with the answer to each command, it listens, and returns its data directory. On others it hangs up."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.requests: list[Request] = []
        self._answers: Mapping[str, Answer] = {}
        self._server: socketserver.UnixStreamServer | None = None
        self._thread: threading.Thread | None = None
        directory.mkdir()

    def __call__(self, answers: Mapping[str, Answer]) -> Path:
        self._answers = answers
        if self._server is None:
            self._start()
        return self.directory

    def asked(self, command: str) -> list[Request]:
        return [request for request in self.requests if request["command"] == command]

    def stop(self) -> None:
        if self._server is None or self._thread is None:
            return
        self._path.unlink(missing_ok=True)
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()
        self._server = self._thread = None

    @property
    def _path(self) -> Path:
        return self.directory / "control.sock"

    def _start(self) -> None:
        fake = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                reply = fake._reply(json.loads(self.rfile.readline()))
                if reply is not None:
                    self.wfile.write(json.dumps(reply).encode() + b"\n")

        self._server = socketserver.UnixStreamServer(str(self._path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def _reply(self, request: Request) -> Reply | None:
        command = request["command"]
        before = len(self.asked(command))
        self.requests.append(request)
        answer = self._answers.get(command)
        if callable(answer):
            return answer(request)
        if answer is None or isinstance(answer, dict):
            return answer
        return answer[min(before, len(answer) - 1)]
