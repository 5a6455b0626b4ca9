"""The embedded embedder: unit rows for anything, near for what is near, quiet, and safe to fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wordllama as package

from ragagent import config
from ragagent.errors import ConfigError
from ragagent.providers.wordllama import WordLlama, load

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def embedder() -> WordLlama:
    return WordLlama(config.Embedder())


async def test_rows_are_what_wordllama_itself_computes(embedder: WordLlama) -> None:
    texts = ["The library opens at nine.", "图书馆九点开门。", "a", "word " * 500]
    directory = Path(package.__file__).parent
    own = package.WordLlama.load(cache_dir=directory, disable_download=True).embed(texts, norm=True)
    np.testing.assert_allclose(await embedder.embed(texts), own, atol=1e-6)


@pytest.mark.parametrize("text", ["", "   ", "\ud800", "\0", "😀" * 10, "x" * 1_000_000], ids=ascii)
async def test_any_text_has_a_finite_unit_row(embedder: WordLlama, text: str) -> None:
    rows = await embedder.embed(["before", text, "after"])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)


async def test_a_text_has_the_same_row_in_any_company(embedder: WordLlama) -> None:
    texts = [f"Text number {number} " + "and more " * (number % 50) for number in range(1000)]
    together = await embedder.embed(texts)
    alone = np.concatenate([await embedder.embed([text]) for text in texts[::97]])
    np.testing.assert_array_equal(together[::97], alone)


async def test_no_texts_are_no_rows(embedder: WordLlama) -> None:
    assert (await embedder.embed([])).shape == (0, 256)


async def test_what_means_the_same_is_nearer(embedder: WordLlama) -> None:
    question, near, far = await embedder.embed(
        ["When does the library open?", "The library opens at nine in the morning.", "Whales are mammals of the sea."]
    )
    assert question @ near > question @ far + 0.2


@pytest.mark.parametrize("dimension", [64, 128])
async def test_a_shorter_row_is_the_beginning_of_the_whole_one(embedder: WordLlama, dimension: int) -> None:
    texts = ["When does the library open?", "The library opens at nine.", "Whales are mammals of the sea.", ""]
    short = await WordLlama(config.Embedder(dimension=dimension)).embed(texts)
    whole = (await embedder.embed(texts))[:, :dimension]
    assert short.shape == (4, dimension)
    np.testing.assert_allclose(short, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-6)
    directory = Path(package.__file__).parent
    own = package.WordLlama.load(cache_dir=directory, disable_download=True, trunc_dim=dimension)
    np.testing.assert_allclose(short[:3], own.embed(texts[:3], norm=True), atol=1e-6)
    assert short[0] @ short[1] > short[0] @ short[2] + 0.2


def test_another_dimension_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'embedder.dimension' has value '512'"):
        WordLlama(config.Embedder(dimension=512))


def test_importing_it_leaves_logging_alone() -> None:
    code = "import logging, ragagent.providers.wordllama; r = logging.getLogger(); print(r.handlers, r.level)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == f"[] {30}"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_model_that_was_used_before_a_fork_works_after_it() -> None:
    code = (
        "import os, anyio\n"
        "from ragagent import config\n"
        "from ragagent.providers.wordllama import WordLlama, load\n"
        "load()\n"
        "embedder = WordLlama(config.Embedder())\n"
        "texts = ['some text ' * 100] * 300\n"
        "if os.fork() == 0:\n"
        "    anyio.run(embedder.embed, texts)\n"
        "    os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "true"}
    output = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment, timeout=60)
    assert output.strip() == "7"


def test_the_model_is_read_once() -> None:
    assert load() is load()
