"""vLLM as the run starts it: a real one, on the CPU, with the included policy."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from envs import load_env_class
from envs.base import EnvConfig
from envs.problems.splits import training_problems
from envs.sandbox import open_sandbox
from envs.sandbox.base import SandboxConfig
from tasks.engines import open_engine
from tasks.engines.adapter_probe import AdapterNotAppliedError
from tasks.engines.base import ChatRequest, Completion, Engine, EngineError
from tasks.engines.chat_tokens import decode_reply, prompt_token_ids
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.openai_http.engine import OpenAIHttpEngine, reach_server, takes_adapters
from tasks.engines.vllm import server as vllm_server
from tasks.engines.vllm.command import BASE_NAME
from tasks.engines.vllm.engine import VllmEngine
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode
from tasks.rollout.journal import Journal, read_episodes
from tasks.rollout.plan import make_plan
from tasks.rollout.play import play_owed
from tests.tasks.engines.conftest import KEY_ENV
from tests.tasks.engines.started import ask, request
from tests.tasks.engines.vllm.serving import STARTER, needs_vllm
from tests.tasks.engines.vllm.test_kept_process import is_alive, wait_until

pytestmark = needs_vllm

STARTER_MODEL = ModelConfig(path="starter")
MATH = EnvConfig(name="math_env", roles=["math_single_agent"], max_turns=2)
COLLECT = CollectConfig(max_tokens=128)

SUMS = tuple(request(f"What is {n} + {n}?", seed=n) for n in range(8))
"""Several, since sampled replies of two policies may be the same to one or two of them."""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def config(**vllm: object) -> EngineConfig:
    return EngineConfig.model_validate({"kind": "vllm", "timeout_s": 240.0, "vllm": {"dtype": "float32", **vllm}})


def engine_of(adapters: Mapping[str, Path] | None = None, *, plays_bare: bool = True, **vllm: object) -> VllmEngine:
    engine = open_engine(STARTER_MODEL, config(**vllm), adapters, plays_bare=plays_bare)
    assert isinstance(engine, VllmEngine)
    return engine


def with_adapter(requests: Sequence[ChatRequest], adapter: str) -> list[ChatRequest]:
    return [replace(r, adapter=adapter) for r in requests]


def texts(replies: Sequence[Completion]) -> list[str]:
    return [reply.text for reply in replies]


def num_same(some: Sequence[str], others: Sequence[str]) -> int:
    return sum(a == b for a, b in zip(some, others, strict=True))


def family(of: int = os.getpid()) -> set[int]:
    """All living descendants of a process."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, before = {of}, set[int]()
    while found != before:
        before = set(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return {pid for pid in found - {of} if is_alive(pid)}


def servers_below(pid: int) -> list[int]:
    """vLLM's API servers among a process's descendants."""
    return [p for p in family(pid) if b"vllm.entrypoints.openai.api_server" in _words_of(p)]


def _words_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


async def play_math(engine: Engine, folder: Path, num_episodes: int, *, max_concurrency: int = 16) -> None:
    env_class = load_env_class("math_env")
    slots = make_plan(training_problems(env_class, MATH)[:num_episodes], num_episodes, 1)
    sandbox = open_sandbox(SandboxConfig())
    try:
        with Journal.open(folder, {"env": {"name": "math_env"}}) as journal:
            await play_owed(
                slots,
                env_class=env_class,
                env_config=MATH,
                sandbox=sandbox,
                engine=engine,
                journal=journal,
                collect=COLLECT,
                max_concurrency=max_concurrency,
                timeout_s=240.0,
            )
    finally:
        sandbox.close()


def check_whole(folder: Path, count: int) -> list[Episode]:
    episodes = read_episodes(folder)
    assert len(episodes) == len({episode.key for episode in episodes}) == count
    assert all(turn.reply for episode in episodes for turn in episode.turns)
    return episodes


def test_episodes_are_collected_and_nothing_is_left_behind(tmp_path: Path) -> None:
    before = family()
    engine = engine_of()
    keys: list[str] = []

    async def run() -> None:
        async with engine:
            keys.extend(server._key for server in engine._servers)
            await play_math(engine, tmp_path / "journal", 40)

    asyncio.run(run())
    episodes = check_whole(tmp_path / "journal", 40)
    assert sum(episode.success for episode in episodes) >= 4
    assert episodes[0].metadata["engine"] == "vllm"
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    for turn in (turn for episode in episodes for turn in episode.turns):  # what is trained on is what was sampled
        assert turn.prompt_ids == prompt_token_ids(tokenizer, turn.messages, {})
        assert len(turn.reply_ids or []) == turn.completion_tokens
        assert decode_reply(tokenizer, turn.reply_ids or []) == turn.reply
    assert family() <= before
    [key] = keys
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 3 and not any(key.encode() in content for content in written)


def test_a_server_killed_in_mid_collection_is_started_again_and_no_episode_is_lost_or_doubled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of()
    killed: list[int] = []

    async def kill_soon() -> None:
        while not any((tmp_path / "journal").glob("shard-*")) or len(read_episodes(tmp_path / "journal")) < 10:
            await asyncio.sleep(0.02)
        killed.extend(servers_below(engine._servers[0]._process._keeper.pid))
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

    async def run() -> None:
        async with engine, asyncio.TaskGroup() as group:
            group.create_task(kill_soon())
            group.create_task(play_math(engine, tmp_path / "journal", 150, max_concurrency=8))

    asyncio.run(run())
    assert len(killed) == 1
    check_whole(tmp_path / "journal", 150)
    assert "vLLM was killed by signal 9; starting it again (1 of at most 3 times)" in caplog.text


def test_a_server_that_keeps_dying_ends_the_run_with_its_log(tmp_path: Path) -> None:
    engine = engine_of(max_restarts=0)

    async def run() -> None:
        async with engine:
            asking = asyncio.gather(*(engine.generate(request(f"{n} + 1", n)) for n in range(4)))
            for pid in servers_below(engine._servers[0]._process._keeper.pid):
                os.kill(pid, signal.SIGKILL)
            await asking

    with pytest.raises(EngineError, match=r"vLLM died 1 times, .* killed by signal 9, .*max_restarts is 0. The end of"):
        asyncio.run(run())


def test_a_server_that_hangs_counts_as_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_server, "_HUNG_AFTER_S", 3.0)
    monkeypatch.setattr(vllm_server, "_LOOK_EVERY_S", 0.5)
    engine = engine_of(max_restarts=0)

    async def run() -> None:
        async with engine:
            for pid in servers_below(engine._servers[0]._process._keeper.pid):
                os.kill(pid, signal.SIGSTOP)
            await engine.generate(request("What is 1 + 1?"))

    before = family()
    with pytest.raises(EngineError, match=r"vLLM died 1 times, .* did not answer for 3 s"):
        asyncio.run(run())
    assert family() <= before


