"""Stands in for the loop of the system that Winnow replaces, written from its description.

All episodes are started at once; each opens the problem file anew, on the event loop; rows are kept in memory and
written at the end. What else that loop does (Ray, logs, an env of its own) is left out.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from client import SAMPLING, Load, is_right, measure
from datasets import load_dataset
from openai import AsyncOpenAI


async def play_episode(client: AsyncOpenAI, load: Load, number: int) -> dict[str, Any]:
    problem = load_dataset("parquet", data_files=load.problems_path, split="train")[number]
    messages = [{"role": "user", "content": problem["question"]}]
    answer = await client.chat.completions.create(model=load.model, messages=messages, seed=number, **SAMPLING)
    reply = answer.choices[0].message.content
    metadata = {"env_idx": number, "env_success": is_right(reply)}
    return {"messages": [*messages, {"role": "assistant", "content": reply}], "metadata": metadata}


async def collect(load: Load, path: Path) -> int:
    async with AsyncOpenAI(base_url=load.url, api_key="none", timeout=600.0) as client:
        rows = await asyncio.gather(*(play_episode(client, load, number) for number in range(load.num_episodes)))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sum(row["metadata"]["env_success"] for row in rows)


def play(load: Load) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(collect(load, Path(folder) / "sft_data.jsonl"))


if __name__ == "__main__":
    measure(play)
