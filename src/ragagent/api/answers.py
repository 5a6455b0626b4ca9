"""What chat and responses show of an answer alike: what supports its statements, and how it came about."""

from __future__ import annotations

from collections.abc import Sequence

from ragagent.api.replies import JSON
from ragagent.api.vector_stores import chunk_name
from ragagent.engine.answering.answer import Reply
from ragagent.types import Answer, Citation


def shown_citations(citations: Sequence[Citation]) -> list[JSON]:
    """Return OpenAI's `file_citation`s; `index` is where the statement ends, the rest says what supports it."""
    return [
        {
            "type": "file_citation",
            "file_id": citation.file_id,
            "filename": citation.filename,
            "index": citation.end_index,
            "start_index": citation.start_index,
            "end_index": citation.end_index,
            "quote": citation.quote,
            "chunk_id": chunk_name(citation.chunk_id),
            "source_start": citation.source_start,
            "source_end": citation.source_end,
            "score": citation.score,
        }
        for citation in citations
    ]


def explanation(answer: Answer, reply: Reply) -> JSON:
    told = {"evidence": answer.evidence_state, "cache": reply.tier, "generations": dict(answer.generations)}
    if reply.twin is None:
        return told
    return {**told, "answered_question": reply.twin.question, "similarity": round(reply.twin.similarity, 4)}
