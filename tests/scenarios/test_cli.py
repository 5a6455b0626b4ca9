"""The console script, as a person and a script use it, against a real server."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import servers
from ragagent import __version__

RAGAGENT = Path(sys.executable).with_name("ragagent")
SECONDS = 60.0

RELOAD = "# Reload\n\nSend SIGHUP to the supervisor to reload the configuration. Workers are replaced one by one.\n"
RELOAD_ZH = "# 重新加载\n\n向监督进程发送 SIGHUP 信号即可重新加载配置。工作进程会逐个替换。\n"


def ragagent(
    server: servers.Running, *arguments: str | Path, stdin: bytes = b"", **env: str
) -> subprocess.CompletedProcess[str]:
    environment = servers.environment(server.data_dir, 1, {"RAGAGENT_URL": server.url, **env})
    done = subprocess.run([RAGAGENT, *arguments], env=environment, input=stdin, capture_output=True, timeout=SECONDS)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def document(server: servers.Running, *arguments: str | Path, code: int = 0, **rest: Any) -> Any:
    """Run a command with --json and return its one document."""
    done = ragagent(server, *arguments, "--json", **rest)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    directory = tmp_path / "docs"
    (directory / "zh").mkdir(parents=True)
    (directory / "reload.md").write_text(RELOAD)
    (directory / "zh" / "重载.md").write_text(RELOAD_ZH)
    (directory / "latin.txt").write_bytes("重新加载".encode("gb18030") * 50 + "的是".encode("gb18030") * 50)
    (directory / ".hidden.md").write_text("hidden")
    return directory


def test_version_is_the_packages(server: servers.Running) -> None:
    assert ragagent(server, "--version").stdout == f"ragagent {__version__}\n"


def test_a_directory_is_ingested_and_again_only_what_changed(server: servers.Running, docs: Path) -> None:
    first = document(server, "ingest", docs, "--store", "again")
    assert (first["added"], first["failed"], first["store"]["created"]) == (3, 0, True)
    assert document(server, "ingest", docs, "--store", "again")["unchanged"] == 3
    (docs / "reload.md").write_text(RELOAD.replace("SIGHUP", "SIGUSR2"))
    second = document(server, "ingest", docs, "--store", "again")
    assert (second["replaced"], second["unchanged"]) == (1, 2)
    shown = document(server, "store", "show", "again")
    assert shown["file_counts"] == {"in_progress": 0, "completed": 3, "failed": 0, "cancelled": 0, "total": 3}
    found = document(server, "search", "signal to reload the configuration", "--store", "again", "-k", "1")
    assert "SIGUSR2" in found["data"][0]["content"][0]["text"]


def test_a_file_that_cannot_be_read_fails_alone_with_its_reason(server: servers.Running, docs: Path) -> None:
    (docs / "fake.pdf").write_text("this is no PDF")
    (docs / "empty.md").write_text("")
    done = ragagent(server, "ingest", docs, "--store", "partly")
    assert done.returncode == 1
    assert "3 added, 2 failed" in done.stdout
    lines = sorted(done.stderr.splitlines())
    assert lines[0].startswith("docs/empty.md: ")
    assert lines[1].startswith("docs/fake.pdf: ")
    assert len(lines) == 2
    assert "docs/fake.pdf" in ragagent(server, "store", "show", "partly").stdout


def test_a_file_over_the_servers_limit_fails_with_the_limits_name(server: servers.Running, tmp_path: Path) -> None:
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(40 * 1024 * 1024)
    (tmp_path / "small.txt").write_text("A small text beside it.")
    done = ragagent(server, "ingest", tmp_path, "--store", "large")
    assert done.returncode == 1
    assert "server.max_body_bytes" in done.stderr
    assert "1 added, 1 failed" in done.stdout


def test_attributes_filter_a_search(server: servers.Running, docs: Path) -> None:
    document(server, "ingest", docs / "reload.md", "--store", "tagged", "--attribute", "year=2024")
    document(server, "ingest", docs / "zh", "--store", "tagged", "--attribute", "year=2025")
    for year, name in (("2024", "reload.md"), ("2025", "重载.md")):
        found = document(server, "search", "SIGHUP", "--store", "tagged", "--filter", f"year={year}")
        assert [hit["filename"] for hit in found["data"]] == [name]


@pytest.mark.parametrize(
    ("question", "source", "quote"),
    [
        ("Which signal do I send to reload the configuration?", "reload.md", "Send SIGHUP to the supervisor"),
        ("发送什么信号可以重新加载配置？", "重载.md", "向监督进程发送 SIGHUP 信号"),
    ],
)
def test_an_answer_comes_with_its_citations(
    server: servers.Running, docs: Path, question: str, source: str, quote: str
) -> None:
    document(server, "ingest", docs, "--store", "asked")
    answer = document(server, "ask", question, "--store", "asked")
    assert answer["evidence"] == "found"
    assert "SIGHUP" in answer["answer"]
    assert any(c["filename"] == source and quote in c["quote"] for c in answer["citations"])
    streamed = ragagent(server, "ask", question, "--store", "asked")
    assert streamed.returncode == 0
    text, _, sources = streamed.stdout.partition("\n\n[")
    assert text == answer["answer"]
    assert source in sources
    assert quote in sources
    assert "\x1b" not in streamed.stdout


def test_an_honest_refusal_is_no_failure(server: servers.Running, docs: Path) -> None:
    document(server, "ingest", docs, "--store", "refused")
    assert document(server, "ask", "Who won the world cup in 1950?", "--store", "refused")["evidence"] == "none"
    done = ragagent(server, "ask", "Who won the world cup in 1950?", "--store", "refused")
    assert done.returncode == 0
    assert "evidence: none" in done.stdout


def test_a_text_from_stdin_is_replaced_under_its_id(server: servers.Running) -> None:
    for colour in ("green", "yellow"):
        text = f"The moon is made of {colour} cheese.".encode()
        document(server, "ingest", "-", "--external-id", "moon", "--store", "stdin", stdin=text)
    (hit,) = document(server, "search", "moon cheese", "--store", "stdin")["data"]
    assert "yellow" in hit["content"][0]["text"]


def test_status_names_every_process_and_store(server: servers.Running, docs: Path) -> None:
    made = document(server, "ingest", docs, "--store", "counted")["store"]
    reply = document(server, "status")
    assert reply["supervisor"]["pid"] == server.pid
    assert {worker["slot"] for worker in reply["workers"]} == {0, 1}
    # The indexer tells of its stores with its next beat, half a second after the ingest at the latest.
    servers.wait_until(lambda: made["id"] in _store_ids(server), SECONDS)
    told = ragagent(server, "status", "--data", server.data_dir, RAGAGENT_DATA__DIR="elsewhere").stdout
    assert f"supervisor pid {server.pid} · running" in told
    for name in ("worker 0", "worker 1", "indexer", made["id"]):
        assert f"\n{name} " in told


def test_the_cache_of_every_worker_is_counted_and_emptied(server: servers.Running, docs: Path) -> None:
    document(server, "ingest", docs, "--store", "cached")
    for _ in range(3):
        document(server, "search", "reload", "--store", "cached")
    # Each worker tells with its next beat, half a second after the search at the latest.
    servers.wait_until(lambda: sum(told["entries"] for told in _caches(server)) >= 2, SECONDS)
    assert {told["slot"] for told in _caches(server)} == {0, 1}
    assert document(server, "cache", "stats")["answered"]["pid"] in {told["pid"] for told in _caches(server)}
    purged = document(server, "cache", "purge", "--kind", "retrieval")
    assert (purged["scope"], purged["redis"], purged["complete"]) == ("tenant", 0, True)


def _caches(server: servers.Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document(server, "cache", "stats")["workers"]
    return found


def _store_ids(server: servers.Running) -> set[str]:
    return {store["id"] for store in server.control("status")["stores"]}


def test_reload_waits_for_its_end_and_ingest_goes_on_meanwhile(server: servers.Running, tmp_path: Path) -> None:
    before = document(server, "status")["supervisor"]["release"]
    for number in range(300):
        (tmp_path / f"{number}.md").write_text(f"# Note {number}\n\nThis is the note with the number {number}.")
    command: list[str | Path] = [RAGAGENT, "ingest", tmp_path, "--store", "reloaded", "--json"]
    environment = servers.environment(server.data_dir, 1, {"RAGAGENT_URL": server.url})
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as ingest:
        assert document(server, "reload")["ok"] is True
        out, _ = ingest.communicate(timeout=SECONDS)
    assert (json.loads(out)["added"], json.loads(out)["failed"]) == (300, 0)
    reply = document(server, "status")
    assert reply["supervisor"]["release"] == before + 1
    assert {worker["release"] for worker in reply["workers"]} == {before + 1}


def test_a_key_works_until_it_is_revoked(server: servers.Running) -> None:
    document(server, "store", "create", "open")
    document(server, "store", "create", "other")
    made = document(server, "keys", "create", "ci", "--store", "open")
    bound = {"RAGAGENT_API_KEY": made["token"]}
    assert [store["name"] for store in document(server, "store", "ls", **bound)["data"]] == ["open"]
    assert document(server, "store", "create", "third", code=1, **bound)["error"]["code"] == "forbidden"
    document(server, "keys", "revoke", made["id"])
    time.sleep(1.1)  # What a worker may remember of a key.
    refused = document(server, "store", "ls", code=1, **bound)
    assert refused["error"]["code"] == "invalid_api_key"


def test_a_removed_store_is_gone_with_its_files(server: servers.Running, docs: Path) -> None:
    document(server, "ingest", docs, "--store", "removed")
    files = len(server.openai().files.list().data)
    assert ragagent(server, "store", "rm", "removed").returncode == 2
    document(server, "store", "rm", "removed", "--yes", "--files")
    assert len(server.openai().files.list().data) == files - 3
    assert document(server, "search", "reload", "--store", "removed", code=1)["error"]["code"] == "not_found"


def test_the_servers_own_configuration_is_valid_and_shown(server: servers.Running) -> None:
    assert ragagent(server, "config", "check").returncode == 0
    shown = document(server, "config", "show")["data.dir"]
    assert shown == {"value": str(server.data_dir), "source": "RAGAGENT_DATA__DIR", "reload": "restart"}


def on_a_terminal(server: servers.Running, *arguments: str | Path, **env: str) -> str:
    """Run a command whose stdout and stderr are a terminal; return what it has shown."""
    ours, theirs = pty.openpty()
    environment = servers.environment(server.data_dir, 1, {"RAGAGENT_URL": server.url, "TERM": "xterm", **env})
    process = subprocess.Popen(
        [RAGAGENT, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:
        pass  # EIO: how Linux says that the last writer has closed a terminal.
    os.close(ours)
    assert process.wait(SECONDS) == 0
    return shown.decode()


def test_a_terminal_gets_a_progress_bar_and_colours(server: servers.Running, docs: Path) -> None:
    shown = on_a_terminal(server, "ingest", docs, "--store", "terminal")
    assert "100%" in shown
    assert "3 added" in shown
    assert "\x1b[1mSIGHUP\x1b[0m" in on_a_terminal(server, "search", "SIGHUP", "--store", "terminal")
    assert "\x1b[" not in on_a_terminal(server, "search", "SIGHUP", "--store", "terminal", NO_COLOR="1")
