"""An OpenAI-compatible server on loopback that misbehaves in every way that it is told to.

A `Fault` is what it does in place of an answer; `FaultServer(fault, ...)` does these to the first chats, in order, and
answers the later ones. It runs in a thread of its own, so that a test may run a loop of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

Body = dict[str, Any]
Fault = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
"""Is given the request and the answer that it does not deserve."""
MODEL = {"id": "some-model", "object": "model", "owned_by": "somebody"}
STALL_S = 30.0


def answer(text: Any = "hello", finish_reason: Any = "stop", usage: Any = None, **message: Any) -> Body:
    """An answer as OpenAI has it."""
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"content": text, **message}, "finish_reason": finish_reason}],
        "usage": usage,
    }


def echo(body: Body) -> Body:
    """Says back what was asked last, counted in words."""
    said = body["messages"][-1]["content"]
    count = len(said.split())
    return answer(f"you said {said}", usage={"prompt_tokens": count, "completion_tokens": count + 2})


@dataclass(frozen=True)
class Seen:
    """A request as it came in."""

    path: str
    headers: Mapping[str, str]
    body: Body
    client: Any
    """The other end of the connection that it came by."""


class FaultServer:
    """The server, between `__enter__` and `__exit__`."""

    def __init__(
        self,
        *faults: Fault | None,
        endless: Iterable[Fault | None] = (),
        reply: Callable[[Body], Body] = echo,
        models: Iterable[Mapping[str, Any]] | None = (MODEL,),
        key: str | None = None,
        port: int = 0,
        metrics: str = "",
        loading_faults: Sequence[Fault] | None = None,
    ) -> None:
        """`loading_faults`: with these it loads its first adapters; without, it loads none."""
        self.chats: list[Seen] = []
        self.looks: list[Seen] = []
        self._faults: Iterator[Fault | None] = itertools.chain(faults, endless)
        self._reply = reply
        self._models = models
        self._key = key
        self._port = port
        self._metrics = metrics
        self._loading_faults = None if loading_faults is None else iter(loading_faults)
        self.adapters: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._check_key])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/metrics", self._measure)
        if self._loading_faults is not None:
            app.router.add_post("/v1/load_lora_adapter", self._load)
        if self._models is not None:
            app.router.add_get("/v1/models", self._list)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    @web.middleware
    async def _check_key(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self._key is not None and request.headers.get("Authorization") != f"Bearer {self._key}":
            words = f"Incorrect API key provided: {request.headers.get('Authorization', 'none')}"
            return web.json_response({"error": {"message": words, "code": "invalid_api_key"}}, status=401)
        response: web.StreamResponse = await handler(request)
        return response

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.looks.append(Seen(request.path, dict(request.headers), {}, request.transport))
        return web.json_response({"object": "list", "data": list(self._models or ())})

    async def _load(self, request: web.Request) -> web.StreamResponse:
        """As vLLM does."""
        name = (await request.json()).get("lora_name")
        if name is None or name in self.adapters:
            words = f"The lora adapter '{name}' has already been loaded." if name else "lora_name: field required"
            return web.json_response({"error": {"message": words}}, status=400)
        self.adapters.append(name)
        fault = next(self._loading_faults or iter(()), None)
        return web.Response(text="Success") if fault is None else await fault(request, b"Success")

    async def _measure(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=self._metrics)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.chats.append(Seen(request.path, dict(request.headers), body, request.transport))
        if not body:
            return web.json_response({"error": {"message": "messages: field required"}}, status=400)
        whole = json.dumps(self._reply(body)).encode()
        fault = next(self._faults, None)
        if fault is None:
            return web.Response(body=whole, content_type="application/json")
        return await fault(request, whole)


async def reset_at_once(request: web.Request, whole: bytes) -> web.StreamResponse:
    """Hangs up before it says anything."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def reset_amid_the_body(request: web.Request, whole: bytes) -> web.StreamResponse:
    response = await _begun(request, len(whole))
    await response.write(whole[: len(whole) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response


async def stall(request: web.Request, whole: bytes) -> web.StreamResponse:
    """Never answers."""
    await asyncio.sleep(STALL_S)
    return web.Response(body=whole)


async def slow_drip(request: web.Request, whole: bytes) -> web.StreamResponse:
    """Sends a byte now and then, so that it never seems to be silent."""
    response = await _begun(request, len(whole))
    for byte in whole:
        await response.write(bytes([byte]))
        await asyncio.sleep(0.05)
    return response


async def truncated_json(request: web.Request, whole: bytes) -> web.StreamResponse:
    return web.Response(body=whole[: len(whole) // 2], content_type="application/json")


async def invalid_json(request: web.Request, whole: bytes) -> web.StreamResponse:
    return web.Response(body=b"<html>be right back \xff</html>")


async def nothing(request: web.Request, whole: bytes) -> web.StreamResponse:
    return web.Response()


def says(status: int, body: Any, **headers: str) -> Fault:
    """Answers something else."""

    async def fault(request: web.Request, whole: bytes) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return fault


def fails(status: int, words: str = "", retry_after: str | None = None, **error: Any) -> Fault:
    """Answers with an error as OpenAI has it."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return says(status, {"error": {"message": words, **error}}, **headers)


class AtRandom:
    """One of several faults or none, by a draw that depends on the request and its attempt, not on what else comes."""

    def __init__(self, share: float, at_first: Sequence[Fault], later: Sequence[Fault]) -> None:
        self._share = share
        self._at_first, self._later = at_first, later
        self._attempts: Counter[int] = Counter()

    async def __call__(self, request: web.Request, whole: bytes) -> web.StreamResponse:
        seed = (await request.json())["seed"]
        draw = random.Random(f"{seed} {self._attempts[seed]}")
        faults = self._later if self._attempts[seed] else self._at_first
        self._attempts[seed] += 1
        if draw.random() < self._share:
            return await draw.choice(faults)(request, whole)
        return web.Response(body=whole, content_type="application/json")


async def _begun(request: web.Request, length: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = length
    await response.prepare(request)
    return response
