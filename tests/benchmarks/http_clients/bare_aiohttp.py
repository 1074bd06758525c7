"""The barest load generator there is: the same requests, and what comes back is parsed and forgotten."""

from __future__ import annotations

import asyncio
import json

import aiohttp
from client import SAMPLING, Load, is_right, measure, question


async def generate_load(load: Load) -> int:
    numbers = iter(range(load.num_episodes))
    num_right = 0
    headers = {"Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=load.concurrency)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def ask_on() -> None:
            nonlocal num_right
            for number in numbers:
                messages = [{"role": "user", "content": question(number)}]
                body = {"model": load.model, "messages": messages, **SAMPLING, "seed": number}
                async with session.post(f"{load.url}/chat/completions", data=json.dumps(body).encode()) as response:
                    answer = json.loads(await response.read())
                num_right += is_right(answer["choices"][0]["message"]["content"])

        await asyncio.gather(*(ask_on() for _ in range(load.concurrency)))
    return num_right


if __name__ == "__main__":
    measure(lambda load: asyncio.run(generate_load(load)))
