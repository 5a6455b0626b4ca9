"""From a name in the configuration to the class that speaks for it: the only place that knows them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ragagent import config
from ragagent.providers import wordllama
from ragagent.providers.base import Embedder, Generator
from ragagent.providers.embedders import Embedders
from ragagent.providers.extractive import Extractive
from ragagent.providers.openai import OpenAIEmbedder, OpenAIGenerator

EMBEDDERS: Mapping[str, Callable[[config.Embedder], Embedder]] = {
    "wordllama": wordllama.WordLlama,
    "openai": OpenAIEmbedder,
}
GENERATORS: Mapping[str, Callable[[config.Generator], Generator]] = {
    "extractive": Extractive,
    "openai": OpenAIGenerator,
}


def preload(settings: Iterable[config.Embedder]) -> None:
    """Read what processes can share. Call it before the fork; it starts no thread and opens no connection."""
    if any(each.provider == "wordllama" for each in settings):
        wordllama.load()


def embedders(settings: config.Config) -> Embedders:
    """Return all that are configured. The class that speaks for one opens its connections when it is first used."""
    return Embedders(embedder(settings.embedder), [embedder(each) for each in settings.embedders.values()])


def embedder(settings: config.Embedder) -> Embedder:
    return EMBEDDERS[settings.provider](settings)


def generator(settings: config.Generator) -> Generator:
    return GENERATORS[settings.provider](settings)
