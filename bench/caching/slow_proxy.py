"""A TCP proxy in a thread that can be told, while it runs, how slow the way back is."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator


class SlowProxy:
    """What the server says arrives `delay_seconds` later, and `byte_seconds` apart where that is not 0."""

    def __init__(self, target: int) -> None:
        self.delay_seconds = 0.0
        self.byte_seconds = 0.0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ends: list[socket.socket] = []
        self._is_closed = threading.Event()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()  # Nobody there: to the client the nearest thing to a refusal.
                    continue
                self._ends += [client, server]
                for source, sink, back in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass_on, args=(source, sink, back), daemon=True).start()

    def close(self) -> None:
        self._is_closed.set()
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if back:
                    time.sleep(self.delay_seconds)
                self._send(sink, data, back)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _send(self, sink: socket.socket, data: bytes, back: bool) -> None:
        while back and self.byte_seconds and data:
            sink.sendall(data[:1])
            data = data[1:]
            if self._is_closed.wait(self.byte_seconds):
                return
        sink.sendall(data)


@contextlib.contextmanager
def slow_proxy(target: int) -> Iterator[SlowProxy]:
    proxy = SlowProxy(target)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
