"""PrimeIntellect's verifiers on the problems that Winnow plays: one turn, the same prompts and sampling, in memory."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import verifiers as vf
from datasets import Dataset
from verifiers.types import ClientConfig
from work import Measured, Work


def boxed(completion: Any, answer: str, **_: Any) -> float:
    """As cheap a grader as one can write."""
    last = completion[-1]
    text = last["content"] if isinstance(last, dict) else last.content
    return float(f"\\boxed{{{answer}}}" in (text or ""))


def nothing(*_: object) -> None:
    """Instead of a bar."""


async def evaluate(work: Work) -> Measured:
    requests = [json.loads(line) for line in Path(work.requests).read_text().splitlines()]
    rows = [{"prompt": request["messages"], "answer": "42"} for request in requests]
    env = vf.SingleTurnEnv(eval_dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[boxed]))
    began = time.perf_counter()
    results = await env.evaluate(
        client=ClientConfig(api_base_url=work.url, api_key_var="BENCH_KEY"),
        model="winnow/base",
        sampling_args={"temperature": 1.0, "top_p": 1.0, "max_tokens": work.max_tokens},
        max_concurrent=work.concurrency,
        on_start=nothing,
        on_progress=nothing,
        on_log=nothing,
    )
    wall_s = time.perf_counter() - began
    assert len(results["outputs"]) == len(rows)
    return Measured(0.0, len(rows) / wall_s, len(rows))


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(evaluate(Work(**json.loads(sys.argv[1])))))))
