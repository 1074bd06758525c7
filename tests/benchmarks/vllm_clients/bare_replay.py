"""The barest load generator: the very requests that Winnow sent, all known from the start, replies thrown away."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import aiohttp
from work import Measured, Work


async def replay(work: Work) -> Measured:
    requests = [json.loads(line) for line in Path(work.requests).read_text().splitlines()]
    waiting = iter(requests)
    tokens = 0
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ['BENCH_KEY']}"}
    connector = aiohttp.TCPConnector(limit=work.concurrency)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def ask_on() -> None:
            nonlocal tokens
            for request in waiting:
                body = {
                    **request,
                    "model": "winnow/base",
                    "temperature": 1.0,
                    "top_p": 1.0,
                    "max_tokens": work.max_tokens,
                }
                async with session.post(f"{work.url}/chat/completions", data=json.dumps(body).encode()) as response:
                    answer = json.loads(await response.read())
                tokens += answer["usage"]["completion_tokens"]

        began = time.perf_counter()
        await asyncio.gather(*(ask_on() for _ in range(work.concurrency)))
        wall_s = time.perf_counter() - began
    return Measured(tokens / wall_s, work.num_episodes / wall_s, len(requests))


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(replay(Work(**json.loads(sys.argv[1])))))))
