"""Stands in for the loop of the system that Winnow replaces, written from its description.

All episodes are started at once; each opens the problem file anew, on the event loop; rows are kept in memory and
written at the end. What else that loop does (Ray, logs, an env of its own) is left out.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from client import SAMPLING, Load, is_right, measure, question
from datasets import Dataset, load_dataset
from openai import AsyncOpenAI

NUM_PROBLEMS = 10_000


async def play_episode(client: AsyncOpenAI, model: str, problems: Path, number: int) -> dict[str, Any]:
    problem = load_dataset("parquet", data_files=str(problems), split="train")[number]
    messages = [{"role": "user", "content": problem["question"]}]
    answer = await client.chat.completions.create(model=model, messages=messages, seed=number, **SAMPLING)
    reply = answer.choices[0].message.content
    metadata = {"env_idx": number, "env_success": is_right(reply)}
    return {"messages": [*messages, {"role": "assistant", "content": reply}], "metadata": metadata}


async def collect(load: Load, problems: Path) -> int:
    async with AsyncOpenAI(base_url=load.url, api_key="none") as client:
        play_one = partial(play_episode, client, load.model, problems)
        rows = await asyncio.gather(*map(play_one, range(load.num_episodes)))
    problems.with_name("sft_data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sum(row["metadata"]["env_success"] for row in rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problems.parquet"
        Dataset.from_list([{"question": question(number)} for number in range(NUM_PROBLEMS)]).to_parquet(path)
        measure(lambda load: asyncio.run(collect(load, path)))
