from __future__ import annotations

from ragagent.engine.answering.twins import MAX_CHARS, Twins


def test_a_question_is_found_by_what_it_says_in_its_own_namespace() -> None:
    twins = Twins(10, 10)
    twins.put("a", "who", "Who?")
    assert twins.get("a", "who") == "Who?"
    assert twins.get("a", "what") is twins.get("b", "who") is None
    twins.put("a", "who", "who")
    assert (twins.get("a", "who"), len(twins)) == ("who", 1)


def test_a_namespace_is_bounded_and_forgets_what_was_used_least_recently() -> None:
    twins = Twins(2, 10)
    for said in "abc":
        twins.put("n", said, said.upper())
        twins.get("n", "a")
    assert [twins.get("n", said) for said in "abc"] == ["A", None, "C"]
    assert len(twins) == 2


def test_all_are_bounded_and_the_namespace_that_rests_pays() -> None:
    twins = Twins(3, 4)
    for namespace in ("old", "new"):
        for said in "ab":
            twins.put(namespace, said, said)
    twins.put("new", "c", "c")
    twins.put("third", "a", "a")
    assert len(twins) == 4
    assert [twins.get("old", said) for said in "ab"] == [None, None]
    assert [twins.get("new", said) for said in "abc"] == ["a", "b", "c"]


def test_what_is_dropped_is_gone_and_an_empty_namespace_with_it() -> None:
    twins = Twins(3, 3)
    twins.put("n", "a", "A")
    for _ in range(2):
        twins.drop("n", "a")
    assert (twins.get("n", "a"), len(twins)) == (None, 0)
    for said in "abc":
        twins.put("m", said, said)
    assert len(twins) == 3


def test_a_long_question_is_not_remembered() -> None:
    twins = Twins(3, 3)
    twins.put("n", "a", "x" * (MAX_CHARS + 1))
    assert len(twins) == 0
