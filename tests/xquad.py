"""The real questions: XQuAD in English and Chinese, 240 paragraphs and 1,190 questions each.

Looked for in $RAGAGENT_TEST_DATA, else in ../shared/data beside the checkout. Where it is missing, the tests that need
it are skipped, and say so.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

DIRECTORY = Path(os.environ.get("RAGAGENT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Question:
    text: str
    paragraph: str  # the id of the paragraph that answers it
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Set:
    paragraphs: dict[str, str]
    questions: tuple[Question, ...]


def load(language: str) -> Set:
    path = DIRECTORY / f"xquad.{language}.json"
    if not path.exists():
        pytest.skip(f"{path} is missing: set RAGAGENT_TEST_DATA to a directory that holds XQuAD")
    paragraphs: dict[str, str] = {}
    questions: list[Question] = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            name = f"{article['title']}-{len(paragraphs)}"
            paragraphs[name] = paragraph["context"]
            questions += [
                Question(qa["question"], name, tuple(answer["text"] for answer in qa["answers"]))
                for qa in paragraph["qas"]
            ]
    return Set(paragraphs, tuple(questions))
