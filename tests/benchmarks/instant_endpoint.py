"""A server that speaks OpenAI's chat API and answers at once, always the same. What is measured is its client.

A process of its own, so that it takes no time from its clients' interpreters; no HTTP library, so that it is never the
one that is waited for. It knows just as much HTTP as the clients here speak: requests with a Content-Length, one at a
time on each connection.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MODEL = "instant"
REPLY = "Taking the second number from the first leaves 7. " * 4 + "So the answer is 7."


def _response(answer: object) -> bytes:
    body = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


MODELS = _response({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "nobody"}]})
CHAT = _response(
    {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": REPLY},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 50, "completion_tokens": 50, "total_tokens": 100},
    }
)


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end]).lower()
            _, _, length = head.partition(b"\r\ncontent-length:")
            size = end + 4 + int(length.partition(b"\r\n")[0] or 0)
            if len(self._received) < size:
                return
            del self._received[:size]
            self._transport.write(MODELS if head.startswith(b"get ") else CHAT)  # type: ignore[attr-defined]


async def _serve(core: int) -> None:
    os.sched_setaffinity(0, {core})
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Standard input ends with whoever started this, however that ends.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def instant_endpoint(core: int) -> Iterator[str]:
    """Serve on that core; gives the address as OpenAI's clients take it."""
    command = [sys.executable, __file__, str(core)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.stdin.close()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
