"""Replies from a function, and clear words where there is none."""

from __future__ import annotations

import asyncio

import pytest

from tasks.engines.base import ChatRequest, Completion, EngineError, Sampling
from tasks.engines.config import EngineConfig
from tasks.engines.scripted import Reply, ScriptedEngine, scripted_engine

REQUEST = ChatRequest([{"role": "user", "content": "two words"}], Sampling(), seed=7)


def three_words(request: ChatRequest) -> str:
    return f"seed is {request.seed}"


async def later(request: ChatRequest) -> str:
    await asyncio.sleep(0)
    return "later"


def wrong_type(request: ChatRequest) -> int:
    return 5


def raising(request: ChatRequest) -> str:
    raise KeyError("nothing")


def ask(reply: Reply) -> Completion:
    async def generate() -> Completion:
        async with ScriptedEngine(reply) as engine:
            return await engine.generate(REQUEST)

    return asyncio.run(generate())


def test_a_text_becomes_a_completion_counted_in_words() -> None:
    assert ask(three_words) == Completion("seed is 7", "stop", prompt_tokens=2, completion_tokens=3)


def test_a_completion_is_passed_on_as_it_is() -> None:
    cut = Completion("cut", "length", 1, 512)
    assert ask(lambda request: cut) is cut


def test_a_coroutine_function_is_awaited() -> None:
    assert ask(later).text == "later"


def test_a_script_that_raises_or_returns_something_else_is_an_engine_fault() -> None:
    with pytest.raises(EngineError, match="the script raised KeyError: 'nothing'"):
        ask(raising)
    with pytest.raises(EngineError, match="the script returned int; wanted a str or a Completion"):
        ask(wrong_type)  # type: ignore[arg-type]


def test_the_config_names_the_function() -> None:
    engine = scripted_engine(EngineConfig(kind="scripted", script="posixpath:basename"))
    assert engine.name == "scripted"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "got None; engine.kind scripted takes module:function"),
        ("json", "got 'json'"),
        ("no_such_module:f", "cannot load 'no_such_module:f'"),
        ("json:no_such", "cannot load 'json:no_such'"),
        ("string:digits", "'string:digits' is str, not a function"),
    ],
)
def test_a_script_that_cannot_be_used_is_a_clear_error(script: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scripted_engine(EngineConfig(kind="scripted", script=script))
