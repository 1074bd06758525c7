"""Several servers that serve the same model, two of them real ones on loopback."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tasks.engines.base import ChatRequest, EngineError, Sampling
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.openai_http import concurrency, fleet
from tasks.engines.openai_http.chat_server import Load
from tasks.engines.openai_http.endpoint import Backoff, Gate
from tasks.engines.openai_http.engine import OpenAIHttpEngine
from tests.tasks.engines.openai_http.fault_server import MODEL, FaultServer, fails, stall
from tests.tasks.engines.started import ask, play_with, request
from tests.tasks.rollout.playing import plan

SOON = Backoff(0.02, 0.1)


def engine_at(*servers: FaultServer, **config: object) -> OpenAIHttpEngine:
    urls = [server.url for server in servers]
    settings = EngineConfig.model_validate({"base_url": urls, "timeout_s": 10.0, **config})
    return OpenAIHttpEngine(settings, ModelConfig(), None, SOON)


def turn_of(conversation: str) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": conversation}], Sampling(), 0, None, conversation)


def test_conversations_are_spread_and_each_stays_where_it_began() -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(FaultServer()) for _ in range(3)]
        engine = engine_at(*servers)

        async def run() -> None:
            async with engine:
                for _ in range(4):
                    await asyncio.gather(*(engine.generate(turn_of(f"game {n}")) for n in range(30)))

        asyncio.run(run())
        seen = [Counter(chat.body["messages"][0]["content"] for chat in server.chats) for server in servers]
    assert [len(games) for games in seen] == [10, 10, 10]
    assert {count for games in seen for count in games.values()} == {4}


def test_episodes_are_whole_on_several_servers(tmp_path: Path) -> None:
    with FaultServer() as one, FaultServer() as other:
        episodes = play_with(engine_at(one, other), plan(20), tmp_path)
        assert len({episode.key for episode in episodes}) == len(episodes) == 20
        assert one.chats and other.chats


def test_a_server_that_is_slow_gets_fewer_of_the_new_conversations() -> None:
    with FaultServer(endless=[stall] * 1000) as slow, FaultServer() as quick:
        engine = engine_at(slow, quick)

        async def run() -> None:
            async with engine:
                stuck = [asyncio.create_task(engine.generate(turn_of(f"early {n}"))) for n in range(8)]
                await asyncio.sleep(0.3)
                for n in range(20):
                    late = asyncio.create_task(engine.generate(turn_of(f"late {n}")))
                    await asyncio.wait([late], timeout=0.5)
                for task in stuck:
                    task.cancel()

        asyncio.run(run())
        assert len(quick.chats) >= 20
        assert len(slow.chats) <= 8


def test_the_same_address_given_twice_is_one_server() -> None:
    with FaultServer() as server:
        config = EngineConfig.model_validate({"base_url": [server.url, server.url]})
        assert config.base_urls == [server.url]


def test_an_address_among_several_is_checked_like_one() -> None:
    with pytest.raises(ValueError, match=r"engine\.base_url: it is no http or https address"):
        EngineConfig.model_validate({"base_url": ["http://127.0.0.1:1/v1", "nonsense"]})


def test_too_many_requests_lower_the_level_and_the_request_is_answered_in_the_end() -> None:
    with FaultServer(fails(429, "slow down", "0")) as server:
        engine = engine_at(server)

        async def run() -> int:
            async with engine:
                places = engine.places(64)
                before = places.limit
                async with places:
                    await engine.generate(request())
                assert places.limit < before
                return before

        assert asyncio.run(run()) == 16
        assert len(server.chats) == 2


def metrics(running: object, waiting: object, *cache_shares: object, cache: str = "kv_cache_usage_perc") -> str:
    """A page as vLLM has it, with an engine for each share."""
    lines = [f'vllm:num_requests_running{{engine="0"}} {running}', f'vllm:num_requests_waiting{{engine="0"}} {waiting}']
    lines += [f'vllm:{cache}{{engine="{i}",model_name="m"}} {share}' for i, share in enumerate(cache_shares)]
    return "\n".join(["# TYPE vllm:num_requests_running gauge", *lines, ""])


VLLM_MODEL = {**MODEL, "owned_by": "vllm"}


def test_what_vllm_says_of_its_load_is_read_with_the_share_of_its_fullest_cache() -> None:
    for page in (metrics(3.0, 2.0, 0.25, 0.75), metrics("3", "2", 0.75, cache="gpu_cache_usage_perc")):
        with FaultServer(models=[VLLM_MODEL], metrics=page) as server:
            engine = engine_at(server)

            async def look(engine: OpenAIHttpEngine = engine) -> Load:
                async with engine:
                    return await engine._fleet.servers[0].load()

            assert asyncio.run(look()) == Load(3, 2, 0.75)


def test_a_full_cache_in_the_server_ends_the_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(concurrency, "WINDOW_S", 0.05)
    levels = []
    for share in (0.5, 0.95):
        with FaultServer(models=[VLLM_MODEL], metrics=metrics(64, 0, share)) as server:
            engine = engine_at(server, max_concurrency=256)

            async def run(engine: OpenAIHttpEngine = engine) -> int:
                async def ask_on() -> None:
                    while loop.time() < until:
                        async with places:
                            await engine.generate(request())

                async with engine:
                    loop, places = asyncio.get_running_loop(), engine.places(256)
                    assert places.limit == 128
                    await asyncio.sleep(0.2)  # for a first look
                    until = loop.time() + 1.0
                    await asyncio.gather(*(ask_on() for _ in range(300)))
                    return places.limit

            levels.append(asyncio.run(run()))
    assert levels[0] > 128 == levels[1]


def test_metrics_are_seen_while_all_requests_are_in_flight_and_whatever_they_say_the_engine_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet, "_LOOK_EVERY_S", 0.02)
    with FaultServer(endless=[stall] * 9, models=[VLLM_MODEL], metrics=metrics("NaN", "+Inf", 0.5)) as server:
        engine = engine_at(server, max_concurrency=4)

        async def run() -> None:
            async with engine:
                engine.places(4)
                asked = [asyncio.create_task(engine.generate(request())) for _ in range(4)]
                await asyncio.sleep(0.3)
                began = asyncio.get_running_loop().time()
                with pytest.raises(EngineError, match="metrics without vLLM's counts"):
                    await engine._fleet.servers[0].load()
                assert asyncio.get_running_loop().time() - began < 1
                for task in asked:
                    task.cancel()

        asyncio.run(run())


def test_requests_wait_at_a_closed_gate_and_are_turned_away_once_it_is_shut_for_good() -> None:
    async def run() -> None:
        gate = Gate()
        waiting = asyncio.create_task(gate.passed())
        await asyncio.sleep(0.01)
        assert not waiting.done() and not gate.is_open
        gate.open()
        await waiting
        assert gate.is_open
        gate.close()
        waiting = asyncio.create_task(gate.passed())
        await asyncio.sleep(0.01)
        gate.shut_for_good("it is gone")
        with pytest.raises(EngineError, match="it is gone"):
            await waiting
        with pytest.raises(EngineError, match="it is gone"):
            await gate.passed()
        assert not gate.is_open

    asyncio.run(run())


def test_one_server_without_others_is_asked_for_all() -> None:
    with FaultServer() as server:
        assert len(ask(engine_at(server), *(request(str(n)) for n in range(5)))) == 5
