"""Who is calling: from a bearer token to a tenant and its stores, once per request."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict

from ragagent.errors import Unauthorized
from ragagent.store import keys
from ragagent.store.database import Database, Transaction
from ragagent.types import Caller

REMEMBER_SECONDS = 1.0  # a revoked key is refused by every worker within this time
REMEMBER_KEYS = 4096

ANONYMOUS = Caller()


class Access:
    def __init__(self, database: Database, pepper: bytes, *, required: bool) -> None:
        self._database = database
        self._pepper = pepper
        self._required = required
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()

    async def caller(self, token: str | None) -> Caller:
        """Return who holds the token. Raises Unauthorized.

        Where keys are optional, a token that is not one of ours is nobody's: every openai client sends some token.
        """
        if token is None or not token.startswith(keys.PREFIX):
            if not self._required:
                return ANONYMOUS
            raise Unauthorized(
                "The request carries no API key of this server. Send one as 'Authorization: Bearer rag_...'."
            )
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        if (caller := self._remembered(digest)) is None:
            caller = await self._database.view(lambda tx: self._verify(tx, token))
            self._remember(digest, caller)
        return caller

    def _verify(self, tx: Transaction, token: str) -> Caller:
        row = keys.verify(tx, self._pepper, token)
        if row is None:
            raise Unauthorized("The API key is not known, or it was revoked.")
        stores = None if row.stores is None else frozenset(row.stores)
        return Caller(row.tenant, row.id, stores, row.allowance)

    def _remembered(self, digest: bytes) -> Caller | None:
        deadline, caller = self._known.get(digest, (0.0, ANONYMOUS))
        return caller if deadline > time.monotonic() else None

    def _remember(self, digest: bytes, caller: Caller) -> None:
        self._known[digest] = (time.monotonic() + REMEMBER_SECONDS, caller)
        self._known.move_to_end(digest)
        while len(self._known) > REMEMBER_KEYS:
            self._known.popitem(last=False)
