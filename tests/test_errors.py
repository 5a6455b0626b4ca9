"""The error tree, and the table that turns each of them into a status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ragagent import errors
from ragagent.api.problems import STATUS, status_of
from ragagent.errors import Invalid, RagagentError


def tree(root: type[RagagentError] = RagagentError) -> Iterator[type[RagagentError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_class_has_a_code_of_its_own_with_a_status(kind: type[RagagentError]) -> None:
    assert "code" in vars(kind)
    assert kind.code in STATUS


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in tree()]
    assert len(set(codes)) == len(codes)


def test_a_narrower_code_keeps_the_status_of_its_class() -> None:
    assert status_of(Invalid("No.", code="unknown_attribute")) == STATUS["invalid_value"]


def test_an_error_carries_its_sentence_its_place_and_its_pause() -> None:
    error = errors.Limited("Slow down.", param="x", retry_after=2.5)
    assert (str(error), error.message, error.param, error.retry_after) == ("Slow down.", "Slow down.", "x", 2.5)
    assert (error.code, Invalid("No.", code="mine").code, Invalid.code) == (
        errors.Limited.code,
        "mine",
        "invalid_value",
    )


def test_exit_codes_are_the_ones_that_init_systems_are_configured_with() -> None:
    found = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert found == {
        "EXIT_OK": 0,
        "EXIT_CONFIG": 1,
        "EXIT_USAGE": 2,
        "EXIT_CANNOT_START": 3,
        "EXIT_ALL_FAILING": 4,
    }


@pytest.mark.parametrize("kind", [*tree()], ids=lambda kind: str(kind.__name__))
def test_an_error_crosses_to_another_process_as_it_was(kind: type[RagagentError]) -> None:
    there = errors.unpacked(errors.packed(kind("It is so.", param="model", code="so", retry_after=2.5)))
    assert type(there) is kind
    assert (there.message, there.param, there.code, there.retry_after) == ("It is so.", "model", "so", 2.5)


def test_an_adapters_own_kind_of_an_error_arrives_as_what_it_is_a_kind_of() -> None:
    class Refused(errors.Upstream):
        def __init__(self, reason: str) -> None:
            super().__init__(f"The endpoint said {reason}.")

    there = errors.unpacked(errors.packed(Refused("no")))
    assert (type(there), there.message) == (errors.Upstream, "The endpoint said no.")


def test_an_error_of_another_release_says_that_something_does_not_answer() -> None:
    packed = {**errors.packed(errors.Invalid("No.")), "kind": "Unheard"}
    assert type(errors.unpacked(packed)) is errors.Unavailable
