"""Messages of a chat as plain ones."""

from __future__ import annotations

from typing import Any

import pytest

from bodies import said
from ragagent.api.schemas.chat import ChatMessage
from ragagent.errors import Invalid


def test_the_parts_of_a_message_are_lines_of_one() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text"}, {"type": "text", "text": "b"}]
    message = said(ChatMessage, {"role": "developer", "content": parts}).message(0)
    assert (message.role, message.content) == ("system", "a\n\nb")


@pytest.mark.parametrize(
    "given", [{"role": "tool", "content": "x"}, {"role": "user", "content": [{"type": "image_url"}]}]
)
def test_a_message_that_is_not_text_is_refused_with_its_place(given: Any) -> None:
    with pytest.raises(Invalid, match=r"messages\.3"):
        said(ChatMessage, given).message(3)
