from __future__ import annotations

from typing import Any

import pytest

from ragagent.errors import ConfigError
from ragagent.remote.address import parse

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "service", "options"),
    [
        ("redis://", "single", [("localhost", 6379)], "", {}),
        ("redis://cache:7000/3", "single", [("cache", 7000)], "", {"db": 3}),
        (
            "redis://me:p%40ss@[::1]:7000?db=2",
            "single",
            [("::1", 7000)],
            "",
            {"username": "me", "password": "p@ss", "db": 2},
        ),
        ("rediss://cache?ssl_ca_certs=/ca.crt", "single", [("cache", 6379)], "", {"ssl_ca_certs": "/ca.crt"}),
        (
            "unix://:secret@/run/redis.sock?db=1",
            "single",
            [],
            "",
            {"password": "secret", "path": "/run/redis.sock", "db": 1},
        ),
        ("redis+sentinel://a:1,b/main/2", "sentinel", [("a", 1), ("b", 26379)], "main", {"db": 2}),
        ("redis+sentinel://u:p@a/main", "sentinel", [("a", 26379)], "main", {"username": "u", "password": "p"}),
        (
            "redis+cluster://:p@a,[::1]:7001,c:7002",
            "cluster",
            [("a", 6379), ("::1", 7001), ("c", 7002)],
            "",
            {"password": "p"},
        ),
        ("redis+cluster://a/0?socket_timeout=2", "cluster", [("a", 6379)], "", {"db": 0, "socket_timeout": 2.0}),
        ("redis://a?decode_responses=1", "single", [("a", 6379)], "", {}),
    ],
)
def test_a_url_says_what_is_there(
    url: str, kind: str, hosts: list[tuple[str, int]], service: str, options: dict[str, Any]
) -> None:
    address = parse(url)
    assert (address.kind, list(address.hosts), address.service) == (kind, hosts, service)
    assert address.options == options


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
def test_an_s_means_tls(scheme: str) -> None:
    assert parse(f"{scheme.replace('redis', 'rediss')}://a/{'main' if 'sentinel' in scheme else ''}").is_encrypted
    assert not parse(f"{scheme}://a/{'main' if 'sentinel' in scheme else ''}").is_encrypted


def test_sentinels_may_have_a_password_of_their_own() -> None:
    address = parse("redis+sentinel://:of-redis@a/main?sentinel_username=watch&sentinel_password=of-sentinel")
    assert address.sentinel_options == {"username": "watch", "password": "of-sentinel"}
    assert address.options == {"password": "of-redis"}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://:hunter2@127.0.0.1/", "scheme"),
        ("hunter2", "scheme"),
        ("redis://:hunter2/x@127.0.0.1:6379", "percent-encoded"),
        ("redis://:hunter2#x@127.0.0.1:6379", "percent-encoded"),
        ("redis://:[hunter2@127.0.0.1", "percent-encoded"),
        ("redis://:hunter2@127.0.0.1:99999", "65535"),
        ("redis://:hunter2@a,b", "redis\\+cluster"),
        ("redis://:hunter2@a/cache", "number of a database"),
        ("redis://:hunter2@a?socket_timeout=soon", "socket_timeout"),
        ("redis://:hunter2@a?nonsense=hunter2", "nonsense"),
        ("redis://:hunter2@a?sentinel_password=hunter2", "sentinel_password"),
        ("unix://:hunter2@", "socket"),
        ("redis+sentinel://:hunter2@a:26379", "mymaster"),
        ("redis+cluster://:hunter2@a/1", "database 0"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        parse(url)
    assert "redis.url" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in repr(caught.value.__cause__)


def test_what_it_holds_is_not_in_its_repr() -> None:
    assert PASSWORD not in repr(parse(f"redis+sentinel://:{PASSWORD}@a/main?sentinel_password={PASSWORD}"))
