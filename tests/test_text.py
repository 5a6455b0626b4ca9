"""What retrieval sees of a text: tokens, sentences, languages."""

from __future__ import annotations

import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragagent.text import content_tokens, count_tokens, language, sentences, tokens

texts = st.text(max_size=200)
mixed = st.text(alphabet='ab A1中文。.!? \n\t２é’"', max_size=80)


def spans(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Running runners ran", ["run", "runner", "ran"]),
        ("北京大学", ["北京", "京大", "大学"]),
        ("中", ["中"]),
        ("2018年", ["2018", "年"]),
        ("GPT4模型v2", ["gpt", "4", "模型", "v", "2"]),
        ("ＡＢＣ １２３", ["abc", "123"]),
        ("ﾃｽﾄ", ["テス", "スト"]),
        ("snake_case", ["snake", "case"]),
        ("CAFÉ café", ["café", "café"]),
        ("，。！? ", []),
        ("", []),
    ],
)
def test_tokens_are_stemmed_words_digit_runs_and_bigrams(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@given(texts)
@example("ß\u0345İ½²⑩")
def test_a_token_is_never_blank_and_never_holds_a_space(text: str) -> None:
    # Tokens are stored joined by spaces and split there again.
    assert " ".join(tokens(text)).split() == tokens(text)


@given(texts)
def test_a_token_never_mixes_words_digits_and_cjk(text: str) -> None:
    for token in tokens(text):
        kinds = {"digit" if c.isdecimal() else "cjk" if language(c) == "zh" else "word" for c in token}
        assert len(kinds) == 1, token


@given(texts, texts)
def test_a_space_between_texts_keeps_their_tokens_apart(left: str, right: str) -> None:
    assert tokens(f"{left} {right}") == tokens(left) + tokens(right)


def test_tokens_are_the_same_from_many_threads_at_once() -> None:
    words = [f"running{'s' * (i % 3)} nationalities{i % 7}" for i in range(300)]
    expected = [tokens(word) for word in words]
    wrong: list[int] = []

    def check() -> None:
        if [tokens(word) for word in words] != expected:
            wrong.append(1)

    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the capital of France?", {"capit", "franc"}),
        ("法国的首都是哪里？", {"法国", "国的", "的首", "首都", "都是"}),
        ("who are you", set()),
    ],
)
def test_content_tokens_leave_out_what_carries_no_meaning(text: str, expected: set[str]) -> None:
    assert content_tokens(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("一句话。两句话！三句话？", ["一句话。", "两句话！", "三句话？"]),
        ("他说：“好。”然后走了。", ["他说：“好。”", "然后走了。"]),
        ("Dr. Smith met J. Doe, e.g. twice. Then left.", ["Dr. Smith met J. Doe, e.g. twice.", "Then left."]),
        ("Version 1.2.3 is out. Get it.", ["Version 1.2.3 is out.", "Get it."]),
        ('"Stop." she said.', ['"Stop."', "she said."]),
        ("A heading\n\nA paragraph", ["A heading", "A paragraph"]),
        ("Sources of Vitamin C.\nOranges.", ["Sources of Vitamin C.", "Oranges."]),
        ("  \n ", []),
        ("no end", ["no end"]),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, expected: list[str]) -> None:
    assert spans(text) == expected


@given(mixed | texts)
def test_sentences_are_in_order_trimmed_and_lose_only_white_space(text: str) -> None:
    before = 0
    for start, end in sentences(text):
        assert before <= start < end
        assert not text[before:start].strip()
        assert text[start:end] == text[start:end].strip()
        before = end
    assert not text[before:].strip()


@pytest.mark.parametrize(("text", "expected"), [("", 0), ("four", 1), ("fours", 2), ("中文", 2), ("中文 abc", 3)])
def test_token_estimate_counts_cjk_characters_and_quarters_of_the_rest(text: str, expected: int) -> None:
    assert count_tokens(text) == expected


@given(texts, texts)
def test_token_estimate_grows_with_the_text(left: str, right: str) -> None:
    assert max(count_tokens(left), count_tokens(right)) <= count_tokens(left + right)
    assert count_tokens(left + right) <= count_tokens(left) + count_tokens(right)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is this?", "en"),
        ("这是什么？", "zh"),
        ("FAISS 的索引是什么", "zh"),
        ("What does 你好 mean in the Chinese language?", "en"),
        ("123 ?!", "en"),
        ("", "en"),
    ],
)
def test_language_is_chinese_from_a_fifth_of_the_letters(text: str, expected: str) -> None:
    assert language(text) == expected
