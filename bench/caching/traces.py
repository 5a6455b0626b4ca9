"""Who asks for what, drawn from one seed: what a policy of admission and eviction is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

SEED = 20261127
REQUESTS = 200_000
QUESTIONS = 20_000
SKEW = 0.9

Trace = npt.NDArray[np.int64]


@cache
def zipf() -> Trace:
    """Return questions that differ in popularity as words do; and how popular one is says nothing about its size."""
    draw = np.random.default_rng(SEED)
    weights = 1 / np.arange(1, QUESTIONS + 1) ** SKEW
    return draw.permutation(QUESTIONS)[draw.choice(QUESTIONS, size=REQUESTS, p=weights / weights.sum())]


def asked_once() -> Trace:
    """Return questions of which 40 % are never asked again."""
    trace = zipf().copy()
    once = np.random.default_rng(SEED + 1).random(REQUESTS) < 0.4
    trace[once] = QUESTIONS + np.arange(once.sum())
    return trace


def scans() -> Trace:
    """Return questions between which a job asks 2,000 of its own, five times in a hundred thousand."""
    trace = zipf().copy()
    for first in range(8_000, REQUESTS, 10_000):
        trace[first : first + 2_000] = QUESTIONS + np.arange(first, first + 2_000)
    return trace


def drifting() -> Trace:
    """Return questions whose popularity moves on, all of it within the trace."""
    return (zipf() + np.arange(REQUESTS) // 2_000 * 37) % QUESTIONS


def rewritten() -> Trace:
    """Return the keys of questions when a write gives all of them new ones, every 10,000 requests."""
    return zipf() + np.arange(REQUESTS) // 10_000 * QUESTIONS * 10


TRACES: Mapping[str, Callable[[], Trace]] = {
    "zipf 0.9": zipf,
    "zipf, 40 % asked once": asked_once,
    "zipf and bulk scans": scans,
    "zipf that drifts": drifting,
    "zipf, new keys by writes": rewritten,
}


def sizes(trace: Trace) -> Trace:
    """Return the bytes of each request's value: 200 to 20,000, most about 1,500, and always the same of one key."""
    bits = (trace.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits ^= bits >> np.uint64(29)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    one, other = (bits >> np.uint64(40)), (bits >> np.uint64(16)) & np.uint64(0xFFFFFF)
    normal = np.sqrt(-2 * np.log((one + 1) / 2.0**24)) * np.cos(2 * np.pi * other / 2.0**24)
    found: Trace = np.clip(np.exp(7.3 + 0.9 * normal), 200, 20_000).astype(np.int64)
    return found
