"""A talk over two workers while they and Redis die: at the end every acknowledged turn is there, once, in its order."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import servers
from fake_openai import FakeOpenAI, Hang, fake_openai
from redis_server import RedisServer, redis_server

CONFIG = """
[generator]
provider = "openai"
model = "fake-llm"
base_url = "{url}"

[retrieval]
min_evidence = 0.0

[session]
wait_seconds = 0.5

[cache]
answer_seconds = 0
"""
PATH = "/v1/chat/completions"
TURNS = 9  # of each of two clients


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeOpenAI]:
    def slowly(_: object) -> str:
        time.sleep(0.03)  # so that most of what is killed is killed in the middle of a turn
        return "The baker opens at six [1]."

    with fake_openai() as opened:
        opened.reply = slowly
        yield opened


@pytest.fixture(params=[pytest.param("redis", marks=pytest.mark.redis), "alone"])
def redis(request: pytest.FixtureRequest) -> Iterator[RedisServer | None]:
    if request.param == "alone":
        yield None
        return
    with redis_server() as started:
        yield started


def headers(key: str | None = None) -> dict[str, str]:
    return {"x-ragagent-session": "talk"} | ({"idempotency-key": key} if key else {})


def body(text: str, *, stream: bool = False) -> dict[str, Any]:
    return {"model": "ragagent", "messages": [{"role": "user", "content": text}], "stream": stream}


def say(running: servers.Running, number: int, text: str) -> str:
    """Say it until it is acknowledged, each time on a fresh connection; return its turn."""
    asked = body(text, stream=number % 2 == 1)
    deadline = time.monotonic() + 40
    while True:
        with contextlib.suppress(httpx.TransportError):
            reply = httpx.post(running.url + PATH, json=asked, headers=headers(f"key-{text}"), timeout=20)
            assert reply.status_code in (200, 409, 503), reply.text
            if reply.status_code == 200 and (not asked["stream"] or reply.text.endswith("data: [DONE]\n\n")):
                return str(reply.headers["x-ragagent-turn"])
        assert time.monotonic() < deadline, "never acknowledged"
        time.sleep(0.05)


def shown(running: servers.Running) -> list[dict[str, Any]]:
    reply = httpx.get(f"{running.url}/v1/ragagent/sessions/talk").raise_for_status()
    found: list[dict[str, Any]] = reply.json()["turns"]
    return found


def kill_a_worker(running: servers.Running) -> None:
    for worker in running.workers()[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker["pid"], signal.SIGKILL)


def test_every_acknowledged_turn_is_there_once_and_in_order(
    tmp_path: Path, fake: FakeOpenAI, redis: RedisServer | None
) -> None:
    env = {"REDIS_URL": redis.url} if redis is not None else {}
    with servers.server(tmp_path, CONFIG.format(url=fake.base_url), **env) as running:
        running.upsert(running.new_store("facts"), baker="The baker opens at six in the morning.")
        acknowledged: dict[str, list[str]] = {"ann": [], "bob": []}

        def talk(client: str) -> None:
            for number in range(TURNS):
                acknowledged[client].append(say(running, number, f"baker-{client}-{number}"))

        with ThreadPoolExecutor(2) as clients:
            talking = [clients.submit(talk, client) for client in acknowledged]
            for fault in range(3):
                wanted = (fault + 1) * TURNS // 4
                servers.wait_until(lambda wanted=wanted: len(acknowledged["ann"]) >= wanted, 60)  # type: ignore[misc]
                kill_a_worker(running)
                if redis is not None:
                    redis.kill() if fault % 2 == 0 else redis.start()
            for each in talking:
                each.result()
        turns = shown(running)
        assert sorted(turn["id"] for turn in turns) == sorted([*acknowledged["ann"], *acknowledged["bob"]])
        for client, ids in acknowledged.items():
            said = [(turn["id"], turn["messages"][0]["content"]) for turn in turns if turn["id"] in ids]
            assert said == [(each, f"baker-{client}-{number}") for number, each in enumerate(ids)]
        told = fake.requests[-1].body["messages"]
        assert len(told) > 10
        hang_up_leaves_nothing(running, fake, len(turns))


def hang_up_leaves_nothing(running: servers.Running, fake: FakeOpenAI, count: int) -> None:
    """A client that leaves in the middle of a stream has no turn there, and the session is free for the next one."""
    fake.next(Hang(events=2))
    request = {"json": body("baker once more", stream=True), "headers": headers()}
    with httpx.stream("POST", running.url + PATH, timeout=20, **request) as reply:  # type: ignore[arg-type]
        pieces = reply.iter_raw()  # Whoever drops it hangs up.
        next(pieces)
        busy = httpx.post(running.url + PATH, json=body("baker"), headers=headers(), timeout=20)
        assert busy.json()["error"]["code"] == "session_busy"
    assert httpx.post(running.url + PATH, json=body("baker"), headers=headers(), timeout=20).status_code == 200
    assert len(shown(running)) == count + 1
