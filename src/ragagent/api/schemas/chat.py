"""A chat: its messages, and what is asked of the answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictStr

from ragagent.api.schemas.asking import Asking
from ragagent.api.schemas.body import Schema
from ragagent.api.schemas.fields import Name
from ragagent.errors import Invalid
from ragagent.types import Message


class ContentPart(Schema):
    type: Name
    text: StrictStr | None = None


class ChatMessage(Schema):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: StrictStr | Annotated[list[ContentPart], Field(max_length=1000, fail_fast=True)] | None = None

    def message(self, position: int) -> Message:
        """Return it as a plain message. Raises Invalid for what is not text."""
        if self.role in ("tool", "function"):
            raise Invalid(f"'messages.{position}.role': '{self.role}' is not supported.", param="messages")
        text = self.content or ""
        if isinstance(text, list):
            for part in text:
                if part.type != "text":
                    raise Invalid(
                        f"'messages.{position}.content': parts of type '{part.type}' are not supported, only 'text'.",
                        param="messages",
                    )
            text = "\n".join(part.text or "" for part in text)
        role: Literal["system", "user", "assistant"] = "system"
        if self.role == "user" or self.role == "assistant":
            role = self.role
        return Message(role, text)


class StreamOptions(Schema):
    include_usage: bool = False


class ChatCompletion(Asking):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000, fail_fast=True)]
    stream_options: StreamOptions = StreamOptions()
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None  # its name until 2024, which most servers and clients keep
    n: int = 1
