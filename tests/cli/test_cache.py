"""`ragagent cache`: against a fake server, a fake supervisor, and a real Redis."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from cli.test_status import STATUS, process
from fake_ragagent import FakeRagagent
from fake_supervisor import FakeSupervisor
from ragagent.cache import keys
from ragagent.config import Data
from ragagent.store import erasures
from ragagent.store.database import Database
from redis_server import RedisServer

Run = Callable[..., Result]

TOLD: dict[str, Any] = {
    "l1_hits": 90,
    "l1_misses": 10,
    "l2_hits": 0,
    "l2_misses": 0,
    "entries": 12,
    "bytes": 2048,
    "max_bytes": 4096,
    "evictions": 5,
    "flights": 1,
    "redis": "up",
    "semantic": "ok",
    "semantic_hits": 3,
}
ANSWERED: dict[str, Any] = {
    "object": "ragagent.cache",
    "pid": 4711,
    "enabled": True,
    "lookups": {"l1": {"answer": {"hit": 5, "stale": 1, "miss": 4}}, "none": {"answer": {"computed": 4}}},
    "computed": {"computed": 4, "received": 2},
    "redis": {"state": "up", "connections": 4, "in_use": 1, "no_replies": {"failed": 2}},
    "refused": {"corrupt": 1},
    "semantic": {"state": "ok", "questions": 8, "hits": 3, "misses": 9, "samples": 2, "false_share": 0.5},
}


@pytest.fixture
def data(supervisor: FakeSupervisor) -> Path:
    workers = [process("worker", 0, stats={"cache": TOLD}), process("worker", 1)]  # The second has not told yet.
    return supervisor({"status": STATUS | {"workers": workers}})


def test_stats_show_all_workers_and_what_one_of_them_knows(ask: Run, fake: FakeRagagent, data: Path) -> None:
    fake.cache = ANSWERED
    result = ask("cache", "stats", "--data", data)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "worker 0 100 90.0 % - 3 12 2.0 KiB of 4.0 KiB 5 1 up" in lines
    assert not any(line.startswith("worker 1") for line in lines)
    assert "l1 answer 10 5 1 4 0 60.0 %" in lines
    assert not any(line.startswith("none ") for line in lines)
    assert "found in neither tier: 4 computed, 2 received" in lines
    assert "Redis: up · 1 of 4 connections in use · no reply: 2 failed" in lines
    assert "semantic cache: ok · 8 questions · 2 samples, 50.0% of them wrong" in lines


def test_stats_make_do_with_either_half(ask: Run, run: Run, fake: FakeRagagent, data: Path, tmp_path: Path) -> None:
    fake.cache = ANSWERED | {"redis": None, "semantic": None, "refused": {}, "lookups": {}}
    half = ask("cache", "stats", "--data", tmp_path / "nowhere")
    assert half.exit_code == 0
    assert "none yet" in half.stdout
    assert "each worker has what it holds itself" in half.stdout
    assert "ragagent serve" in half.stderr
    other = run("cache", "stats", "--data", data, "--json", RAGAGENT_URL="http://127.0.0.1:1")
    assert other.exit_code == 0
    assert json.loads(other.stdout)["workers"] == [{"slot": 0, "pid": 100, **TOLD}]
    assert json.loads(other.stdout)["answered"] is None
    none = run("cache", "stats", "--data", tmp_path / "nowhere", RAGAGENT_URL="http://127.0.0.1:1")
    assert (none.exit_code, none.stdout) == (1, "")


def test_a_purge_is_of_the_keys_tenant(ask: Run, fake: FakeRagagent) -> None:
    result = ask("cache", "purge", "--kind", "answer")
    assert result.exit_code == 0
    assert "7 values went from Redis, 3 from the worker that answered" in result.stdout
    assert fake.requests[-1].json == {"kind": "answer"}
    fake.is_partial = True
    partial = ask("cache", "purge", "--json")
    assert partial.exit_code == 1
    assert "purge again" in partial.stderr


@pytest.fixture
def filled(redis: RedisServer) -> RedisServer:
    with contextlib.closing(redis.admin()) as admin:
        for tenant in ("one", "two"):
            admin.set(keys.retrieval(tenant, [], "m", "q", {}).rendered, b"x", px=90_000)
            admin.set(keys.answer(tenant, [], "p", "e", "g", [], {}).rendered, b"x", px=90_000)
        admin.set(keys.embedding("m", "q").rendered, b"x")
    return redis


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (["--tenant", "one"], 2),
        (["--tenant", "one", "--kind", "answer"], 1),
        (["--all", "--kind", "embedding"], 1),
        (["--all"], 5),
    ],
)
def test_other_tenants_are_purged_in_redis_and_the_workers_are_told(
    run: Run, filled: RedisServer, tmp_path: Path, options: list[str], gone: int
) -> None:
    data = Data(dir=str(tmp_path))
    with contextlib.closing(Database.open(data.database)) as database:
        arguments = ("cache", "purge", *options, "--json", "--data", data.dir)
        result = run(*arguments, REDIS_URL=filled.url)
        assert result.exit_code == 0, result.output
        with database.read() as tx:
            (noted,) = erasures.purges_after(tx, 0)
    assert noted.prefix.startswith(keys.PREFIX)
    assert (noted.prefix == keys.PREFIX) == (options == ["--all"])
    told = json.loads(result.stdout)
    assert (told["redis"], told["local"], told["complete"]) == (gone, None, True)
    with contextlib.closing(filled.admin()) as admin:
        assert admin.dbsize() == 5 - gone


def test_keys_are_counted_and_never_shown(run: Run, filled: RedisServer) -> None:
    result = run("cache", "keys", REDIS_URL=filled.url)
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert set(rows) == {"KIND", "answer", "retrieval", "embedding"}
    assert "1 m 29 s to 1 m" in rows["answer"]
    told = json.loads(run("cache", "keys", "--json", REDIS_URL=filled.url).stdout)
    assert [(kind["kind"], kind["keys"]) for kind in sorted(told["data"], key=lambda kind: kind["kind"])] == [
        ("answer", 2),
        ("embedding", 1),
        ("retrieval", 2),
    ]
    assert told["complete"]
    assert "the count ended at 1" in run("cache", "keys", "--limit", "1", REDIS_URL=filled.url).stdout


def test_an_empty_redis_and_none_at_all(run: Run, redis: RedisServer) -> None:
    assert run("cache", "keys", REDIS_URL=redis.url).stdout == "Redis holds nothing of ours.\n"
    result = run("cache", "keys")
    assert (result.exit_code, "No Redis is configured" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    "options", [["--all", "--tenant", "x"], ["--tenant", "x", "--kind", "embedding"], ["--all", "--kind", "answer"]]
)
def test_what_does_not_go_together_is_wrong_usage(run: Run, options: list[str]) -> None:
    assert run("cache", "purge", *options).exit_code == 2


def test_a_purge_without_redis_reaches_the_workers_and_one_without_a_server_names_the_option(
    run: Run, tmp_path: Path
) -> None:
    missing = run("cache", "purge", "--all", "--data", tmp_path)
    assert (missing.exit_code, "--data" in missing.stderr) == (1, True)
    with contextlib.closing(Database.open(Data(dir=str(tmp_path)).database)) as database:
        result = run("cache", "purge", "--all", "--data", tmp_path)
        assert (result.exit_code, "within a second" in result.stdout) == (0, True)
        with database.read() as tx:
            assert [purge.prefix for purge in erasures.purges_after(tx, 0)] == [keys.PREFIX]
