"""Totals as plain numbers: what is counted is counted once, in the bucket that the convention says."""

from __future__ import annotations

import json

from ragagent import names
from ragagent.supervisor.tally import Tally

ROLE = {names.PROCESS_ROLE: "worker"}


def test_counts_add_up_per_series_whatever_the_order_of_the_attributes() -> None:
    tally = Tally()
    tally.count(names.WORKER_EXITS, {names.PROCESS_ROLE: "worker", names.EXIT_REASON: "crash"}, 0)
    assert [value for _, _, value in tally.points()] == [0]
    tally.count(names.WORKER_EXITS, {names.EXIT_REASON: "crash", names.PROCESS_ROLE: "worker"})
    tally.count(names.WORKER_EXITS, {names.EXIT_REASON: "drain", names.PROCESS_ROLE: "worker"})
    found = {attributes[names.EXIT_REASON]: value for _, attributes, value in tally.points()}
    assert found == {"crash": 1, "drain": 1}


def test_value_that_equals_a_bound_is_counted_below_it() -> None:
    tally = Tally()
    for value in (0.01, names.WORKER_SPAWN_DURATION.buckets[0], 1_000_000.0):
        tally.record(names.WORKER_SPAWN_DURATION, ROLE, value)
    ((name, attributes, value),) = json.loads(json.dumps(list(tally.points())))
    assert (name, attributes) == ("ragagent.worker.spawn.duration", ROLE)
    assert value["counts"] == [2, *[0] * (len(names.WORKER_SPAWN_DURATION.buckets) - 1), 1]
    assert (value["sum"], value["min"], value["max"]) == (1_000_000.06, 0.01, 1_000_000.0)
