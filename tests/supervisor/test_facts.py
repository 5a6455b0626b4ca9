"""What a zygote tells of its config: enough for the supervisor, and no secret."""

from __future__ import annotations

import dataclasses
import json

from ragagent.config import Config, Embedder, Profile, Redis, Server
from ragagent.supervisor.facts import Facts, facts_of


def through_the_wire(config: Config) -> Facts:
    return Facts.from_plain(json.loads(message(config)))


def message(config: Config) -> str:
    return json.dumps(dataclasses.asdict(facts_of(config)))


def test_numbers_arrive() -> None:
    config = Config(server=Server(workers=3, ready_seconds=7, hang_seconds=5, graceful_seconds=9))
    facts = through_the_wire(config)
    assert facts.workers == 3
    assert (facts.limits.ready_seconds, facts.limits.hang_seconds, facts.limits.graceful_seconds) == (7, 5, 9)


def test_changes_name_each_key_and_what_a_reload_does_with_it() -> None:
    old = Config()
    new = dataclasses.replace(
        old,
        server=Server(bind="127.0.0.1:9", hang_seconds=99),
        redis=Redis(url="redis://h"),
        profile={"support": Profile()},
    )
    assert through_the_wire(new).changes(through_the_wire(old)) == {
        "server.bind": "restart",
        "server.hang_seconds": "hot",
        "redis.url": "rolls",
        "profile": "rolls",
    }
    assert through_the_wire(old).changes(through_the_wire(old)) == {}


def test_no_secret_is_sent() -> None:
    assert "sk-secret" not in message(Config(embedder=Embedder(api_key="sk-secret")))


def test_message_fits_one_packet_however_long_the_config_is() -> None:
    profiles = {f"p{n}": Profile(instructions="x" * 10_000) for n in range(50)}
    assert len(message(Config(profile=profiles))) < 32_768
