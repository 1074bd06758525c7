"""What every engine has in common: the same episodes are played on each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.engines.base import ChatRequest, Completion, Engine, Sampling
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.in_process.engine import InProcessEngine
from tasks.engines.openai_http.engine import OpenAIHttpEngine
from tasks.engines.scripted import ScriptedEngine
from tasks.engines.vllm.command import BASE_NAME
from tasks.rollout.episode import Episode
from tests.tasks.engines.conftest import KEY_ENV
from tests.tasks.engines.openai_http.fault_server import Body, FaultServer, answer
from tests.tasks.engines.started import ask, play_with, request
from tests.tasks.engines.vllm.serving import needs_vllm
from tests.tasks.rollout.adding_game import AddingGame, PairGame
from tests.tasks.rollout.playing import answer_or_not, plan, timeless

MakeEngine = Callable[[], Engine]


def cut(words: str, max_tokens: int) -> tuple[str, str]:
    """A text of so many letters at most, and whether it ended by itself."""
    return words[:max_tokens], "stop" if len(words) <= max_tokens else "length"


def script(asked: ChatRequest) -> Completion:
    text, reason = cut(answer_or_not(asked), asked.sampling.max_tokens)
    return Completion(text, reason, 3, len(text))  # type: ignore[arg-type]


def serve(body: Body) -> Body:
    asked = ChatRequest(body["messages"], Sampling(max_tokens=body["max_tokens"]), body["seed"])
    text, reason = cut(answer_or_not(asked), asked.sampling.max_tokens)
    return answer(text, reason, usage={"prompt_tokens": 3, "completion_tokens": len(text)})


@pytest.fixture(params=["scripted", "in_process", "openai_http", pytest.param("vllm", marks=needs_vllm)])
def make_engine(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[MakeEngine]:
    if request.param == "vllm":
        url = request.getfixturevalue("vllm_url")
        hosted = EngineConfig.model_validate({"base_url": url, "model": BASE_NAME, "api_key_env": KEY_ENV})
        yield lambda: OpenAIHttpEngine(hosted, ModelConfig(path="starter"))
    elif request.param == "scripted":
        yield lambda: ScriptedEngine(script)
    elif request.param == "in_process":
        yield lambda: InProcessEngine(ModelConfig(path=str(tiny_model)), EngineConfig(kind="in_process"))
    else:
        with FaultServer(reply=serve) as server:
            config = EngineConfig.model_validate({"base_url": server.url})
            yield lambda: OpenAIHttpEngine(config, ModelConfig())


def check_whole(episodes: list[Episode], count: int) -> None:
    assert len(episodes) == len({episode.key for episode in episodes}) == count
    for episode in episodes:
        assert episode.error is None and episode.turns
        for turn in episode.turns:
            assert turn.messages[0]["role"] == "user"
            assert turn.prompt_tokens > 0 and turn.completion_tokens > 0
            assert turn.finish_reason in ("stop", "length")


def test_every_episode_is_played_once_and_a_second_run_finds_nothing_owed(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    episodes = play_with(make_engine(), plan(20), tmp_path)
    check_whole(episodes, 20)
    assert play_with(make_engine(), plan(20), tmp_path) == episodes


def test_players_that_are_asked_at_once_are_all_answered(make_engine: MakeEngine, tmp_path: Path) -> None:
    episodes = play_with(make_engine(), plan(10), tmp_path, PairGame)
    check_whole(episodes, 10)
    assert all({turn.agent_name for turn in episode.turns} == {"adder", "checker"} for episode in episodes)


@pytest.mark.parametrize("env_class", [AddingGame, PairGame])
def test_an_interrupted_run_gets_the_episodes_of_an_uninterrupted_one(
    make_engine: MakeEngine, tmp_path: Path, env_class: type[AddingGame]
) -> None:
    play_with(make_engine(), plan(12)[5:9], tmp_path / "resumed", env_class)
    resumed = play_with(make_engine(), plan(12), tmp_path / "resumed", env_class)
    at_once = play_with(make_engine(), plan(12), tmp_path / "at once", env_class)
    assert timeless(resumed) == timeless(at_once)


def test_a_reply_at_its_limit_is_cut_off(make_engine: MakeEngine, tmp_path: Path) -> None:
    episodes = play_with(make_engine(), plan(10), tmp_path, max_tokens=3)
    cut_off = [turn for e in episodes for turn in e.turns if turn.finish_reason == "length"]
    assert cut_off
    assert all(turn.completion_tokens == 3 for turn in cut_off)


def test_a_reply_depends_on_its_request_and_seed_alone(make_engine: MakeEngine) -> None:
    (alone,) = ask(make_engine(), request("8 + 1", seed=4))
    crowd = ask(make_engine(), *(request(f"{n} + 1", seed=n) for n in range(40)), request("8 + 1", seed=4))
    assert crowd[-1] == alone
    assert len({completion.text for completion in crowd}) > 20


def test_an_engine_is_started_and_stopped_as_often_as_one_likes(make_engine: MakeEngine) -> None:
    engine = make_engine()
    assert ask(engine, request("1 + 1")) == ask(engine, request("1 + 1"))
