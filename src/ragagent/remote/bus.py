"""What one process has to tell all others that share the Redis: a word on one channel.

A word only hastens what its hearers would find out for themselves: it may be lost, and never has to be sent again. Who
hears from the bus also hears that it was lost, by `on_join`: called whenever the subscription begins, so that what may
have been missed is looked up. The subscription has a connection of its own, which is asked for a sign of life each
second that is silent. A server that is away costs a try now and then, off the way of every request.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing

from redis.asyncio.client import PubSub

from ragagent.remote.connection import NoReply, Remote

HEARTBEAT_SECONDS = 1.0
CONNECT_SECONDS = 1.0
PAUSE_SECONDS = (0.1, 2.0)  # before the next try, growing from the first to the second

# KEYS: what remembers the last word that must not be missed. ARGV: that word's token or "", the channel, the word.
_TELL = """
if ARGV[1] ~= '' then
  redis.call('SET', KEYS[1], ARGV[1])
end
return redis.call('PUBLISH', ARGV[2], ARGV[3])
"""

log = logging.getLogger(__name__)


class Bus:
    """The channel `name` of the database that `remote` speaks to.

    A word may come with a token: who joins asks `token` for the last one, and knows by it whether he has missed a word.
    """

    def __init__(self, remote: Remote, name: str = "rag:purge") -> None:
        self._remote = remote
        self._last = f"{name}d"  # In the database; its name is none that a purge of the cache matches.
        self._channel = f"{name}:{remote.database}"
        self._listener: asyncio.Task[None] | None = None
        self.is_joined = False
        self._is_closed = False

    def start(self, on_word: Callable[[bytes], None], on_join: Callable[[], None]) -> None:
        """Hear words from now on. Both are called in the event loop, and must be quick."""
        self._listener = asyncio.create_task(self._listen(on_word, on_join), name="bus")

    async def aclose(self, timeout_seconds: float = 1.0) -> None:
        self._is_closed = True  # As well: redis-py can lose a cancellation, and this client knows no gate.
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener], timeout=timeout_seconds)

    async def tell(self, word: str, token: str = "") -> bool:
        """Say a word to all, oneself included; False: Redis has not confirmed it."""
        return not isinstance(await self._remote.run(_TELL, [self._last], [token, self._channel, word]), NoReply)

    async def token(self) -> str | NoReply | None:
        """Return the token of the last word that had one; None: there was none, or the server has lost it."""
        reply = await self._remote.get(self._last)
        return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply

    async def _listen(self, on_word: Callable[[bytes], None], on_join: Callable[[], None]) -> None:
        pause, longest = PAUSE_SECONDS
        while not self._is_closed:
            try:
                await self._subscribed(on_word, on_join)
            except Exception as exc:  # Of redis-py's as well: the bus is never worth a worker.
                if self.is_joined:
                    log.info("The bus to the other workers was lost (%s).", type(exc).__name__)
                    pause = PAUSE_SECONDS[0]
                    await self._remote.check()  # Where nobody asks anything, nobody else would notice.
            self.is_joined = False
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # Workers lose it together.
            pause = min(2 * pause, longest)

    async def _subscribed(self, on_word: Callable[[bytes], None], on_join: Callable[[], None]) -> None:
        """Hear until the connection is lost, which raises."""
        async with aclosing(self._remote.dedicated()) as client, aclosing(client.pubsub()) as channel:
            async with asyncio.timeout(CONNECT_SECONDS):
                await channel.subscribe(self._channel)
                await channel.get_message(timeout=CONNECT_SECONDS)  # the server's confirmation: from here on we hear
            self.is_joined = True
            on_join()
            await self._hear(channel, on_word)

    async def _hear(self, channel: PubSub, on_word: Callable[[bytes], None]) -> None:
        is_asked = False
        while True:
            message = await channel.get_message(timeout=HEARTBEAT_SECONDS)
            if message is not None:
                is_asked = False
                if message["type"] == "message":
                    on_word(message["data"])
            elif is_asked:
                raise TimeoutError
            else:
                is_asked = True
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await channel.ping()
