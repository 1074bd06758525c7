"""One or several servers: which of them gets which request, and how many requests at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence

from tasks.engines.base import ChatRequest, Completion, EngineError
from tasks.engines.openai_http.chat_server import ChatServer
from tasks.engines.openai_http.concurrency import Places

logger = logging.getLogger(__name__)

_MAX_CONVERSATIONS = 65_536
"""Those begun last that are remembered: far more than are ever in play."""
_LOOK_EVERY_S = 1.0
_FIRST_PLACES = 16
"""Requests in flight at each server in the beginning: few enough for a hosted API's smallest plan."""
_FIRST_PLACES_OF_VLLM = 128
"""At a vLLM, by default half of what it works at: it queues what it cannot use yet, turns nothing away, and its figures
say when there are too many."""


class Fleet:
    """Servers between `open` and `close`. A conversation stays where it began, since that server has its beginning in
    its cache; a new one goes to the server that is asked least.
    """

    def __init__(self, servers: Sequence[ChatServer]) -> None:
        self.servers = list(servers)
        self._homes: OrderedDict[str, ChatServer] = OrderedDict()
        self._places: Places | None = None
        self._watch: asyncio.Task[None] | None = None

    def places(self, most: int) -> Places:
        """Places for requests in flight, whose number follows what the servers say from now on."""
        all_vllm = all(server.is_vllm for server in self.servers)
        first = _FIRST_PLACES_OF_VLLM if all_vllm else _FIRST_PLACES
        self._places = Places(most, min(most, first * len(self.servers)))
        if self._watch is None and all_vllm:
            self._watch = asyncio.get_running_loop().create_task(self._follow_load())
        return self._places

    def overloaded(self) -> None:
        """A server has said that it is asked too much."""
        if self._places is not None:
            self._places.refused()

    async def chat(self, request: ChatRequest, model: str, servers: Sequence[ChatServer] | None = None) -> Completion:
        """The reply of a model that some of the servers have, by default all of them; see `ChatServer.chat`."""
        completion = await self._home_of(request.conversation, servers or self.servers).chat(request, model)
        if self._places is not None:
            self._places.finished(completion.completion_tokens)
        return completion

    async def close(self) -> None:
        """Hang up everywhere. Safe to call twice."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.wait([watch])
        for server in self.servers:
            await server.close()

    def _home_of(self, conversation: str, servers: Sequence[ChatServer]) -> ChatServer:
        if len(servers) == 1:
            return servers[0]
        home = self._homes.get(conversation)
        if home is None or home not in servers or not home.is_up:
            up = [server for server in servers if server.is_up] or servers
            home = min(up, key=lambda server: server.num_asked)
        if conversation:
            self._homes[conversation] = home
            self._homes.move_to_end(conversation)
            if len(self._homes) > _MAX_CONVERSATIONS:
                self._homes.popitem(last=False)
        return home

    async def _follow_load(self) -> None:
        """Ask now and then how busy the servers are. One that does not say is left out."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                loads = [await server.load() for server in self.servers if server.is_up]
            except EngineError as error:
                logger.debug("no metrics: %s", error)
                continue
            if self._places is not None:
                self._places.crowded(
                    sum(load.running for load in loads),
                    sum(load.waiting for load in loads),
                    max((load.cache_share for load in loads), default=0.0),
                )
