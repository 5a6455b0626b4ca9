"""What was deleted or replaced leaves Redis as well, in about a second, whoever is killed or hangs meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import doomed
import servers
from ragagent.cache import envelope, keys
from redis_server import NEEDED, RedisServer, find_redis_server, redis_server

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(find_redis_server() is None, reason=NEEDED),
]

SOON = 5.0  # The rule is a second; the machine of a test may be busy.
_numbers = itertools.count()


class Place:
    """A server of two workers, its Redis, and where orders to die are left."""

    def __init__(self, running: servers.Running, redis: RedisServer, orders: Path) -> None:
        self.running = running
        self.redis = redis
        self.orders = orders

    def request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """On a fresh connection, so that any worker may answer."""
        with self.running.http() as client:
            reply = client.request(method, path, **options).raise_for_status()
        found: dict[str, Any] = reply.json()
        return found

    def ask(self, store: str) -> str:
        body = {
            "model": "ragagent",
            "messages": [{"role": "user", "content": "What is the password of the safe?"}],
            "ragagent": {"stores": [store]},
        }
        answer: str = self.request("POST", "/v1/chat/completions", json=body)["choices"][0]["message"]["content"]
        return answer

    def holding(self, secret: str) -> list[bytes]:
        """Return the keys of Redis whose values, unpacked, speak of it."""
        with contextlib.closing(self.redis.admin()) as admin:
            names = [name for name in admin.scan_iter(f"{keys.PREFIX}*", count=1000) if admin.type(name) == b"string"]
            blobs = {name: admin.get(name) or b"" for name in names}
        plain = {name: envelope.expanded(blob) for name, blob in blobs.items() if isinstance(blob, bytes)}
        return [name for name, blob in plain.items() if isinstance(blob, bytes) and secret.encode() in blob]


class Safe:
    """A store whose document holds a secret, asked about until Redis holds it as well."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.secret = f"tangerine{next(_numbers)}x{time.monotonic_ns()}"
        self.store = place.running.new_store("safe")
        row = place.running.upsert(self.store, note=f"The password of the safe is {self.secret}.").json()["data"][0]
        self.file = row["id"]
        for _ in range(20):
            assert self.secret in place.ask(self.store)
        servers.wait_until(lambda: place.holding(self.secret), SOON)

    def check_gone(self, *, readable: bool = True) -> None:
        servers.wait_until(lambda: not self.place.holding(self.secret), SOON)
        for _ in range(20 if readable else 0):
            assert self.secret not in self.place.ask(self.store)
        assert not self.place.holding(self.secret)

    def delete(self) -> None:
        self.place.request("DELETE", "/v1/ragagent/documents", json={"store": self.store, "external_ids": ["note"]})

    def delete_file(self) -> None:
        self.place.request("DELETE", f"/v1/files/{self.file}")

    def detach(self) -> None:
        self.place.request("DELETE", f"/v1/vector_stores/{self.store}/files/{self.file}")

    def replace(self) -> None:
        self.place.running.upsert(self.store, note="The password of the safe was changed.")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("erasure")
    env = doomed.environment(directory)
    with (
        redis_server() as redis,
        servers.server(directory, arguments=doomed.MODULES, REDIS_URL=redis.url, **env) as running,
    ):
        yield Place(running, redis, directory)


@pytest.mark.parametrize("erase", [Safe.delete, Safe.delete_file, Safe.detach, Safe.replace])
def test_what_is_erased_is_in_no_answer_and_in_no_key(place: Place, erase: Callable[[Safe], None]) -> None:
    safe = Safe(place)
    erase(safe)
    safe.check_gone()


def test_a_store_takes_its_answers_along(place: Place) -> None:
    safe = Safe(place)
    place.request("DELETE", f"/v1/vector_stores/{safe.store}")
    safe.check_gone(readable=False)


def test_what_a_worker_erased_that_was_killed_after_its_commit(place: Place) -> None:
    safe = Safe(place)
    doomed.strike(place.orders, "accepted")
    with pytest.raises(httpx.TransportError):
        safe.delete()
    assert doomed.is_struck(place.orders)
    safe.check_gone()
    servers.wait_until(lambda: len(place.running.workers()) == 2, 60)


def test_what_was_erased_while_redis_hung(place: Place) -> None:
    safe = Safe(place)
    place.redis.pause()
    try:
        safe.delete()
        assert safe.secret not in place.ask(safe.store)
    finally:
        place.redis.resume()
    safe.check_gone()