def test_an_adapter_is_proven_to_be_applied_and_gets_into_no_answer_of_the_bare_model_beside_it(
    starter_adapter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    engine = engine_of({"coder": starter_adapter})
    adapted = with_adapter(SUMS, "coder")

    async def run() -> list[list[str]]:
        async with engine:
            asked = (SUMS, adapted, [*SUMS, *adapted])
            return [texts(await asyncio.gather(*(engine.generate(r) for r in requests))) for requests in asked]

    bare, coder, together = asyncio.run(run())
    assert num_same(bare, coder) <= 2
    # A reply may change with the batch that it is in, by rounding.
    assert num_same(together[: len(SUMS)], bare) >= len(SUMS) - 2
    assert num_same(together[len(SUMS) :], coder) >= len(SUMS) - 2
    assert "applies the adapter coder" in caplog.text
    with pytest.raises(EngineError, match="the engine is not running"):
        asyncio.run(engine.generate(request()))


def test_whole_models_of_policies_get_servers_of_their_own(tmp_path: Path, starter_adapter: Path) -> None:
    tuned = shutil.copytree(STARTER, tmp_path / "tuned")
    engine = engine_of({"planner": tuned}, plays_bare=False)
    [reply] = ask(engine, request("What is 1 + 1?", adapter="planner"))
    assert reply.completion_tokens > 0
    assert set(engine._by_model) == {"planner"}


# Servers that somebody else runs


def hosted(url: str, adapters: Mapping[str, Path] | None = None) -> OpenAIHttpEngine:
    settings = {"base_url": url, "model": BASE_NAME, "api_key_env": KEY_ENV, "timeout_s": 120.0}
    return OpenAIHttpEngine(EngineConfig.model_validate(settings), STARTER_MODEL, adapters)


def test_an_adapter_that_the_server_has_but_does_not_apply_is_caught(vllm_url: str, starter_adapter: Path) -> None:
    with pytest.raises(AdapterNotAppliedError, match=r"adapter idle is loaded in .* but not applied"):
        ask(hosted(vllm_url, {"idle": starter_adapter}), request(adapter="idle"))


def test_an_adapter_is_loaded_while_the_server_runs_and_unloaded_afterwards(
    vllm_url: str, starter_adapter: Path
) -> None:
    config = EngineConfig.model_validate({"base_url": vllm_url, "model": BASE_NAME, "api_key_env": KEY_ENV})
    assert takes_adapters(config)
    assert reach_server(config, {"coder": starter_adapter}) == BASE_NAME
    engine = hosted(vllm_url, {"coder": starter_adapter})

    async def run() -> None:
        async with engine:
            bare = await asyncio.gather(*(engine.generate(r) for r in SUMS))
            adapted = await asyncio.gather(*(engine.generate(r) for r in with_adapter(SUMS, "coder")))
            assert num_same(texts(bare), texts(adapted)) <= 2
            [server] = engine._fleet.servers
            assert any(model.name.startswith("coder-") for model in await server.look())
            load = await server.load()
            assert (load.running, load.waiting) == (0, 0)

    asyncio.run(run())

    async def names() -> set[str]:
        async with hosted(vllm_url) as engine:
            assert isinstance(engine, OpenAIHttpEngine)
            return {model.name for model in await engine._fleet.servers[0].look()}

    assert not any(name.startswith("coder-") for name in asyncio.run(names()))


def test_an_adapter_that_is_none_is_one_line(vllm_url: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"the adapter coder in {broken} does not load onto starter"):
        ask(hosted(vllm_url, {"coder": broken}), request(adapter="coder"))


# Starts that fail


def start_failure(engine: Engine) -> str:
    async def run() -> None:
        async with engine:
            pass

    before = family()
    with pytest.raises((ValueError, EngineError)) as caught:
        asyncio.run(run())
    assert family() <= before
    return str(caught.value)


def test_a_model_that_vllm_does_not_know_is_told_with_its_reason(tmp_path: Path) -> None:
    folder = shutil.copytree(STARTER, tmp_path / "odd")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("Qwen3ForCausalLM", "OddForCausalLM").replace('"qwen3"', '"odd"'))
    said = start_failure(open_engine(ModelConfig(path=str(folder)), config()))
    assert said.startswith("vLLM did not start: ")
    assert "odd" in said.splitlines()[0].lower()
    assert "The end of its log" in said


