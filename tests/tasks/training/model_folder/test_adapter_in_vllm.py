"""An adapter in the published form is what a real vLLM serves, as the card says."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tasks.engines.adapter_probe import check_applied, make_probe
from tasks.engines.config import ModelConfig
from tasks.engines.vllm.command import BASE_NAME, ServerSpec
from tasks.training.model_folder.publish import _save_weights
from tests.tasks.engines.vllm.serving import KEY, STARTER, needs_vllm, serving
from tests.tasks.training.jobs import adapted, job_of

pytestmark = needs_vllm


def logprobs(url: str, model: str, ids: list[int]) -> list[float]:
    body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        rows: list[dict[str, Any]] = json.load(answer)["choices"][0]["prompt_logprobs"]
    return [row[str(token)]["logprob"] for row, token in zip(rows[1:], ids[1:], strict=True)]


def test_an_adapter_is_served_with_lora_modules(tmp_path: Path) -> None:
    job = job_of(STARTER, tmp_path, use_rslora=True)
    folder = tmp_path / "adapter"
    folder.mkdir()
    _save_weights(adapted(job, 0.05), folder, job)
    probe = make_probe(ModelConfig(path=str(STARTER)), {"trained": folder})
    ids = list(probe.ids)
    lora = ("--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"trained={folder}")
    with serving(ServerSpec(STARTER), *lora) as url:
        base, trained = logprobs(url, BASE_NAME, ids), logprobs(url, "trained", ids)
    assert base != pytest.approx(trained, abs=0.05)
    check_applied("trained", probe, base, trained, url)
