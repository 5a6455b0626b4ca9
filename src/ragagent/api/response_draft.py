"""The Response object of OpenAI's API: what it says of itself from its first event on, and what it becomes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ragagent.api.answers import explanation, shown_citations
from ragagent.api.replies import JSON
from ragagent.api.schemas.responses import CreateResponse
from ragagent.api.vector_stores import chunk_name
from ragagent.engine.answering.answer import Reply
from ragagent.errors import Limited, RagagentError
from ragagent.types import Answer, Evidence

Status = Literal["in_progress", "completed", "incomplete", "failed"]


@dataclass(frozen=True, slots=True)
class Draft:
    """A response under way. The ids of all its parts end in one `mark`."""

    asked: CreateResponse
    question: str
    mark: str
    created_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def id(self) -> str:
        return f"resp_{self.mark}"

    @property
    def search_id(self) -> str:
        return f"fs_{self.mark}"

    @property
    def message_id(self) -> str:
        return f"msg_{self.mark}"

    def shown(self, status: Status, output: Sequence[JSON] = (), **more: Any) -> JSON:
        asked = self.asked
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "max_tool_calls": None,
            "metadata": asked.metadata,
            "model": asked.model,
            "output": list(output),
            "parallel_tool_calls": asked.parallel_tool_calls,
            "previous_response_id": asked.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "store": asked.store,
            "temperature": asked.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": asked.tool_choice,
            "tools": [{"vector_store_ids": [], **tool.model_dump(exclude_unset=True)} for tool in asked.tools],
            "top_p": None,
            "truncation": "disabled",
            "usage": None,
            **more,
        }

    def search(self, status: Literal["in_progress", "completed"], results: Sequence[JSON] | None = None) -> JSON:
        """Return the item of the search. Its results are shown to who asks for them; None: not asked."""
        shown = None if results is None else list(results)
        return {
            "id": self.search_id,
            "type": "file_search_call",
            "status": status,
            "queries": [self.question],
            "results": shown,
        }

    def message(self, status: Literal["in_progress", "completed", "incomplete"], *content: JSON) -> JSON:
        return {
            "id": self.message_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": list(content),
        }

    def told(self, answer: Answer) -> JSON:
        """Return the item of the message as it is at its end."""
        return self.message(status_of(answer), output_text(answer))

    def finished(self, answer: Answer, reply: Reply, results: Sequence[JSON] | None) -> JSON:
        """Return what became of it."""
        status = status_of(answer)
        return self.shown(
            status,
            [self.search("completed", results), self.told(answer)],
            completed_at=int(time.time()) if status == "completed" else None,
            incomplete_details={"reason": "max_output_tokens"} if status == "incomplete" else None,
            usage=usage(answer),
            ragagent=explanation(answer, reply),
        )

    def failed(self, error: RagagentError) -> JSON:
        # OpenAI has few codes for it, and clients that check know no other; `type` is the one that we know it by.
        code = "rate_limit_exceeded" if isinstance(error, Limited) else "server_error"
        shown = {"code": code, "message": error.message, "type": error.code, "param": error.param}
        return self.shown("failed", error=shown)


def status_of(answer: Answer) -> Literal["completed", "incomplete"]:
    """Return whether it is whole, or was cut where `max_output_tokens` had run out."""
    return "incomplete" if answer.finish_reason == "length" else "completed"


def output_text(answer: Answer | None = None) -> JSON:
    """Return the part of a message that holds an answer; without one the part as it is before its first word."""
    text, citations = (answer.text, answer.citations) if answer else ("", ())
    return {"type": "output_text", "text": text, "annotations": shown_citations(citations), "logprobs": []}


def result(item: Evidence) -> JSON:
    return {
        "file_id": item.file_id,
        "filename": item.filename,
        "score": item.score,
        "attributes": dict(item.attributes),
        "text": item.text,
        "vector_store_id": item.store_id,
        "chunk_id": chunk_name(item.chunk_id),
        "start": item.start,
        "end": item.end,
    }


def usage(answer: Answer) -> JSON:
    used = answer.usage
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used.total_tokens,
    }
