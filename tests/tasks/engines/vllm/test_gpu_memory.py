"""That a GPU's memory is free again is seen, not hoped for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.engines.base import EngineError
from tasks.engines.vllm.gpu_memory import UsedMib, used_memory, wait_until_freed


class Emptying:
    """A GPU of which something is given back at each look."""

    def __init__(self, *used: int) -> None:
        self.used = list(used)

    def __call__(self, gpus: Sequence[str]) -> UsedMib:
        return {gpu: self.used.pop(0) if len(self.used) > 1 else self.used[0] for gpu in gpus}


def test_it_waits_until_the_memory_is_back() -> None:
    gpu = Emptying(60_000, 20_000, 1_300, 7)
    asyncio.run(wait_until_freed({"0": 1_000}, gpu))
    assert gpu.used == [7]


def test_memory_that_stays_in_use_is_an_error_that_says_how_much_and_where() -> None:
    with pytest.raises(EngineError, match=r"59000 MiB on GPU 3 are still in use"):
        asyncio.run(wait_until_freed({"3": 1_000}, Emptying(60_000), within_s=0.1))


def test_without_a_gpu_there_is_nothing_to_wait_for() -> None:
    assert used_memory([]) == {}
    asyncio.run(wait_until_freed({}))


def test_the_drivers_tool_is_asked_for_the_gpus_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\n[ "$3" = "--id=1,GPU-7" ] && printf "512\\n40960\\n"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert used_memory(["1", "GPU-7"]) == {"1": 512, "GPU-7": 40960}
    monkeypatch.setenv("PATH", "/nowhere")
    assert used_memory(["1", "GPU-7"]) == {}
    assert "whether the GPUs' memory is given back cannot be seen: nvidia-smi: " in caplog.text
