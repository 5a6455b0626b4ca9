"""Random work on a store, held against a dict."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from index.conftest import STORE, Bed, row, seen, vector
from ragagent.index.compaction import Compaction

chunks = st.lists(st.integers(1, 25), max_size=6, unique=True)


class Store(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.bed = Bed(Path(self.stack.enter_context(tempfile.TemporaryDirectory())), self.stack)
        self.writer = self.bed.writer(hnsw_rows=12)
        self.searchers = self.bed.searchers()
        self.build: Compaction | None = None
        self.model: dict[int, int] = {}  # chunk id -> the seed of its vector, which is the seq that added it
        self.seq = 0

    @rule(added=chunks, dead=chunks)
    def publish(self, added: list[int], dead: list[int]) -> None:
        self.seq += 1
        new = [row(chunk, seed=1000 * self.seq + chunk) for chunk in added]
        self.writer.publish(self.seq, new, dead=dead, forget=dead)
        for chunk in dead:
            self.model.pop(chunk, None)
        self.model |= {chunk: 1000 * self.seq + chunk for chunk in added}

    @rule()
    def begin_or_finish_compaction(self) -> None:
        if self.build is None:
            self.build = self.writer.begin_compaction()
            return
        self.build.run()
        self.writer.finish_compaction(self.build)
        self.build = None

    @rule()
    def prune(self) -> None:
        self.writer.prune()

    @rule(is_pinned=st.booleans())
    def reopen(self, is_pinned: bool) -> None:
        if self.build is not None:
            self.build.close()
            self.build = None
        self.writer.close()
        if is_pinned:
            with self.searchers.pin(STORE):
                self.writer = self.bed.writer(hnsw_rows=12)
        else:
            self.writer = self.bed.writer(hnsw_rows=12)

    @invariant()
    def both_legs_hold_what_the_model_holds(self) -> None:
        assert seen(self.searchers) == (self.seq, set(self.model), set(self.model))
        with self.searchers.pin(STORE) as searcher:
            assert searcher.rows == len(self.model)
            for chunk, seed in list(self.model.items())[-3:]:
                best = searcher.search(vector(seed), [], candidates=1).dense[0]
                assert best[0] == chunk
                assert best[1] > 0.999

    def teardown(self) -> None:
        if self.build is not None:
            self.build.close()
        self.stack.close()


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=20, stateful_step_count=15, deadline=None, phases=set(Phase) - {Phase.shrink}
)
