"""A vLLM server for all the tests that only ask one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.engines.vllm.command import ServerSpec
from tests.tasks.engines.adapters import random_adapter, without_effect
from tests.tasks.engines.vllm.serving import KEY, STARTER, serving

KEY_ENV = "WINNOW_TEST_VLLM_KEY"


@pytest.fixture(scope="session")
def starter_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the included policy with random weights."""
    return random_adapter(STARTER, tmp_path_factory.mktemp("adapters") / "starter", size=0.5)


@pytest.fixture(scope="session")
def vllm_url(starter_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running vLLM with the included policy. Its adapter `idle` goes by the name of one that it is not."""
    idle = without_effect(starter_adapter, tmp_path_factory.mktemp("adapters") / "idle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_ENV, KEY)
        spec = ServerSpec(STARTER, {"idle": idle, "more": starter_adapter})
        with serving(spec, "--lora-modules", f"idle={idle}") as url:
            yield url
