"""Where Redis is, read from `redis.url`. No client and no socket: a reload checks it before any process is forked.

    redis://[user:password@]host[:port][/db]                                  one server; rediss:// with TLS
    unix://[user:password@]/path/to/redis.sock[?db=0]                         the same, on this machine
    redis+sentinel://[user:password@]host[:port],host[:port].../service[/db]  the primary that these sentinels name
    redis+cluster://[user:password@]host[:port],host[:port]...                the cluster that these nodes belong to

rediss+sentinel:// and rediss+cluster:// are the last two with TLS. Options of redis-py follow a question mark, as in
?ssl_ca_certs=/etc/redis/ca.crt; `sentinel_username` and `sentinel_password` are for the sentinels themselves.

A URL holds a password, and one that was not percent-encoded may stand anywhere in it: no message quotes any part of it
but the names of options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url

from ragagent.errors import ConfigError

Kind = Literal["single", "sentinel", "cluster"]

SCHEMES: Mapping[str, tuple[Kind, type[Connection] | type[UnixDomainSocketConnection]]] = {
    "redis": ("single", Connection),
    "rediss": ("single", SSLConnection),
    "unix": ("single", UnixDomainSocketConnection),
    "redis+sentinel": ("sentinel", Connection),
    "rediss+sentinel": ("sentinel", SSLConnection),
    "redis+cluster": ("cluster", Connection),
    "rediss+cluster": ("cluster", SSLConnection),
}
PORT = 6379
SENTINEL_PORT = 26379
OF_SENTINELS = "sentinel_"


@dataclass(frozen=True, slots=True)
class Address:
    """`hosts` are of servers, sentinels or nodes; `options` are those of redis-py's connections to the servers."""

    kind: Kind
    connection_class: type[Connection] | type[UnixDomainSocketConnection]
    hosts: tuple[tuple[str, int], ...]
    service: str
    options: Mapping[str, Any] = field(repr=False)
    sentinel_options: Mapping[str, Any] = field(repr=False)

    @property
    def is_encrypted(self) -> bool:
        return self.connection_class is SSLConnection


def parse(url: str) -> Address:
    """Raises ConfigError: it is no URL of these forms."""
    parts = _split(url)
    if parts.scheme not in SCHEMES:
        raise _wrong(f"its scheme is none of {', '.join(SCHEMES)}")
    kind, connection_class = SCHEMES[parts.scheme]
    options = _options(parts.query)
    sentinel_options = {
        name.removeprefix(OF_SENTINELS): options.pop(name) for name in list(options) if name.startswith(OF_SENTINELS)
    }
    if sentinel_options and kind != "sentinel":
        raise _wrong(f"option '{OF_SENTINELS}{next(iter(sentinel_options))}' is for redis+sentinel:// only")
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    options |= {name: unquote(value) for name, value in (("username", user), ("password", password)) if value}
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            raise _wrong("the path of the socket is missing, as in unix:///run/redis/redis.sock")
        address = Address(kind, connection_class, (), "", options | {"path": unquote(parts.path)}, {})
    else:
        port = SENTINEL_PORT if kind == "sentinel" else PORT
        found = tuple(_host(part, port) for part in hosts.split(","))
        service, number = _path(kind, parts.path)
        if number is not None:
            options.setdefault("db", number)
        if kind == "single" and len(found) > 1:
            raise _wrong("several hosts need redis+sentinel:// or redis+cluster://")
        address = Address(kind, connection_class, found, service, options, sentinel_options)
    _check_options(address)
    return address


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise _wrong("it cannot be read; in a password all but letters and digits must be percent-encoded") from None


def _options(query: str) -> dict[str, Any]:
    """Return the options with the types that redis-py gives them."""
    try:
        options = dict(parse_url(f"redis://?{query}"))
    except ValueError:
        raise _wrong(f"one of its options has no legal value: {', '.join(parse_qs(query))}") from None
    options.pop("decode_responses", None)  # it would turn values into text
    return options


def _path(kind: Kind, path: str) -> tuple[str, int | None]:
    """Return the service that sentinels know and the number of the database, where there are such."""
    steps = [unquote(step) for step in path.split("/") if step]
    service = steps.pop(0) if kind == "sentinel" and steps else ""
    if kind == "sentinel" and not service:
        raise _wrong("the service is missing, as in redis+sentinel://host:26379/mymaster")
    if len(steps) > 1 or (steps and not steps[0].isdecimal()):
        raise _wrong("what follows the host is not the number of a database")
    number = int(steps[0]) if steps else None
    if kind == "cluster" and number:
        raise _wrong("a cluster has only database 0")
    return service, number


def _host(part: str, default_port: int) -> tuple[str, int]:
    """Read host, host:port, [v6] or [v6]:port."""
    name, colon, port = part.rpartition(":") if not part.endswith("]") else (part, "", "")
    if not colon:
        name, port = part, str(default_port)
    name = unquote(name).removeprefix("[").removesuffix("]")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise _wrong("a port is no number from 1 to 65535; in a password all but letters and digits is percent-encoded")
    return name or "localhost", int(port)


def _check_options(address: Address) -> None:
    """Make a connection, which opens nothing: an option that redis-py does not know would fail at every connect."""
    options = {name: value for name, value in address.options.items() if name != "max_connections"}
    try:
        address.connection_class(**options)
        Connection(**address.sentinel_options)
    except TypeError:
        raise _wrong(f"one of its options is not known to redis-py: {', '.join(sorted(options))}") from None
    except Exception as exc:
        raise _wrong(f"redis-py refuses its options ({type(exc).__name__})") from None


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"Config key 'redis.url' is not a Redis URL: {why}.")
