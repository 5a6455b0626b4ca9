"""The units under supervisor/: what they name exists, what they run starts, and what they forbid is not needed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import servers
from ragagent.config import Config, keys
from ragagent.errors import EXIT_CONFIG, EXIT_USAGE
from ragagent.supervisor.backoff import MAX_SECONDS
from ragagent.supervisor.watch import MERCY_SECONDS

ROOT = Path(__file__).parents[1]
UNITS = {name: ROOT / "supervisor" / name for name in ("ragagent.service", "ragagent.socket")}
MAX_EXPOSURE = 2.0
# What there is no system for here, of the paths that a unit expects.
MISSING = re.compile(r"Command \S+ is not executable: No such file or directory")

SYSTEMD = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(SYSTEMD is None, reason="there is no systemd-analyze to read the units with")


def settings(name: str) -> dict[str, list[str]]:
    """Return what the unit sets, in order: a key may stand more than once."""
    found: dict[str, list[str]] = {}
    for line in UNITS[name].read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert SYSTEMD is not None
    return subprocess.run([SYSTEMD, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", [*UNITS, "README.md"])
def test_config_keys_that_are_named_exist(name: str) -> None:
    known = {f"{section}.{key}" for section, key, _ in keys()}
    sections = "|".join({key.partition(".")[0] for key in known})
    text = (ROOT / "supervisor" / name).read_text()
    assert set(re.findall(rf"\b(?:{sections})\.[a-z_]+(?![a-z_./])", text)) - files(text) <= known


def files(text: str) -> set[str]:
    return set(re.findall(r"\w+\.(?:log|pid|sock|db|service|socket)\b", text))


def test_main_process_is_started_with_options_that_it_has() -> None:
    (line,) = settings("ragagent.service")["ExecStart"]
    _, *arguments = shlex.split(line)
    assert arguments[:2] == ["-m", "ragagent.supervisor"]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == EXIT_CONFIG, "the file of the unit is not there, and nothing else is wrong"
    assert "Config file '/etc/ragagent/ragagent.toml' cannot be read" in done.stderr


def test_reload_is_a_command_with_options_that_it_has() -> None:
    (line,) = settings("ragagent.service")["ExecReload"]
    program, *arguments = shlex.split(line)
    assert Path(program).name == "ragagent"
    command = [sys.executable, "-m", "ragagent.cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode not in (0, EXIT_USAGE)
    assert "/etc/ragagent/ragagent.toml" in done.stderr


def test_unit_waits_for_what_the_supervisor_bounds() -> None:
    service, server = settings("ragagent.service"), Config().server
    assert float(service["TimeoutStopSec"][0]) > server.graceful_seconds + MERCY_SECONDS
    assert float(service["WatchdogSec"][0]) > MAX_SECONDS * 1.25 + server.hang_seconds
    assert float(service["TimeoutStartSec"][0]) > server.ready_seconds
    assert service["Type"] == ["notify"]


def test_only_a_wrong_configuration_stays_down() -> None:
    service = settings("ragagent.service")
    assert service["Restart"] == ["on-failure"]
    assert service["RestartPreventExitStatus"] == [f"{EXIT_CONFIG} {EXIT_USAGE}"]


def test_socket_unit_is_what_the_configuration_says_by_default() -> None:
    unit, server = settings("ragagent.socket"), Config().server
    assert unit["ListenStream"] == [server.bind]
    assert unit["Backlog"] == [str(server.backlog)]
    assert unit["Accept"] == ["no"]


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong_but_paths(name: str) -> None:
    done = systemd_analyze("verify", UNITS[name])
    assert [line for line in done.stderr.splitlines() if not MISSING.search(line)] == []


@needs_systemd
def test_exposure_is_low() -> None:
    done = systemd_analyze("security", "--offline=true", UNITS["ragagent.service"])
    found = re.search(r"Overall exposure level for ragagent.service: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= MAX_EXPOSURE


# -- the real server, under what the unit forbids


def allowed() -> set[str]:
    """Return the system calls that SystemCallFilter= leaves."""
    found: set[str] = set()
    for value in settings("ragagent.service")["SystemCallFilter"]:
        calls = {call for group in value.removeprefix("~").split() for call in members(group)}
        found = found - calls if value.startswith("~") else found | calls
    # What systemd allows whatever is said: without these not even the command could be started.
    return found | members("@default")


def members(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    lines = systemd_analyze("syscall-filter", name).stdout.splitlines()[1:]
    names = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return {call for inner in names for call in members(inner)}


@needs_systemd
def test_server_needs_nothing_that_the_unit_forbids(tmp_path: Path) -> None:
    assert settings("ragagent.service")["MemoryDenyWriteExecute"] == ["yes"]
    calls = tmp_path / "calls"
    calls.write_text("\n".join(allowed()))
    confined = [sys.executable, str(Path(__file__).with_name("confined.py")), str(calls)]
    probe = subprocess.run([*confined, shutil.which("true") or "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"system calls cannot be filtered here: {probe.stderr.splitlines()[-1]}")
    assert is_refused(confined, "import os; os.chroot('/')")
    assert is_refused(confined, "import mmap; mmap.mmap(-1, 1, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)")

    with servers.server(tmp_path / "server", wrapper=confined) as server:
        client = server.openai()
        store = client.vector_stores.create(name="notes").id
        server.upsert("notes", a="The supervisor binds the port and answers for all the others.")
        page = ("page.html", b"<h1>Reload</h1><p>A reload drops no request.</p>")  # For the parser process.
        uploaded = client.files.create(file=page, purpose="assistants")
        client.vector_stores.files.create_and_poll(uploaded.id, vector_store_id=store)
        for question, word in (("Who binds the port?", "supervisor"), ("What does a reload drop?", "request")):
            answer = client.chat.completions.create(model="ragagent", messages=[{"role": "user", "content": question}])
            assert word in (answer.choices[0].message.content or "")
        assert server.control("reload")["ok"] is True
        assert "Operation not permitted" not in server.log.read_text()


def is_refused(confined: list[str], code: str) -> bool:
    done = subprocess.run([*confined, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return "PermissionError" in done.stderr
