"""All indexes verified once after the start: damage is found before a search meets it, and made good."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ragagent.store import editions, stores
from ragagent.store.database import Database, Transaction
from ragagent.store.editions import Edition

log = logging.getLogger("ragagent.indexer")

START_SECONDS = 10.0  # what is urgent at a start comes first

_CHILD = "ragagent.engine.publishing.checking_child"
_MAX_LINE = 1024 * 1024


class Checker:
    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._root = root

    async def run(self) -> None:
        """Check once, a little after the start."""
        await asyncio.sleep(START_SECONDS)
        await self.check()

    async def check(self) -> int:
        """Verify the index of every edition that is in use, and return how many were damaged. They are made anew."""
        damaged = 0
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", _CHILD, str(self._root), stdin=PIPE, stdout=PIPE, limit=_MAX_LINE
            )
        except OSError as exc:
            log.warning("the indexes cannot be verified: %s", exc.strerror)
            return 0
        try:
            for edition in await self._database.view(_in_use):
                problems = await _asked(process, edition.index)
                if problems is None:
                    log.warning("the verification of the indexes ended before its time")
                    break
                if not problems:
                    continue
                is_ours = await self._database.update(partial(_make_anew, edition))
                if is_ours:
                    damaged += 1
                    log.error("the index '%s' is damaged and is rebuilt: %s", edition.index, " ".join(problems))
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        return damaged


async def _asked(process: Process, name: str) -> Sequence[str] | None:
    """Return what is wrong with the index; None when the process is gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{name}\n".encode())
        await process.stdin.drain()
    except ConnectionError:
        return None
    line = await process.stdout.readline()
    found: Sequence[str] | None = json.loads(line) if line.endswith(b"\n") else None
    return found


def _in_use(tx: Transaction) -> list[Edition]:
    searched = [editions.searched(store) for store in stores.changed(tx, 0)]
    return [*searched, *(row for row in editions.listing(tx) if row.is_beside)]


def _make_anew(edition: Edition, tx: Transaction) -> bool:
    """Have a damaged edition made anew; False: it has been replaced, or given up, since it was looked at."""
    store = stores.get(tx, edition.store_id)
    if store is None:
        return False
    if edition.state == "searched":
        if store.index == edition.index:
            editions.rebuild(tx, store)
        return store.index == edition.index
    is_standing = any(row.number == edition.number and row.is_beside for row in editions.listing(tx, store.id))
    if is_standing:
        editions.renew(tx, edition)
    return is_standing
