"""What is over goes, whatever it belongs to, and nothing else does."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.conversations.test_conversations import ANN, over, said, say, turn
from ragagent import config
from ragagent.engine.conversations import forgetting
from ragagent.engine.conversations.forgetting import Forgetting
from ragagent.errors import NotFound
from ragagent.store import turns
from ragagent.store.database import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database.open(tmp_path / "ragagent.db")) as opened:
        yield opened


async def test_sessions_end_when_nobody_used_them_and_turns_at_their_age(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "SESSIONS", 1)
    monkeypatch.setattr(forgetting, "TURNS", 2)
    monkeypatch.setattr(forgetting, "PAUSE_SECONDS", 0)
    talks, now = over(database), int(time.time())
    for name in ("idle-1", "idle-2"):
        async with over(database, idle_seconds=-1.0).session(ANN, name) as talk:
            await talk.append(dataclasses.replace(turn("Idle?"), created_at=now))
    kept = dataclasses.replace(turn("Young?"), created_at=now - 50)
    old = [dataclasses.replace(turn("Old?"), created_at=now - 150) for _ in range(5)]
    for each in (*old, kept):
        await talks.add(ANN, each)
    await say(talks, "One?")  # made in 1970, as all of that helper's turns
    await Forgetting(database, config.Session(max_age_seconds=100.0)).once()
    assert await talks.get(ANN, kept.id) == kept
    assert await said(talks) == []
    with database.read() as tx:
        assert tx.execute("SELECT count(*) FROM turns").fetchone()[0] == 1
        assert turns.totals(tx, ANN.tenant) == (1, turns.size(kept))
    with pytest.raises(NotFound):
        await talks.get(ANN, old[0].id)
    await say(talks, "Two?")  # A session goes on when its turns have grown too old.
    assert await said(talks) == ["Two?"]
