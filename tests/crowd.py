"""Several processes that take from the same limits at the same moment.

As a script it is one of them: HOW WHERE ATTEMPTS SKEW.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ragagent.limits.gcra import SECOND, Demand, Seat
from ragagent.limits.ledger import Ledger
from ragagent.remote.connection import Remote

TASKS = 8
# 100 at once, and the next one in ten seconds: what comes back during a test is nothing.
KEY = Demand("rag:l:{t}:k:requests", 10 * SECOND, 100 * 10 * SECOND)
TENANT = Demand("rag:l:{t}:requests", SECOND, 10**4 * SECOND)


def crowd(how: str, where: str, directory: Path, *, skews: Sequence[float] = (0, 0, 0, 0)) -> list[int]:
    """Return how many of its 400 attempts each process was allowed. Their clocks differ by so many seconds."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, how, where, "400", str(skew)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=directory,
            env=env,
        )
        for skew in skews
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [int(process.communicate(timeout=60)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def main(how: str, where: str, attempts: int) -> None:
    remote = Remote(where, timeout_seconds=5) if how == "redis" else None
    if remote is not None:
        await remote.check()
    ledger = Ledger(Path(where) if remote is None else Path(f"table-{os.getpid()}"), remote)
    await ledger.take([TENANT], [Seat("rag:l:{t}:answers", 100, f"{os.getpid()}")])  # Everything is open now.
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

    async def task() -> int:
        allowed = 0
        for _ in range(attempts // TASKS):
            await asyncio.sleep(random.random() / 500)  # Else the first would be through before the last has begun.
            allowed += (await ledger.take([KEY, TENANT], [])).is_allowed
        return allowed

    print(sum(await asyncio.gather(*(task() for _ in range(TASKS)))))
    ledger.close()
    if remote is not None:
        await remote.aclose()


if __name__ == "__main__":
    _time, _skew = time.time, float(sys.argv[4])
    time.time = lambda: _time() + _skew
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
