"""Open addressing in a small piece of memory: crowded, overfull, and torn."""

from __future__ import annotations

from ragagent.limits import slots
from ragagent.limits.gcra import MAX_LEVEL, MINUTE, SECOND
from ragagent.limits.slots import RATE_WINDOW, RATES, SEAT_WINDOW, RateSlots, SeatSlots, digest

NOW = 10**12


def rates() -> RateSlots:
    return RateSlots(memoryview(bytearray(slots.RATES_SIZE)))


def seats() -> SeatSlots:
    return SeatSlots(memoryview(bytearray(slots.SEATS_SIZE)))


def colliding(count: int) -> list[str]:
    """Return keys whose windows begin at the same slot."""
    found: dict[int, list[str]] = {}
    n = 0
    while True:
        key = f"key-{n}"
        group = found.setdefault(digest(key) % RATES, [])
        group.append(key)
        if len(group) == count:
            return group
        n += 1


def test_a_level_runs_out_with_time() -> None:
    table = rates()
    assert table.get("a", NOW) == (0, False)
    table.put("a", NOW, MINUTE, is_ours=True)
    assert table.get("a", NOW + SECOND) == (MINUTE - SECOND, True)
    assert table.get("a", NOW + MINUTE) == (0, False)
    table.put("a", NOW, MINUTE, is_ours=False)
    assert table.get("a", NOW) == (MINUTE, False)


def test_keys_of_one_window_do_not_meet_and_one_that_has_run_out_makes_room() -> None:
    table, keys = rates(), colliding(3)
    for n, key in enumerate(keys, start=1):
        table.put(key, NOW, n * SECOND, is_ours=True)
    assert [table.get(key, NOW)[0] for key in keys] == [SECOND, 2 * SECOND, 3 * SECOND]
    table.put(keys[2], NOW, 9 * SECOND, is_ours=True)
    later = NOW + 2 * SECOND  # The first two slots are free: the third key must not come to lie in two of them.
    table.put(keys[2], later, 5 * SECOND, is_ours=True)
    assert table.get(keys[2], later)[0] == 5 * SECOND
    table.put(keys[0], later, SECOND, is_ours=True)
    assert [table.get(key, later)[0] for key in keys] == [SECOND, 0, 5 * SECOND]


def test_what_finds_no_slot_is_not_counted_and_hurts_nobody() -> None:
    table = rates()
    memory = table._memory
    home = digest("late") % RATES
    for n in range(RATE_WINDOW):  # strangers in all of its window
        slots._NUMBER.pack_into(memory, (home + n) * 16, 1000 + n)
        slots._NUMBER.pack_into(memory, (home + n) * 16 + 8, NOW + MINUTE)
    before = bytes(memory)
    table.put("late", NOW, SECOND, is_ours=True)
    assert table.get("late", NOW) == (0, False)
    assert bytes(memory) == before


def test_a_debt_ends_within_a_day_and_a_time_that_no_one_wrote_is_none() -> None:
    table = rates()
    table.put("a", NOW, 10 * MAX_LEVEL, is_ours=True)
    assert table.get("a", NOW)[0] == MAX_LEVEL
    assert table.get("a", NOW - MINUTE) == (0, False)


def test_the_last_slots_have_a_whole_window() -> None:
    table, places = rates(), seats()
    for n in range(20_000):
        table.put(f"{n}", NOW, MINUTE, is_ours=True)
    for n in range(3000):
        places.sit(f"{n}", 10**9, "me", NOW, NOW + MINUTE)
    assert places.held("1", 10**9, NOW) == 1


def test_seats_are_counted_held_and_given_up() -> None:
    table = seats()
    for holder in ("a", "b", "c"):
        table.sit("key", 4, holder, NOW, NOW + SECOND)
    table.sit("other", 4, "a", NOW, NOW + SECOND)
    assert (table.held("key", 4, NOW), table.held("other", 4, NOW)) == (3, 1)
    table.sit("key", 4, "b", NOW, NOW + MINUTE)  # again: its own
    table.sit("key", 4, "a", NOW, 0)
    table.sit("key", 4, "a", NOW, 0)
    table.sit("key", 4, "never seated", NOW, 0)
    assert table.held("key", 4, NOW) == 2
    assert table.held("key", 4, NOW + 2 * SECOND) == 1


def test_seats_end_where_their_window_does() -> None:
    table = seats()
    for n in range(SEAT_WINDOW + 10):
        table.sit("key", 10**9, f"{n}", NOW, NOW + SECOND)
    assert table.held("key", 10**9, NOW) == SEAT_WINDOW
