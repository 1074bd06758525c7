"""What becomes of a server that dies, or does not start, seen on containers that do as they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from envs.base import EnvConfig, Play
from tasks.engines import open_engine
from tasks.engines.base import Engine, EngineError
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.vllm import server as vllm_server
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode
from tasks.rollout.play import play_episode
from tests.tasks.engines.started import ask, request
from tests.tasks.engines.vllm.containers import Containers
from tests.tasks.engines.vllm.test_kept_process import is_alive, wait_until
from tests.tasks.rollout.adding_game import AddingGame, NoSandbox
from tests.tasks.rollout.playing import plan

T = TypeVar("T")

DOWN_S = 2.5


@pytest.fixture
def containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Containers:
    monkeypatch.setattr(vllm_server, "_LOOK_EVERY_S", 0.1)
    return Containers(tmp_path, monkeypatch)


def engine_of(timeout_s: float = 30.0, adapters: Mapping[str, Path] | None = None) -> Engine:
    vllm = {"image": "some/vllm", "max_restarts": 2}
    config = {"kind": "vllm", "num_gpus": 0, "timeout_s": timeout_s, "vllm": vllm}
    return open_engine(ModelConfig(path="starter"), EngineConfig.model_validate(config), adapters)


def with_a_death(containers: Containers, engine: Engine, asking: Coroutine[Any, Any, T]) -> T:
    """What comes of a request that says `die`, at which the first container was when it was killed."""

    async def run() -> T:
        async with engine:
            asked = asyncio.create_task(asking)
            await asyncio.to_thread(wait_until, lambda: containers.noted("asked"))
            containers.kill()
            return await asked

    try:
        return asyncio.run(run())
    finally:
        assert not any(is_alive(int(pid)) for pid in containers.noted("pids"))
        assert len(containers.noted("removed")) == len(containers.noted("pids"))


def test_a_start_after_a_death_that_fails_is_not_the_last_one(
    containers: Containers, caplog: pytest.LogCaptureFixture
) -> None:
    containers.will("serve", "fail CUDA error: out of memory", "serve")
    engine = engine_of()
    assert with_a_death(containers, engine, engine.generate(request("die"))).text == "1"
    assert "vLLM was killed by signal 9; starting it again (1 of at most 2 times)" in caplog.text
    assert "vLLM did not start again: vLLM did not start: it does not say why; lower engine.vllm.max_" in caplog.text
    assert "starting it again (2 of at most 2 times)" in caplog.text


def test_a_server_that_does_not_start_again_ends_the_run_after_the_last_try(containers: Containers) -> None:
    containers.will("serve", "fail out of memory")
    engine = engine_of()
    with pytest.raises(EngineError, match=r"died 3 times, .* not start again: .*max_restarts is 2. The end of its log"):
        with_a_death(containers, engine, engine.generate(request("die")))
    assert len(containers.noted("pids")) == 3


def test_a_request_has_its_whole_time_again_once_its_server_has_been_started_again(containers: Containers) -> None:
    containers.will("serve", f"serve {DOWN_S}")
    engine = engine_of(timeout_s=DOWN_S - 1)
    assert with_a_death(containers, engine, engine.generate(request("die"))).text == "1"


def test_the_time_in_which_a_server_is_started_again_is_not_the_episodes(containers: Containers) -> None:
    class DeadlyGame(AddingGame):
        def play(self) -> Play:
            (reply,) = yield [self.ask("adder", "0 + 1, or die")]
            self.success = reply == "1"

    containers.will("serve", f"serve {DOWN_S}")
    engine = engine_of()

    async def play() -> Episode:
        [slot] = plan(1)
        config = EnvConfig(name="adding")
        limits = {"timeout_s": DOWN_S - 1, "episode_timeout_s": DOWN_S - 1}
        return await play_episode(slot, DeadlyGame, config, NoSandbox(), engine, CollectConfig(), **limits)  # type: ignore[arg-type]

    episode = with_a_death(containers, engine, play())
    assert (episode.success, episode.error) == (True, None)


def failure_to_start(engine: Engine) -> str:
    with pytest.raises((ValueError, EngineError)) as caught:
        ask(engine)
    return str(caught.value)


def test_a_failed_start_is_told_in_its_own_words_not_in_those_of_the_one_before(containers: Containers) -> None:
    containers.will("fail OSError: [Errno 98] Address already in use", "fail ValueError: no such architecture")
    said = failure_to_start(engine_of())
    assert said.startswith("vLLM did not start: ValueError: no such architecture. The end of its log, ")
    assert "Address already" not in said
    assert len(containers.noted("pids")) == 2


def test_a_failed_start_whose_log_somebody_has_removed_is_told_all_the_same(containers: Containers) -> None:
    containers.will("remove-log")
    assert failure_to_start(engine_of()).startswith("vLLM did not start: it does not say why. The end of its log, ")


def test_a_server_that_dies_of_an_adapter_is_told_at_once_with_its_words(
    containers: Containers, starter_adapter: Path
) -> None:
    began = time.monotonic()
    said = failure_to_start(engine_of(adapters={"coder": starter_adapter}))
    assert said.startswith("vLLM did not start: RuntimeError: no room for the adapter. The end of its log, ")
    assert time.monotonic() - began < 20
    assert len(containers.noted("removed")) == 1
