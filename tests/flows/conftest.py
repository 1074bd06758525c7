"""A Prefect server for the tests that run flows, and a scripted run that is played in milliseconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flows  # noqa: F401  (its settings come before the first import of Prefect)
from flows.config import RunConfig

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """An empty database and its server, for the whole session."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def run_folder(prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of a run, with a result storage of its own."""
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "results"}):
        yield tmp_path


@pytest.fixture
def played() -> Iterator[list[Any]]:
    """The requests that the scripted engine has been sent."""
    sys.path.insert(0, str(SCRIPTS))
    import guessing

    guessing.requests.clear()
    yield guessing.requests
    sys.path.remove(str(SCRIPTS))


MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def make_config(tiny_model: Path) -> MakeConfig:
    """A config of math_env that needs seconds; sections given are laid over it."""
    from flows.config import merged

    base = {
        "env": {"name": "math_env", "roles": ["math_single_agent"], "max_turns": 1},
        "model": {"path": str(tiny_model)},
        "engine": {"kind": "scripted", "script": "guessing:reply"},
        "collect": {"num_episodes": 12, "only_success": False, "max_tokens": 32},
        "train": {"num_train_epochs": 1, "lora_r": 4, "num_gpus": 0},
        "evaluate": {"num_problems": 0},
    }
    return lambda **sections: RunConfig.model_validate(merged(base, sections))


@pytest.fixture
def asked() -> Iterator[list[str | None]]:
    """The adapter of each request that the improving script has been sent."""
    sys.path.insert(0, str(SCRIPTS))
    import improving

    improving.adapters.clear()
    yield improving.adapters
    sys.path.remove(str(SCRIPTS))
