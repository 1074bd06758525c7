"""A loop on the openai package, as one writes it for a day: workers that ask and keep nothing."""

from __future__ import annotations

import asyncio

from client import SAMPLING, Load, is_right, measure, question
from openai import AsyncOpenAI


async def ask_all(load: Load) -> int:
    numbers = iter(range(load.num_episodes))
    num_right = 0
    async with AsyncOpenAI(base_url=load.url, api_key="none") as client:

        async def ask_on() -> None:
            nonlocal num_right
            for number in numbers:
                answer = await client.chat.completions.create(
                    model=load.model,
                    messages=[{"role": "user", "content": question(number)}],
                    seed=number,
                    **SAMPLING,
                )
                num_right += is_right(answer.choices[0].message.content)

        await asyncio.gather(*(ask_on() for _ in range(load.concurrency)))
    return num_right


if __name__ == "__main__":
    measure(lambda load: asyncio.run(ask_all(load)))