def test_an_argument_that_vllm_does_not_know_is_told(tmp_path: Path) -> None:
    said = start_failure(engine_of(extra_args=("--no-such-flag",)))
    assert "--no-such-flag" in said


def test_a_port_that_somebody_takes_first_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free = vllm_server._free_port
        ports = iter([taken.getsockname()[1]])
        choose: Callable[[], int] = lambda: next(ports, None) or free()  # noqa: E731
        monkeypatch.setattr(vllm_server, "_free_port", choose)
        [reply] = ask(engine_of(), request("What is 1 + 1?"))
    assert reply.completion_tokens > 0


def test_a_start_that_takes_too_long_is_given_up() -> None:
    assert "did not answer within engine.vllm.start_timeout_s=0.5 s" in start_failure(engine_of(start_timeout_s=0.5))


# The end of the one who started it


def test_killing_the_collector_leaves_nothing_of_vllm(tmp_path: Path) -> None:
    program = f"""
        import asyncio
        from pathlib import Path
        from tests.tasks.engines.vllm.test_vllm_engine import engine_of, play_math

        async def run():
            engine = engine_of()
            async with engine:
                await play_math(engine, Path({str(tmp_path / "journal")!r}), 3000)

        asyncio.run(run())
    """
    collector = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=STARTER.parents[2])
    try:
        wait_until(lambda: list((tmp_path / "journal").glob("shard-*")) and read_episodes(tmp_path / "journal"), 240)
        others = family(collector.pid)
        assert len(others) >= 3
    finally:
        collector.kill()
    collector.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in others), 30)
    episodes = read_episodes(tmp_path / "journal")
    assert len(episodes) == len({episode.key for episode in episodes})
