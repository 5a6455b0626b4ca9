from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from ragagent.cache import keys
from ragagent.cache.erasing.tags import Tag
from ragagent.cache.keys import Key
from ragagent.types import Comparison, Compound, Message

TEXT = st.text(max_size=8)
VERSIONS = st.lists(st.tuples(TEXT, st.integers(0, 9), st.integers(0, 9)), max_size=3)
SCALAR = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | TEXT
PARAMS = st.dictionaries(TEXT, SCALAR | st.lists(SCALAR, max_size=3), max_size=3)
RETRIEVAL = st.tuples(TEXT, VERSIONS, TEXT, TEXT, PARAMS)


@given(RETRIEVAL, RETRIEVAL)
def test_different_inputs_give_different_keys(first: Any, second: Any) -> None:
    """Repr tells 1, 1.0 and True apart, which == does not."""
    same = repr(_sorted(first)) == repr(_sorted(second))
    assert (keys.retrieval(*first).rendered == keys.retrieval(*second).rendered) == same


def _sorted(inputs: Any) -> Any:
    tenant, versions, model, query, params = inputs
    return tenant, sorted(versions), model, query, sorted(params.items())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (keys.embedding("a", "bc"), keys.embedding("ab", "c")),
        (keys.embedding("a", '","b'), keys.embedding('a","', "b")),
        (keys.retrieval("a", [], "bc", "q", {}), keys.retrieval("ab", [], "c", "q", {})),
        (keys.retrieval("t", [("s", 1, 2)], "m", "q", {}), keys.retrieval("t", [("s", 2, 2)], "m", "q", {})),
        (keys.retrieval("t", [("s", 1, 2)], "m", "q", {}), keys.retrieval("t", [("s", 1, 3)], "m", "q", {})),
        (keys.retrieval("t", [], "m", "q", {"k": 1}), keys.retrieval("t", [], "m", "q", {"k": "1"})),
        (Key("retrieval", "a", "bc"), Key("retrieval", "ab", "c")),
        (Key("retrieval", "a", "b"), Key("answer", "a", "b")),
    ],
)
def test_what_only_looks_alike_stays_apart(one: Key, other: Key) -> None:
    assert one.rendered != other.rendered


def test_the_order_of_stores_and_of_parameters_does_not_matter() -> None:
    one = keys.retrieval("t", [("a", 1, 1), ("b", 2, 2)], "m", "q", {"x": 1, "y": {"p": 1, "q": 2}})
    other = keys.retrieval("t", [("b", 2, 2), ("a", 1, 1)], "m", "q", {"y": {"q": 2, "p": 1}, "x": 1})
    assert one.rendered == other.rendered


def test_messages_and_filter_trees_are_taken_as_they_are() -> None:
    def key(role: Any, op: Any) -> str:
        tree = Compound(op, (Comparison("eq", "year", 2024), Comparison("in", "lang", ("en", "zh"))))
        params = MappingProxyType({"filter": tree})
        return keys.answer("t", [], "p", "e", "g", [Message(role, "hello")], params).rendered

    assert key("user", "and") == key("user", "and")
    assert len({key("user", "and"), key("system", "and"), key("user", "or")}) == 3


def test_what_is_not_plain_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="cannot hold a object"):
        keys.retrieval("t", [], "m", "q", {"x": object()})


ANSWER = st.tuples(TEXT, VERSIONS, TEXT, TEXT, TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=3), PARAMS)


@given(ANSWER, st.data())
def test_another_input_anywhere_is_another_answer(inputs: Any, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(inputs) - 1))
    other = list(inputs)
    other[place] = data.draw(ANSWER)[place]
    same = [repr(_ordered(given)) for given in (inputs, tuple(other))]
    assert (keys.answer(*inputs).rendered == keys.answer(*other).rendered) == (same[0] == same[1])


def _ordered(inputs: Any) -> Any:
    tenant, versions, *rest, params = inputs
    return tenant, sorted(versions), rest, sorted(params.items())


def test_other_code_makes_other_keys_of_what_depends_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> list[str]:
        each = (
            keys.embedding("m", "q"),
            keys.retrieval("t", [], "m", "q", {}),
            keys.answer("t", [], "p", "e", "g", [], {}),
        )
        return [key.rendered for key in each]

    embedding, *rest = made()
    monkeypatch.setattr(keys, "recipe", lambda: "another")
    assert made()[0] == embedding, "vectors are kept for good by the name of their model"
    assert not set(made()[1:]) & set(rest)


def test_a_key_is_filed_under_the_stores_it_was_read_from() -> None:
    key = keys.retrieval("t", [("vs_b-3", 5, 4), ("vs_a", 2, 2)], "m", "q", {})
    assert key.tags == (Tag("vs_a", 2, 2), Tag("vs_b", 5, 4))
    assert keys.embedding("m", "q").tags == ()
    assert keys.answer("t", [("vs_a", 2, 2)], "p", "e", "g", [], {}).tags == (Tag("vs_a", 2, 2),)


def test_a_key_shows_no_text_and_one_slot_per_tenant() -> None:
    key = keys.answer("acme", [("vs_1", 3, 2)], "ragagent", "e", "g", [Message("user", "secret")], {}).rendered
    assert key.startswith(keys.tenant_prefix("acme"))
    assert key.startswith("rag:1:{")
    assert key.isascii()
    assert "secret" not in key
    assert "acme" not in key


def test_keys_of_no_tenant_spread_over_the_slots_of_a_cluster_and_keep_what_stands_beside_them() -> None:
    one, other = (keys.embedding("m", text).rendered for text in ("text", "another"))
    assert one.startswith("rag:1:-:embedding:{")
    assert key_slot(one.encode()) != key_slot(other.encode())
    assert key_slot(one.encode()) == key_slot(f"{one}:lease".encode())


def test_half_a_surrogate_pair_is_a_text_like_any_other() -> None:
    assert keys.embedding("m", "\ud83d").rendered != keys.embedding("m", "\ude00").rendered
