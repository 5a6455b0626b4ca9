"""Which questions have been answered, by what they say: bounded, the least recently used first to go.

A namespace is everything else that an answer depends on, so only questions of one namespace can be twins. No answer
stands here, and nothing by which one is found: the question's text, from which its key is made when it is needed.
"""

from __future__ import annotations

from collections import OrderedDict

MAX_CHARS = 1000  # Longer questions have no twins, and would make a bound on their number none on memory.


class Twins:
    """At most `in_all` questions, and `in_one` of one namespace. One event loop owns it: no lock."""

    def __init__(self, in_one: int, in_all: int) -> None:
        self._in_one = in_one
        self._in_all = in_all
        self._spaces: OrderedDict[str, OrderedDict[str, str]] = OrderedDict()  # namespace: wording: question
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, namespace: str, wording: str) -> str | None:
        """Return the question that was answered and says this; it is then the most recently used."""
        space = self._spaces.get(namespace)
        question = space.get(wording) if space is not None else None
        if space is not None and question is not None:
            space.move_to_end(wording)
            self._spaces.move_to_end(namespace)
        return question

    def put(self, namespace: str, wording: str, question: str) -> None:
        if len(question) > MAX_CHARS:
            return
        space = self._spaces.setdefault(namespace, OrderedDict())
        self._count += wording not in space
        space[wording] = question
        space.move_to_end(wording)
        self._spaces.move_to_end(namespace)
        if len(space) > self._in_one:
            space.popitem(last=False)
            self._count -= 1
        while self._count > self._in_all:
            self._evict()

    def drop(self, namespace: str, wording: str) -> None:
        space = self._spaces.get(namespace)
        if space is not None and space.pop(wording, None) is not None:
            self._count -= 1
            if not space:
                del self._spaces[namespace]

    def _evict(self) -> None:
        namespace, space = next(iter(self._spaces.items()))
        space.popitem(last=False)
        self._count -= 1
        if not space:
            del self._spaces[namespace]
