"""What a cached value is filed under: `rag:1:{tenant}:kind:sha256`, the hash being of all that the value depends on.

The versions in a key are the invalidation. `store_seq` is SQLite's write counter and `manifest_seq` what the index
shows; a write or a publish moves one of them, and from then on nobody asks for the old key. So a stale answer needs
no message to become unreachable. What was erased must also leave the memory of every tier: for that a key carries
tags, the stores that its value was read from, and when; see `erasing/tags.py`.

Redis Cluster hashes only what stands between the first braces, so one tenant's keys share a slot. Those that belong to
no tenant have braces around their own hash, and spread. Either way what is kept beside a value, under a longer name,
shares its slot.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

from ragagent.cache.erasing.tags import Tag
from ragagent.cache.recipe import recipe

Kind = Literal["embedding", "retrieval", "answer"]
Version = tuple[str, int, int]  # (name of the store's index, store_seq, manifest_seq)

PREFIX = "rag:1:"  # 1: the anatomy below. Sessions and limits live under other prefixes: a purge must never match them.
SHARED = "-"  # the tenant of what depends on no one's documents


@dataclasses.dataclass(frozen=True)
class Key:
    """A value's identity. `text` is an unambiguous serialisation of all that the value depends on, tenant apart.

    `tags` are not part of it: they say what has to be erased for the value to have to go.
    """

    kind: Kind
    tenant: str
    text: str
    tags: tuple[Tag, ...] = ()

    @cached_property
    def rendered(self) -> str:
        """The key as both tiers know it: about 115 ASCII characters, no user text in them."""
        # The prefix shows 64 bits of the tenant; all of it is in here. Its digest has a fixed length, so that tenant
        # and text cannot run into each other.
        owner = hashlib.sha256(self.tenant.encode("utf-8", "surrogatepass")).digest()
        digest = hashlib.sha256(owner + self.text.encode("utf-8", "surrogatepass")).hexdigest()
        if self.tenant == SHARED:
            digest = f"{{{digest}}}"
        return f"{tenant_prefix(self.tenant)}{self.kind}:{digest}"


def tenant_prefix(tenant: str) -> str:
    """Return what every rendered key of `tenant` begins with: the argument of a purge."""
    if tenant == SHARED:
        return f"{PREFIX}{SHARED}:"
    return f"{PREFIX}{{{hashlib.sha256(tenant.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}}}:"


def embedding(model: str, text: str) -> Key:
    """Key of one vector. Shared by all tenants: it depends on the model and the text, and reveals neither."""
    return Key("embedding", SHARED, _canonical([model, text]))


def retrieval(tenant: str, versions: Sequence[Version], model: str, query: str, params: Mapping[str, object]) -> Key:
    """Key of one search. `model` is the embedder's; the order of `versions` does not matter."""
    inputs = [recipe(), sorted(versions), model, query, params]
    return Key("retrieval", tenant, _canonical(inputs), _tags(versions))


def answer(
    tenant: str,
    versions: Sequence[Version],
    profile: str,
    embedder_model: str,
    generator: str,
    messages: Sequence[object],
    params: Mapping[str, object],
) -> Key:
    """Key of one answer. `messages` are `Message`s or plain mappings; the order of `versions` does not matter."""
    inputs = [recipe(), sorted(versions), profile, embedder_model, generator, messages, params]
    return Key("answer", tenant, _canonical(inputs), _tags(versions))


def _tags(versions: Sequence[Version]) -> tuple[Tag, ...]:
    return tuple(Tag(index.partition("-")[0], written, shown) for index, written, shown in sorted(set(versions)))


def _plain(value: object) -> object:
    """Spell out what JSON does not know: other mappings, and dataclasses, by name since two may have equal fields."""
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value):
        fields = [getattr(value, name) for name in value.__dataclass_fields__]
        return {type(value).__name__: fields}
    raise TypeError(f"A cache key cannot hold a {type(value).__name__}; give it plain values.")


# JSON quotes every string, so "a", "bc" and "ab", "c" stay apart; 1, 1.0, true and "1" do as well.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain).encode
