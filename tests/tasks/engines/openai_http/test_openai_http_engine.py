"""The engine for OpenAI-compatible servers, against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tasks.engines import open_engine
from tasks.engines.base import ChatRequest, Completion, EngineError, Sampling
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.openai_http import endpoint
from tasks.engines.openai_http.endpoint import WATCHERS, Backoff, seconds_of
from tasks.engines.openai_http.engine import OpenAIHttpEngine, reach_server
from tests.tasks.engines.openai_http.fault_server import (
    MODEL,
    AtRandom,
    Body,
    Fault,
    FaultServer,
    answer,
    fails,
    invalid_json,
    nothing,
    reset_amid_the_body,
    reset_at_once,
    says,
    slow_drip,
    stall,
    truncated_json,
)
from tests.tasks.engines.started import ask, play_with, request
from tests.tasks.rollout.playing import answer_or_not, plan, timeless

SOON = Backoff(first_s=0.01, longest_s=0.05)
KEY = "sk-very-secret-1234567890"


def engine_at(server: FaultServer, adapters: dict[str, Path] | None = None, **config: Any) -> OpenAIHttpEngine:
    settings = {"base_url": server.url, "timeout_s": 10.0, **config}
    return OpenAIHttpEngine(EngineConfig.model_validate(settings), ModelConfig(path="/nowhere"), adapters, SOON)


def failure(server: FaultServer, **config: Any) -> str:
    with pytest.raises(EngineError) as caught:
        ask(engine_at(server, **config), request())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_base_url_is_enough_to_get_this_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as server:
        engine = open_engine(ModelConfig(path="/nowhere"), EngineConfig.model_validate({"base_url": server.url + "/"}))
        assert engine.name == "openai_http"
        (reply,) = ask(engine, request("two words"))
    assert reply == Completion("you said two words", "stop", prompt_tokens=2, completion_tokens=4)


# Faults that pass


@pytest.mark.parametrize(
    "fault",
    [
        reset_at_once,
        reset_amid_the_body,
        stall,
        slow_drip,
        truncated_json,
        invalid_json,
        nothing,
        fails(429, "slow down", retry_after="0"),
        fails(408),
        fails(409),
        fails(500, "boom"),
        fails(502),
        fails(503, "warming up", retry_after="nonsense"),
        fails(529, "overloaded"),
        says(200, {"error": {"message": "the upstream is gone", "code": 502}}),
        says(200, {"choices": []}),
        says(200, {"choices": [{"message": "text", "finish_reason": "stop"}]}),
        says(200, ["a", "list"]),
        says(200, answer("half", finish_reason="abort")),
        says(200, answer({"type": "object"})),
    ],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_that_passes_costs_one_more_attempt(fault: Fault) -> None:
    with FaultServer(fault) as server:
        (reply,) = ask(engine_at(server, timeout_s=2.0), request("two words"))
        assert reply == Completion("you said two words", "stop", 2, 4)
        assert [seen.body for seen in server.chats] == [server.chats[0].body] * 2


def test_a_server_that_is_gone_for_a_while_is_waited_for() -> None:
    async def run() -> Completion:
        with FaultServer() as server:
            engine = engine_at(server)
            await engine.start()
        waiting = asyncio.create_task(engine.generate(request("still there?")))
        await asyncio.sleep(0.2)
        with FaultServer(port=server.port):
            reply = await waiting
        await engine.stop()
        return reply

    assert asyncio.run(run()).text == "you said still there?"


def test_the_wait_that_a_server_asks_for_is_kept() -> None:
    with FaultServer(fails(429, retry_after="0.4"), fails(503, retry_after="0.3")) as server:
        started = time.monotonic()
        ask(engine_at(server), request())
        assert time.monotonic() - started >= 0.7


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), (" 1.5 ", 1.5), (None, 0.0), ("soon", 0.0), ("-3", 0.0), (formatdate(0, usegmt=True), 0.0)],
)
def test_a_wait_is_read_from_a_number(header: str | None, seconds: float) -> None:
    assert seconds_of(header) == seconds


def test_a_wait_is_read_from_a_date() -> None:
    assert 58 < seconds_of(formatdate(time.time() + 60, usegmt=True)) <= 60


def test_pauses_grow_to_a_limit_and_differ() -> None:
    backoff = Backoff(first_s=1.0, longest_s=8.0)
    pauses = {attempts: [backoff.pause_s(attempts) for _ in range(200)] for attempts in (1, 2, 3, 4, 2000)}
    for attempts, longest in {1: 1.0, 2: 2.0, 3: 4.0, 4: 8.0, 2000: 8.0}.items():
        assert 0.8 * longest < max(pauses[attempts]) <= longest
        assert min(pauses[attempts]) < 0.2 * longest


# The deadline


@pytest.mark.parametrize("fault", [slow_drip, stall, reset_at_once], ids=lambda fault: fault.__name__)
def test_a_server_that_never_answers_whole_is_given_up_at_the_deadline(fault: Fault) -> None:
    with FaultServer(endless=itertools.repeat(fault)) as server:
        engine = engine_at(server, timeout_s=0.8)

        async def run() -> float:
            async with engine:
                started = time.monotonic()
                with pytest.raises(EngineError, match=r"\d+ attempts, the last one: .*engine\.timeout_s=0\.8 s"):
                    await engine.generate(request())
                return time.monotonic() - started

        assert asyncio.run(run()) < 2.5
        assert len(server.chats) >= 2


def test_giving_up_tells_how_many_attempts_there_were_and_what_the_last_fault_was() -> None:
    with FaultServer(stall, endless=itertools.repeat(fails(503, "no room"))) as server:
        said = failure(server, timeout_s=1.0)
        counted = re.search(r"\((\d+) attempts, the last one: 503 Service Unavailable: no room\)", said)
        assert counted is not None, said
        # The deadline may have cut the last attempt off before the server had read it.
        assert int(counted[1]) - len(server.chats) in (0, 1)


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    with FaultServer(fails(429, "come back tomorrow", retry_after="86400")) as server:
        started = time.monotonic()
        said = failure(server)
        assert time.monotonic() - started < 2
    assert "(1 attempt: 429 Too Many Requests: come back tomorrow; it asks to be left alone for 86400 s)" in said


def test_an_answer_without_an_end_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_RESPONSE_BYTES", 1 << 20)
    with FaultServer(says(200, answer("x" * (2 << 20)))) as server:
        assert ask(engine_at(server), request("a"))[0].text == "you said a"
        assert len(server.chats) == 2


# Faults that last


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (fails(400, "temperature:\n  too hot"), "400 Bad Request: temperature: too hot"),
        (says(422, {"detail": [{"msg": "no"}]}), '422 Unprocessable Entity: [{"msg": "no"}]'),
        (says(404, {"object": "error", "message": "The model `x` does not exist."}), "The model `x` does not exist.;"),
        (says(400, {"error": "a plain text"}), "400 Bad Request: a plain text"),
        (fails(402, "Insufficient Balance"), "402 Payment Required: Insufficient Balance"),
        (fails(429, "You exceeded your quota", code="insufficient_quota"), "You exceeded your quota"),
        (fails(501, "no chats here"), "501 Not Implemented: no chats here"),
        (says(307, None, Location="http://elsewhere/v1"), "redirects to http://elsewhere/v1; not followed"),
    ],
)
def test_a_refusal_is_final_and_shown_in_the_servers_words(fault: Fault, words: str) -> None:
    with FaultServer(fault) as server:
        assert words in failure(server)
        assert len(server.chats) == 1


def test_a_long_refusal_is_clipped() -> None:
    with FaultServer(fails(400, "no " * 5000)) as server:
        assert 200 < len(failure(server)) < 500


# Keys


def test_the_key_is_sent_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    faults = [fails(500, f"bad {KEY}"), says(200, {"error": KEY}), fails(400, f"we do not like {KEY}, {KEY}")]
    with FaultServer(*faults, key=KEY) as server:
        engine = engine_at(server, api_key_env="MY_KEY")
        with pytest.raises(EngineError, match=r"we do not like \[key\], \[key\]") as caught:
            ask(engine, request())
        assert {seen.headers["Authorization"] for seen in server.chats + server.looks} == {f"Bearer {KEY}"}
        shown = [repr(caught.value), repr(caught.value.__cause__), repr(engine), caplog.text, *capfd.readouterr()]
        assert not any(KEY in text for text in shown)
        with FaultServer(endless=itertools.repeat(says(200, {"error": KEY}))) as leaking:
            assert KEY not in failure(leaking, api_key_env="MY_KEY", timeout_s=0.2)


def test_a_wrong_key_is_the_users_mistake_and_fails_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultServer(key="another") as server:
        with pytest.raises(ValueError, match=r"401 Unauthorized: .*; check the key in OPENAI_API_KEY") as caught:
            reach_server(EngineConfig.model_validate({"base_url": server.url}))
        assert KEY not in str(caught.value)
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(ValueError, match="no key was sent: OPENAI_API_KEY is not set"):
            reach_server(EngineConfig.model_validate({"base_url": server.url}))


def test_a_variable_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    config = EngineConfig.model_validate({"base_url": "http://h/v1", "api_key_env": "MY_KEY"})
    with pytest.raises(ValueError, match=r"engine.api_key_env: MY_KEY is not set"):
        OpenAIHttpEngine(config, ModelConfig())
    monkeypatch.setenv("MY_KEY", f"{KEY}\r\nX: y")
    with pytest.raises(ValueError, match="what MY_KEY holds is no key") as caught:
        OpenAIHttpEngine(config, ModelConfig())
    assert KEY not in str(caught.value)


# Models and adapters


def test_the_only_model_is_asked_for_and_of_several_one_must_be_named() -> None:
    adapter = {**MODEL, "id": "tuned", "parent": "some-model"}
    with FaultServer(models=[MODEL, adapter]) as server:
        ask(engine_at(server), request())
        assert server.chats[0].body["model"] == "some-model"
    with FaultServer(models=[MODEL, {**MODEL, "id": "other"}]) as server:
        with pytest.raises(ValueError, match=r"lists some-model, other; pass --engine.model NAME"):
            ask(engine_at(server), request())
        ask(engine_at(server, model="other"), request())
        assert server.chats[0].body["model"] == "other"
    with FaultServer(models=[]) as server, pytest.raises(ValueError, match="lists no model"):
        ask(engine_at(server), request())


def test_a_server_without_a_list_of_models_is_asked_for_the_named_one() -> None:
    with FaultServer(models=None) as server:
        (reply,) = ask(engine_at(server, model="any"), request("a"))
        assert reply.text == "you said a"
        assert server.chats[-1].body["model"] == "any"


def test_an_address_without_chats_is_told_at_the_start() -> None:
    with FaultServer() as server:
        config = EngineConfig.model_validate({"base_url": server.url.removesuffix("/v1"), "model": "some-model"})
        with pytest.raises(ValueError, match=r"/chat/completions answers 404 Not Found.*mostly ends in /v1"):
            reach_server(config)


def test_a_server_that_is_not_there_is_told_at_the_start() -> None:
    with FaultServer() as server:
        url = server.url
    started = time.monotonic()
    with pytest.raises(
        EngineError, match=r"/models gave no usable answer \(3 attempts, the last one: .*Cannot connect"
    ):
        ask(OpenAIHttpEngine(EngineConfig.model_validate({"base_url": url}), ModelConfig(), None, SOON), request())
    assert time.monotonic() - started < 5


def test_an_adapter_is_asked_for_by_name_if_the_server_has_it_and_that_it_is_applied_is_not_taken_for_proven(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultServer(models=[MODEL, {**MODEL, "id": "tuned", "parent": "some-model"}]) as server:
        ask(engine_at(server, {"tuned": tmp_path}), request("base"), request("adapted", adapter="tuned"))
        assert {seen.body["messages"][0]["content"]: seen.body["model"] for seen in server.chats} == {
            "base": "some-model",
            "adapted": "tuned",
        }
        assert f"{server.url} is no vLLM: that it applies tuned cannot be proven" in caplog.text
        with pytest.raises(EngineError, match=r"no adapter 'other'; the engine has \['tuned'\]"):
            ask(engine_at(server, {"tuned": tmp_path}), request(adapter="other"))


def test_an_adapter_whose_loading_is_not_confirmed_is_not_taken_for_one_that_the_server_does_not_want(
    tmp_path: Path,
) -> None:
    with FaultServer(loading_faults=[reset_at_once]) as server:
        ask(engine_at(server, {"tuned": tmp_path}), request(adapter="tuned"))
        assert [seen.body["model"] for seen in server.chats] == server.adapters
        assert len(server.adapters) == 1


def test_an_adapter_that_the_server_does_not_have_is_refused(tmp_path: Path) -> None:
    with FaultServer() as server, pytest.raises(ValueError, match=r"cannot be loaded into .*--engine.kind in_process"):
        ask(engine_at(server, {"tuned": tmp_path}), request())


# What is asked


FULL = Sampling(temperature=0.7, top_p=0.9, top_k=20, max_tokens=64, min_p=0.1, stop=("</a>", "\n\n"))


def test_sampling_is_sent_as_it_is() -> None:
    with FaultServer() as server:
        ask(engine_at(server), request("q", 5, FULL))
        assert server.chats[0].body == {
            "model": "some-model",
            "messages": [{"role": "user", "content": "q"}],
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 20,
            "min_p": 0.1,
            "max_tokens": 64,
            "seed": 5,
            "stop": ["</a>", "\n\n"],
        }


def test_what_openai_does_not_know_is_not_sent_where_it_is_not_set() -> None:
    with FaultServer() as server:
        ask(engine_at(server), request())
        assert set(server.chats[0].body) == {"model", "messages", "temperature", "top_p", "max_tokens", "seed"}


@pytest.mark.parametrize("owner", ["vllm", "sglang"])
def test_a_server_that_has_defaults_from_the_model_is_told_that_they_are_not_wanted(owner: str) -> None:
    with FaultServer(models=[{**MODEL, "owned_by": owner}]) as server:
        ask(engine_at(server), request(), request(sampling=FULL))
        plain, full = sorted((seen.body for seen in server.chats), key=lambda body: body["top_k"])
        assert (plain["top_k"], plain["min_p"], plain["repetition_penalty"]) == (-1, 0.0, 1.0)
        assert (full["top_k"], full["min_p"], full["repetition_penalty"]) == (20, 0.1, 1.0)


def test_the_servers_chat_template_is_told_what_the_config_says() -> None:
    with FaultServer() as server:
        model = ModelConfig(path="/nowhere", chat_template_args={"enable_thinking": False})
        ask(open_engine(model, EngineConfig.model_validate({"base_url": server.url})), request())
        assert server.chats[0].body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(("owner", "asked"), [("vllm", True), ("sglang", None), ("somebody", None)])
def test_only_a_server_that_can_tell_token_ids_is_asked_for_them(owner: str, asked: bool | None) -> None:
    with FaultServer(models=[{**MODEL, "owned_by": owner}]) as server:
        ask(engine_at(server), request())
        assert server.chats[0].body.get("return_token_ids") is asked


def test_a_model_that_wants_the_limit_by_its_newer_name_gets_it() -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    with FaultServer(fails(400, words, param="max_tokens")) as server:
        engine = engine_at(server)

        async def run() -> None:
            async with engine:
                await engine.generate(request())
                await engine.generate(request())

        asyncio.run(run())
        limits = [[key for key in seen.body if key.startswith("max_")] for seen in server.chats]
        assert limits == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"]]


TOO_LONG = [
    fails(400, "This model's maximum context length is 512 tokens. However, you requested 600 tokens"),
    fails(400, "'max_tokens' or 'max_completion_tokens' is too large: 8000. This model's maximum context length is 1"),
    fails(400, "The input (700 tokens) is longer than the model's context length (512 tokens)."),
    fails(400, "the request exceeds the available context size", type="exceed_context_size_error"),
    fails(400, "too long", code="context_length_exceeded"),
    fails(400, "prompt is too long: 210000 tokens > 200000 maximum"),
]


@pytest.mark.parametrize("fault", TOO_LONG)
def test_where_the_limit_does_not_fit_into_the_context_the_reply_takes_the_room_that_is_left(fault: Fault) -> None:
    with FaultServer(fault) as server:
        (reply,) = ask(engine_at(server), request("a"))
        assert reply.text == "you said a"
        assert "max_tokens" in server.chats[0].body and "max_tokens" not in server.chats[1].body


def test_a_prompt_beyond_the_context_gets_an_empty_reply_that_is_cut_off() -> None:
    with FaultServer(TOO_LONG[2], TOO_LONG[2]) as server:
        (reply,) = ask(engine_at(server), request("x" * 400))
        assert reply == Completion("", "length", prompt_tokens=100, completion_tokens=0)


# What is answered


def reply_to(body: Body) -> Completion:
    with FaultServer(reply=lambda asked: body) as server:
        (reply,) = ask(engine_at(server), request("12345678"))
        assert len(server.chats) == 1
        return reply


@pytest.mark.parametrize("content", [None, "", []])
def test_a_missing_content_is_an_empty_text(content: Any) -> None:
    reply = reply_to(answer(content))
    assert (reply.text, reply.finish_reason) == ("", "stop")
    assert reply_to(answer(content, "length")).finish_reason == "length"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart_from_the_text(name: str) -> None:
    reply = reply_to(answer("42", **{name: "six times seven"}))
    assert (reply.text, reply.reasoning) == ("42", "six times seven")


def test_a_content_in_parts_is_its_texts() -> None:
    parts = [{"type": "text", "text": "4"}, {"type": "image"}, {"type": "text", "text": "2"}]
    assert reply_to(answer(parts)).text == "42"


@pytest.mark.parametrize("reason", ["content_filter", "tool_calls", "function_call", None, "banana", {"odd": 1}])
def test_a_reply_that_did_not_stop_by_itself_counts_as_cut_off(reason: Any) -> None:
    assert reply_to(answer("half a", reason)).finish_reason == "length"


def test_tokens_are_counted_as_the_server_does_and_estimated_where_it_does_not() -> None:
    counted = reply_to(answer("abcd efgh", usage={"prompt_tokens": 11, "completion_tokens": 22}))
    assert (counted.prompt_tokens, counted.completion_tokens) == (11, 22)
    for usage in (None, {}, {"prompt_tokens": None, "completion_tokens": -1}, "many"):
        estimated = reply_to(answer("abcd efgh", usage=usage, reasoning="abcd"))
        assert (estimated.prompt_tokens, estimated.completion_tokens) == (2, 4)


def with_ids(prompt: Any, reply: Any) -> Body:
    """An answer with token ids as vLLM has them."""
    body = answer("1")
    body["choices"][0]["token_ids"] = reply
    return {**body, "prompt_token_ids": prompt}


def test_token_ids_are_kept_as_the_server_tells_them() -> None:
    told = reply_to(with_ids([1, 2, 3], [7, 2]))
    assert (told.prompt_ids, told.reply_ids) == ([1, 2, 3], [7, 2])
    assert reply_to(with_ids([1], [])).reply_ids == []


@pytest.mark.parametrize("ids", [None, "1 2", {"ids": [1]}, [1, "2"], [1, None], [True], [1.0]])
def test_what_is_no_list_of_token_ids_is_none(ids: Any) -> None:
    told = reply_to(with_ids(ids, ids))
    assert (told.text, told.prompt_ids, told.reply_ids) == ("1", None, None)
    assert reply_to(answer("1")).prompt_ids is None


# Together with the rollout loop


def adding(body: Body) -> Body:
    """Plays the adding game as `answer_or_not` does: what is replied depends on the request alone."""
    asked = ChatRequest(body["messages"], Sampling(), body["seed"])
    return answer(answer_or_not(asked), usage={"prompt_tokens": 3, "completion_tokens": 1})


def test_sixty_episodes_on_a_server_that_misbehaves_at_random_are_those_on_a_sound_one(tmp_path: Path) -> None:
    faults = [
        reset_at_once,
        reset_amid_the_body,
        truncated_json,
        invalid_json,
        nothing,
        fails(429, "slow down", retry_after="0.1"),
        fails(500),
        says(200, {"error": {"message": "overloaded"}}),
        says(200, {"choices": []}),
    ]
    slots = plan(60)
    with FaultServer(reply=adding) as sound:
        expected = play_with(engine_at(sound), slots, tmp_path / "sound")
    misbehaving = AtRandom(0.5, [stall, slow_drip, *faults], faults)
    with FaultServer(endless=itertools.repeat(misbehaving), reply=adding) as server:
        episodes = play_with(engine_at(server, timeout_s=3.0), slots, tmp_path / "faulty")
        assert len(server.chats) > 90
    assert len(episodes) == len({episode.key for episode in episodes}) == 60
    assert all(turn.reply and turn.finish_reason == "stop" for episode in episodes for turn in episode.turns)
    assert timeless(episodes) == timeless(expected)


def test_a_server_that_stays_broken_stops_the_run_and_what_had_finished_is_kept(tmp_path: Path) -> None:
    slots = plan(30)
    with (
        FaultServer(endless=itertools.chain([None] * 12, itertools.repeat(stall)), reply=adding) as server,
        pytest.raises(EngineError, match=r"the engine failed: .* no whole answer .*episodes are safe"),
    ):
        play_with(engine_at(server, timeout_s=1.0), slots, tmp_path / "journal")
    with FaultServer(reply=adding) as server:
        episodes = play_with(engine_at(server), slots, tmp_path / "journal")
        assert 0 < len(server.chats) <= 30 - 5
    assert sorted(episode.key for episode in episodes) == sorted(slot.key for slot in slots)


@pytest.mark.parametrize("fault", [stall, slow_drip])
def test_an_episode_whose_reply_does_not_come_in_time_is_an_error_and_not_tried_again(
    tmp_path: Path, fault: Fault
) -> None:
    began = time.monotonic()
    with FaultServer(fault, reply=adding) as server:
        engine = engine_at(server, timeout_s=30.0)
        episodes = play_with(engine, plan(20), tmp_path, max_error_rate=0.1, episode_timeout_s=1.0)
        assert len(server.chats) == 20
    assert time.monotonic() - began < 10
    assert [e.error.kind for e in episodes if e.error is not None] == ["EpisodeTimeout"]
    assert sum(len(e.turns) for e in episodes) == 19


def test_thoughts_are_in_the_journal_and_the_env_sees_the_text_alone(tmp_path: Path) -> None:
    with FaultServer(reply=lambda body: answer("1", reasoning_content="0 and 1 \ud800")) as server:
        (episode,) = play_with(engine_at(server), plan(1), tmp_path)
    assert episode.success
    assert (episode.turns[0].reply, episode.turns[0].reasoning) == ("1", "0 and 1 ?")
    assert json.loads(episode.model_dump_json())["turns"][0]["reasoning"] == "0 and 1 ?"


def test_token_ids_are_in_the_journal(tmp_path: Path) -> None:
    with FaultServer(reply=lambda body: with_ids([5, 6], [7, 2])) as server:
        (episode,) = play_with(engine_at(server), plan(1), tmp_path)
    assert (episode.turns[0].prompt_ids, episode.turns[0].reply_ids) == ([5, 6], [7, 2])


def test_connections_are_used_again(tmp_path: Path) -> None:
    with FaultServer(reply=adding) as server:
        play_with(engine_at(server, max_concurrency=4), plan(60), tmp_path)
        assert len(server.chats) == 60
        assert len({seen.client for seen in server.chats}) <= 4 + WATCHERS
