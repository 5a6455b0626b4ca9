from __future__ import annotations

import typing

from ragagent import config
from ragagent.providers import registry
from ragagent.providers.extractive import Extractive
from ragagent.providers.openai import OpenAIEmbedder, OpenAIGenerator
from ragagent.providers.wordllama import WordLlama

URL = "http://127.0.0.1:9/v1"


def test_every_provider_that_the_configuration_knows_has_a_class() -> None:
    assert set(typing.get_args(typing.get_type_hints(config.Embedder)["provider"])) == set(registry.EMBEDDERS)
    assert set(typing.get_args(typing.get_type_hints(config.Generator)["provider"])) == set(registry.GENERATORS)


def test_the_name_decides_the_class() -> None:
    assert isinstance(registry.embedder(config.Embedder()), WordLlama)
    assert isinstance(registry.generator(config.Generator()), Extractive)
    assert isinstance(registry.embedder(config.Embedder(provider="openai", base_url=URL)), OpenAIEmbedder)
    assert isinstance(registry.generator(config.Generator(provider="openai", base_url=URL)), OpenAIGenerator)


def test_preloading_an_endpoint_does_nothing() -> None:
    registry.preload([config.Embedder(provider="openai", base_url=URL)])
