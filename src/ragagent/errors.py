"""The error tree. Every failure that may reach a user is one of these; anything else is a bug and is answered as one.

    RagagentError
    ├── Invalid          the request is wrong, and says where            (param, value)
    │   └── TooLarge     ... in size
    ├── Unauthorized     no key, or one that we do not know
    ├── Forbidden        a known key that may not do this
    ├── NotFound         no such thing, or none that this key may see
    ├── Conflict         the thing is in a state that does not allow it
    ├── Limited          too much, too fast: come back in `retry_after` seconds
    │   └── OverQuota    ... or more than there is room for: coming back does not help
    ├── Unavailable      a part that we depend on cannot answer now     (retry_after)
    │   └── Upstream     ... and it is a model endpoint
    ├── StorageFull      the disk takes no more; reads go on
    └── Damaged          data on disk is not what was written

An adapter translates foreign errors where it touches the technology (`raise Unavailable(...) from exc`).
`api/problems.py` holds the one table from `code` to HTTP status. Messages are sentences that name the thing and the
value; they are shown to users, so they carry no secret and no path outside the data directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Exit codes are the vocabulary between the supervisor, its children and the init system.
EXIT_OK = 0
EXIT_CONFIG = 1  # the configuration is wrong: restarting cannot help
EXIT_USAGE = 2
EXIT_CANNOT_START = 3  # the release booted but could not get ready
EXIT_ALL_FAILING = 4  # every worker keeps dying


class RagagentError(Exception):
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if code is not None:
            self.code = code


class Invalid(RagagentError):
    code = "invalid_value"


class TooLarge(Invalid):
    code = "too_large"


class Unauthorized(RagagentError):
    code = "invalid_api_key"


class Forbidden(RagagentError):
    code = "forbidden"


class NotFound(RagagentError):
    code = "not_found"


class Conflict(RagagentError):
    code = "conflict"


class Limited(RagagentError):
    code = "rate_limit_exceeded"


class OverQuota(Limited):
    code = "insufficient_quota"


class Unavailable(RagagentError):
    code = "unavailable"


class Upstream(Unavailable):
    code = "upstream_error"


class StorageFull(RagagentError):
    code = "insufficient_storage"


class Damaged(RagagentError):
    code = "damaged"


class ConfigError(RagagentError):
    """The configuration is wrong. Raised before any process starts, or by a reload that then changes nothing."""

    code = "invalid_config"


def packed(exc: RagagentError) -> dict[str, object]:
    """Return the error as plain data, for another process to raise: the class of this tree that it belongs to."""
    kind = next(kind for kind in type(exc).__mro__ if kind.__module__ == __name__)
    return {
        "kind": kind.__name__,
        "message": exc.message,
        "param": exc.param,
        "code": exc.code,
        "retry_after": exc.retry_after,
    }


def unpacked(data: Mapping[str, Any]) -> RagagentError:
    """Return the error that was packed; of a kind that this release does not know, Unavailable."""
    kind = _kinds().get(data["kind"], Unavailable)
    return kind(data["message"], param=data["param"], code=data["code"], retry_after=data["retry_after"])


def _kinds() -> dict[str, type[RagagentError]]:
    return {
        name: kind for name, kind in globals().items() if isinstance(kind, type) and issubclass(kind, RagagentError)
    }
