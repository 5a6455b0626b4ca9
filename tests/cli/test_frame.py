from __future__ import annotations

from typing import Any

import click
import pytest

from ragagent.cli.frame import frame
from ragagent.cli.output import span
from ragagent.cli.sample import Sample

STORES = [{"id": f"vs_{number}", "name": "说明书", "seq": 9, "generation": 4, "rows": 12} for number in range(9)]


def worker(slot: int, requests: int = 0, **values: Any) -> dict[str, Any]:
    stats = {"in_flight": 3, "connections": 17, "requests": requests, "loop_lag_seconds": 0.012}
    entry = {"pid": 100 + slot, "slot": slot, "role": "worker", "release": 2, "state": "running", "age_seconds": 61.0}
    entry |= {"heartbeat_age_seconds": 0.2, "restarts": 0, "last_exit": None, "stats": stats, "pss_bytes": 100 << 20}
    return entry | values


def sample(*workers: dict[str, Any], clock: float = 0.0, cpu: float = 0.0, **supervisor: Any) -> Sample:
    found = {"pid": 99, "version": "0.1.0", "state": "running", "release": 2, "started_at": 0.0, "pss_bytes": 20 << 20}
    found |= {"reloads": {"ok": 1, "failed": 0, "last_error": None}, "workers_wanted": len(workers)} | supervisor
    indexer = worker(0, role="indexer", pid=200, stats={"loop_lag_seconds": 0.001})
    reply = {"supervisor": found, "bind": "http://127.0.0.1:8000", "workers": list(workers), "indexer": indexer}
    pids = [99, 200, *(w["pid"] for w in workers)]
    return Sample(reply | {"stores": STORES}, dict.fromkeys(pids, cpu), 120.0, clock)


def plain(*args: Any, **kwargs: Any) -> list[str]:
    return [click.unstyle(line) for line in frame(*args, **kwargs)]


def test_a_frame_shows_rates_processes_and_stores() -> None:
    before = sample(worker(0, 100), worker(1, 7))
    after = sample(worker(0, 150), worker(1, 10), clock=2.0, cpu=0.5)
    lines = plain(after, before, 120, 40)
    assert lines[0].startswith("running · release 2 · 2 of 2 workers · up 2 m 0 s · reloads 1 · 26.5 requests/s · ")
    assert lines[1] == "supervisor pid 99 · CPU 25.0 % · PSS 20.0 MiB · ragagent 0.1.0 · http://127.0.0.1:8000"
    assert lines[3].split("  ")[0] == "PROCESS"
    told = ["worker", "0", "100", "2", "running", "1", "m", "1", "s", "25.0", "100.0", "MiB", "3", "17", "25.0"]
    assert lines[4].split() == [*told, "200", "ms", "12", "ms", "0"]
    assert lines[6].split()[:4] == ["indexer", "200", "2", "running"]
    assert lines[7:9] == ["", "STORE  NAME    GENERATION  SEQ  ROWS  DELTA"]
    assert len(lines) == 9 + len(STORES)


def test_the_first_frame_has_no_rates() -> None:
    lines = plain(sample(worker(0)), None, 120, 40)
    assert "requests/s" not in lines[0]
    assert "CPU" not in lines[1]


@pytest.mark.parametrize("width", [0, 1, 20, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("height", [0, 1, 2, 4, 7, 10, 24, 50])
def test_a_frame_never_exceeds_its_size(width: int, height: int) -> None:
    sick = worker(1, state="backoff", last_exit="说" * 100, probe={"outcome": "no_answer", "failures": 1})
    workers = [worker(0), sick, *(worker(slot) for slot in range(2, 16))]
    reloads = {"ok": 1, "failed": 1, "last_error": "错" * 100}
    lines = plain(sample(*workers, reloads=reloads), None, width, height, lost="gone " * 50)
    assert len(lines) <= height
    assert all(span(line) <= width for line in lines)


def test_all_columns_fit_into_120() -> None:
    large = worker(63, 99_999, pid=4_194_303, release=1000, state="stopping", age_seconds=3595.0, pss_bytes=900 << 20)
    header = plain(sample(large, clock=1.0), sample(worker(63, pid=4_194_303)), 120, 40)[3]
    assert header.split() == ("PROCESS PID RELEASE STATE AGE CPU % PSS IN FLIGHT CONNS REQ/S BEAT LAG RESTARTS".split())


def test_a_narrow_terminal_does_without_the_least_needed_columns() -> None:
    header = plain(sample(worker(0)), None, 80, 40)[3]
    assert "LAG" not in header
    assert "RELEASE" not in header
    for name in ("PROCESS", "STATE", "CPU %", "PSS", "IN FLIGHT", "REQ/S", "RESTARTS"):
        assert name in header


def test_in_a_low_terminal_the_stores_go_first_then_processes_but_no_note() -> None:
    workers = [*(worker(slot) for slot in range(8)), worker(8, last_exit="signal 9")]
    lines = plain(sample(*workers), None, 120, 17)
    assert lines[-1] == "worker 8: last exit: signal 9"
    assert not any(line.startswith("STORE") for line in lines)
    lines = plain(sample(*workers), None, 120, 12)
    assert lines[-3:] == ["… and 5 more", "", "worker 8: last exit: signal 9"]
    assert len(lines) == 12


def test_a_frame_that_fits_exactly_hides_nothing() -> None:
    workers = [worker(slot) for slot in range(8)]
    lines = plain(sample(*workers), None, 120, 4 + len(workers) + 1)
    assert lines[-1].startswith("indexer")


def test_a_lost_supervisor_is_told_above_what_was_last_known() -> None:
    before = sample(worker(0, 100))
    lines = frame(sample(worker(0, 150), clock=2.0), before, 120, 40, lost="Nothing new for 3 s.")
    assert click.unstyle(lines[0]).startswith("lost · release 2")
    assert "requests/s" not in lines[0]
    assert lines[2] == click.style("Nothing new for 3 s.", fg="red")
    assert lines[5].startswith(click.style("", dim=True, reset=False))


def test_what_does_not_run_stands_out() -> None:
    lines = frame(sample(worker(0, state="backoff"), worker(1, state="fatal"), worker(2)), None, 120, 40)
    assert lines[4] == click.style(click.unstyle(lines[4]), fg="yellow")
    assert lines[5] == click.style(click.unstyle(lines[5]), fg="red")
    assert lines[6] == click.unstyle(lines[6])
