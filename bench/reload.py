"""What a reload costs the clients: requests lost and the worst stall, ours and other servers' in one run.

    python bench/reload.py --rtt 30 --reloads 10      SIGHUPs under keep-alive load, through a proxy 30 ms away
    python bench/reload.py --slow-start 8 ...         ... of releases that need 8 s to start
    python bench/reload.py --faults                   broken code, killed and blocked processes

The same Starlette application (a JSON route and a stream of events) behind each server, two workers each. The others
are installed into bench/.peers by the first run. `reloading/load.py` says what a client is and when a request is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import peers
from reloading import faults, table
from reloading.load import ask, load
from reloading.releases import deploy, deployment
from reloading.servers import OURS, PEERS, Kind, Server, distance, is_alive, serve
from reloading.tally import Tally

# A reload that has not ended by then is counted as it stands: some never end.
RELOAD_SECONDS = 60.0


@dataclass
class Result:
    server: str
    requests: int
    failed: int
    http2_requests: int | None
    http2_failed: int | None
    usual_stall_ms: float  # 999 of 1,000 requests stayed below it: one busy moment of the machine does not show
    worst_stall_ms: float
    reload_seconds: list[float | None]  # None: it did not end, or the server did
    reasons: dict[str, int] = field(default_factory=dict)


def main() -> int:
    options = _options()
    kinds = [OURS]
    if options.only != "ours" and peers.install():
        kinds += [kind for kind in PEERS if options.only in (None, kind.name)]
    if options.only not in (None, "ours"):
        kinds.remove(OURS)
    if options.faults:
        return _faults(kinds, options)
    results = []
    for kind in kinds:
        _say(f"{kind.name}: {options.reloads} reloads ...")
        results.append(asyncio.run(measure(kind, options)))
    print(json.dumps([asdict(result) for result in results], indent=2) if options.json else _table(results))
    return 0


async def measure(kind: Kind, options: argparse.Namespace) -> Result:
    """Reload one server again and again under load."""
    with deployment() as directory, serve(kind, directory) as server, distance(server.port, options.rtt) as port:
        async with load(port, options.clients, http2=kind.http2) as tally:
            await asyncio.sleep(options.seconds_between)
            tally.stalls.clear()  # All clients came at the same moment, which is not what is measured.
            seconds = []
            for version in range(2, options.reloads + 2):
                deploy(directory, version, startup_seconds=options.slow_start)
                seconds.append(await reload(server, version, tally))
                await asyncio.sleep(options.seconds_between)
    return _result(kind, tally, seconds)


async def reload(server: Server, version: int, tally: Tally) -> float | None:
    """Return the seconds until `version` alone is left: it answers, and every older worker is gone."""
    begun = time.monotonic()
    server.send(signal.SIGHUP)
    while time.monotonic() - begun < RELOAD_SECONDS and server.exit_code is None:
        answer = await ask(server.port)
        older = [pid for pid, served in tally.workers.items() if served < version]
        if answer is not None and answer["version"] == version and not any(map(is_alive, older)):
            return time.monotonic() - begun
        await asyncio.sleep(0.05)
    return None


def _result(kind: Kind, tally: Tally, seconds: list[float | None]) -> Result:
    return Result(
        server=_named(kind),
        requests=tally.requests(),
        failed=tally.failures(),
        http2_requests=tally.requests("h2") if kind.http2 else None,
        http2_failed=tally.failures("h2") if kind.http2 else None,
        usual_stall_ms=round(tally.stall(0.999) * 1000, 1),
        worst_stall_ms=round(tally.worst_stall * 1000, 1),
        reload_seconds=[None if s is None else round(s, 1) for s in seconds],
        reasons=dict(tally.reasons),
    )


def _named(kind: Kind) -> str:
    return " ".join([kind.name, *filter(None, [peers.versions().get(kind.name)])])


def _table(results: Sequence[Result]) -> str:
    head = ["server", "requests", "failed", "of these HTTP/2", "99.9 % stall ms", "worst stall ms", "reload s"]
    rows = [
        [
            result.server,
            f"{result.requests:,}",
            f"{result.failed:,}",
            "-" if result.http2_failed is None else f"{result.http2_failed:,} of {result.http2_requests:,}",
            f"{result.usual_stall_ms:.0f}",
            f"{result.worst_stall_ms:.0f}",
            _mean(result.reload_seconds),
        ]
        for result in results
    ]
    ours = next((result for result in results if result.server == OURS.name), None)
    verdict = f"\n{ours.server}: failed={ours.failed} of {ours.requests:,} requests" if ours else ""
    return table.text(head, rows) + verdict


def _mean(seconds: Sequence[float | None]) -> str:
    """Return the mean of the reloads that ended, and how many did not."""
    ended = [s for s in seconds if s is not None]
    unended = len(seconds) - len(ended)
    mean = f"{sum(ended) / len(ended):.1f}" if ended else "-"
    return f"{mean} ({unended} never ended)" if unended else mean


def _faults(kinds: Sequence[Kind], options: argparse.Namespace) -> int:
    verdicts: dict[str, dict[str, str]] = {}
    for kind in kinds:
        for fault in faults.ALL:
            _say(f"{kind.name}: {fault.name} ...")
            verdicts.setdefault(fault.name, {})[_named(kind)] = asyncio.run(faults.try_on(kind, fault, options.clients))
    if options.json:
        print(json.dumps(verdicts, indent=2))
        return 0
    names = [_named(kind) for kind in kinds]
    rows = [[fault, *(found[name] for name in names)] for fault, found in verdicts.items()]
    print(table.text(["fault", *names], rows))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtt", type=float, default=30, metavar="MS", help="round trip between clients and server")
    parser.add_argument("--reloads", type=int, default=10)
    parser.add_argument("--clients", type=int, default=12, help="of JSON over HTTP/1.1; streams and HTTP/2 come on top")
    parser.add_argument("--seconds-between", type=float, default=2, help="from one reload's end to the next")
    parser.add_argument("--slow-start", type=float, default=0, metavar="SECONDS", help="what each new release needs")
    parser.add_argument("--only", choices=["ours", *(kind.name for kind in PEERS)], help="measure one server")
    parser.add_argument("--faults", action="store_true", help="one fault after another instead of good reloads")
    parser.add_argument("--json", action="store_true", help="print a document instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
