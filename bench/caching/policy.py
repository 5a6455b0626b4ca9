"""Hit ratios of the local tier's policies, in bytes: room for a tenth, and for a fiftieth, of all that is asked for."""

from __future__ import annotations

from caching.traces import QUESTIONS, TRACES, Trace, sizes
from ragagent.cache.admission import Policy, Queues
from ragagent.cache.chain import Item
from ragagent.cache.local import ITEM_BYTES
from report import Report

SHARES = (10, 50)
KEY_BYTES = 115
GAINS = ("zipf 0.9", "zipf, 40 % asked once", "zipf and bulk scans")  # where 2q must be better, by POINTS
POINTS = 4.5


def measure(report: Report) -> None:
    for name, make in TRACES.items():
        trace = make()
        for share in SHARES:
            capacity = int(sizes(trace).mean() + KEY_BYTES + ITEM_BYTES) * QUESTIONS // share
            what = f"{name}, 1/{share} fits"
            lru, two_queues = (hit_ratio(trace, capacity, policy) * 100 for policy in ("lru", "2q"))
            report.add(0, f"{what}: lru", lru, "%")
            report.add(0, f"{what}: 2q", two_queues, "%")
            gain = two_queues - lru
            report.add(0, f"{what}: gain", gain, "points", at_least=POINTS if name in GAINS else None)


def hit_ratio(trace: Trace, max_bytes: int, policy: Policy) -> float:
    queues, hits = Queues(max_bytes, policy), 0
    for number, size in zip(trace.tolist(), sizes(trace).tolist(), strict=True):
        name = str(number)
        if queues.find(name) is not None:
            hits += 1
        else:
            queues.add(Item(name, b"", 0.0, size + KEY_BYTES + ITEM_BYTES))
    return hits / len(trace)
