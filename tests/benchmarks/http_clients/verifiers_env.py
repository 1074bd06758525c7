"""PrimeIntellect's verifiers: a SingleTurnEnv with a rubric of one function, evaluated in memory.

It does less than what it is compared with: no results are saved, and the requests have no seeds of their own.
"""

from __future__ import annotations

import asyncio
from typing import Any

import verifiers as vf
from client import SAMPLING, Load, is_right, measure, question
from datasets import Dataset
from verifiers.types import ClientConfig


def correct(completion: Any, **_: Any) -> float:
    last = completion[-1]
    return float(is_right(last["content"] if isinstance(last, dict) else last.content))


def nothing(*_: object) -> None:
    """Instead of a bar."""


async def evaluate(load: Load) -> int:
    rows = [{"question": question(number), "answer": "7"} for number in range(load.num_episodes)]
    env = vf.SingleTurnEnv(eval_dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[correct]))
    results = await env.evaluate(
        client=ClientConfig(api_base_url=load.url, api_key_var="NO_KEY"),
        model=load.model,
        sampling_args=dict(SAMPLING),
        max_concurrent=load.concurrency,
        on_start=nothing,
        on_progress=nothing,
        on_log=nothing,
    )
    return sum(output["reward"] == 1.0 for output in results["outputs"])


if __name__ == "__main__":
    measure(lambda load: asyncio.run(evaluate(load)))
