from __future__ import annotations

from ragagent.cache.erasing.purges import REMEMBERED, Purges


def test_a_purge_covers_the_keys_under_its_prefix_that_were_on_their_way() -> None:
    purges = Purges()
    before = purges.number
    purges.note("rag:1:{acme}:")
    between = purges.number
    purges.note("rag:1:{other}:")
    assert purges.covers("rag:1:{acme}:answer:1", before)
    assert not purges.covers("rag:1:{acme}:answer:1", between)
    assert purges.covers("rag:1:{other}:answer:1", between)
    assert not purges.covers("rag:1:{third}:answer:1", before)
    assert not purges.covers("rag:1:{other}:answer:1", purges.number)


def test_what_is_not_remembered_may_have_been_anything() -> None:
    purges = Purges()
    for _ in range(REMEMBERED):
        purges.note("rag:1:{acme}:")
    assert not purges.covers("rag:1:{other}:answer:1", 0)
    purges.note("rag:1:{acme}:")
    assert purges.covers("rag:1:{other}:answer:1", 0)
    assert not purges.covers("rag:1:{other}:answer:1", 1)
