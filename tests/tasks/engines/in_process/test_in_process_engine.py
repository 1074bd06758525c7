"""The in-process engine with a real, tiny, untrained model."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from tasks.engines import open_engine
from tasks.engines.base import ChatRequest, Completion, Engine, EngineError, Sampling
from tasks.engines.config import EngineConfig, ModelConfig

GREEDY = Sampling(temperature=0, max_tokens=24)


def engine_for(folder: Path, adapters: Mapping[str, Path] | None = None, max_concurrency: int = 64) -> Engine:
    return open_engine(
        ModelConfig(path=str(folder)), EngineConfig(kind="in_process", max_concurrency=max_concurrency), adapters
    )


def request(text: str, seed: int = 0, sampling: Sampling | None = None, adapter: str | None = None) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], sampling or Sampling(max_tokens=24), seed, adapter)


async def answers(engine: Engine, requests: list[ChatRequest]) -> list[Completion]:
    return list(await asyncio.gather(*(engine.generate(r) for r in requests)))


def ask(folder: Path, requests: list[ChatRequest], adapters: Mapping[str, Path] | None = None) -> list[Completion]:
    async def run() -> list[Completion]:
        async with engine_for(folder, adapters) as engine:
            return await answers(engine, requests)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter with random weights."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    folder = tmp_path_factory.mktemp("adapter")
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(folder)
    return folder


def test_a_seed_gets_the_same_reply_alone_and_in_a_batch_of_others(tiny_model: Path) -> None:
    async def run() -> None:
        async with engine_for(tiny_model) as engine:
            alone = [await engine.generate(request("sum " * n, seed=n)) for n in (1, 5, 9)]
            crowd = [request("sum " * (n % 11), seed=n, sampling=Sampling(0.7, 0.9, 20, 40)) for n in range(30)]
            together = await answers(engine, [*crowd, *(request("sum " * n, seed=n) for n in (1, 5, 9))])
            assert [c.reply_ids for c in together[-3:]] == [c.reply_ids for c in alone]

    asyncio.run(run())


def test_a_request_that_joins_a_running_batch_gets_the_reply_that_it_gets_alone(tiny_model: Path) -> None:
    late = [request("late " * n, seed=n, sampling=Sampling(max_tokens=60)) for n in range(1, 9)]

    async def run() -> None:
        async with engine_for(tiny_model, max_concurrency=8) as engine:
            alone = [await engine.generate(r) for r in late]
            # Replies of very different lengths: rows leave all the time, and the late ones take their places.
            crowd = [request("early", seed=n, sampling=Sampling(max_tokens=5 + 12 * n)) for n in range(12)]
            together = await answers(engine, crowd + late)
            assert [c.reply_ids for c in together[12:]] == [c.reply_ids for c in alone]

    asyncio.run(run())


def test_another_seed_gets_another_reply(tiny_model: Path) -> None:
    texts = {c.text for c in ask(tiny_model, [request("hello", seed=s) for s in (0, 1, 2**32, 2**40)])}
    assert len(texts) == 4


def test_greedy_replies_are_those_of_transformers_generate(tiny_model: Path) -> None:
    texts = ["short", "a question that is much longer than the other one", "12 + 30"]
    replies = ask(tiny_model, [request(t, sampling=GREEDY) for t in texts])
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    for text, reply in zip(texts, replies, strict=True):
        chat = [{"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        whole = model.generate(**prompt, do_sample=False, max_new_tokens=GREEDY.max_tokens)[0].tolist()
        assert list(reply.prompt_ids or []) == prompt["input_ids"][0].tolist()
        assert list(reply.reply_ids or []) == whole[reply.prompt_tokens :]


def test_top_k_of_one_is_greedy_at_any_temperature(tiny_model: Path) -> None:
    hot = Sampling(temperature=3.0, top_k=1, max_tokens=24)
    greedy, top_one = ask(tiny_model, [request("hi", sampling=GREEDY), request("hi", sampling=hot, seed=5)])
    assert greedy.reply_ids == top_one.reply_ids


def test_a_reply_ends_at_its_last_allowed_token_or_at_the_end_of_turn(tiny_model: Path) -> None:
    replies = ask(tiny_model, [request("hi", seed=s, sampling=Sampling(max_tokens=100)) for s in range(40)])
    end = AutoTokenizer.from_pretrained(tiny_model).eos_token_id
    stopped = [c for c in replies if c.finish_reason == "stop"]
    cut = [c for c in replies if c.finish_reason == "length"]
    assert stopped and cut  # an untrained model does both
    assert all(c.reply_ids and c.reply_ids[-1] == end and "<|im_end|>" not in c.text for c in stopped)
    assert all(c.completion_tokens == 100 and c.reply_ids and end not in c.reply_ids for c in cut)


def test_a_stop_text_ends_the_reply_before_it_and_with_the_token_that_completes_it(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    plain = [request("hi", seed=seed, sampling=Sampling(max_tokens=60)) for seed in range(30)]
    whole, stopping, stops = [], [], []
    for asked, reply in zip(plain, ask(tiny_model, plain), strict=True):
        length = 1 + asked.seed % 3
        parts = [reply.text[i : i + length] for i in range(5, len(reply.text) - length)]
        if stop := next((part for part in parts if "\ufffd" not in part), None):
            sampling = Sampling(max_tokens=60, stop=("never in it", stop, f"{stop} or more"))
            whole.append(reply)
            stops.append(stop)
            stopping.append(request("hi", seed=asked.seed, sampling=sampling))
    assert len(whole) > 15
    stopped = ask(tiny_model, stopping)
    for reply, full, stop in zip(stopped, whole, stops, strict=True):
        ids = list(full.reply_ids or [])
        needed = next(n for n in range(len(ids) + 1) if stop in tokenizer.decode(ids[:n], skip_special_tokens=True))
        assert reply.text == full.text[: full.text.index(stop)]
        assert reply.finish_reason == "stop"
        assert list(reply.reply_ids or []) == ids[:needed]
        assert reply.completion_tokens == needed


def test_a_stop_text_that_does_not_come_changes_nothing(tiny_model: Path) -> None:
    plain, with_stop = ask(
        tiny_model, [request("hi"), request("hi", sampling=Sampling(max_tokens=24, stop=("zzzzz",)))]
    )
    assert plain == with_stop


def test_a_prompt_beyond_the_models_context_gets_an_empty_reply_that_is_cut_off(tiny_model: Path) -> None:
    (beyond, near) = ask(tiny_model, [request("x" * 600), request("x" * 480, sampling=Sampling(0, max_tokens=400))])
    assert (beyond.text, beyond.finish_reason, beyond.completion_tokens) == ("", "length", 0)
    assert near.prompt_tokens + near.completion_tokens <= 512


def test_an_adapter_changes_the_replies_and_the_base_stays_as_it_was(tiny_model: Path, adapter: Path) -> None:
    base = [request(f"q{i}", sampling=GREEDY) for i in range(6)]
    adapted = [request(f"q{i}", sampling=GREEDY, adapter="tuned") for i in range(6)]
    mixed = [r for pair in zip(base, adapted, strict=True) for r in pair]
    got = [c.text for c in ask(tiny_model, mixed, {"tuned": adapter})]
    assert got[0::2] == [c.text for c in ask(tiny_model, base)]
    assert got[0::2] != got[1::2]


def test_a_quick_reply_of_one_adapter_does_not_wait_for_the_slow_ones_of_another(
    tiny_model: Path, adapter: Path
) -> None:
    async def run() -> None:
        async with engine_for(tiny_model, {"tuned": adapter}) as engine:
            long = Sampling(temperature=0, max_tokens=450)
            slow = [asyncio.create_task(engine.generate(request(f"s{i}", sampling=long))) for i in range(8)]
            await asyncio.sleep(0.05)
            for i in range(3):  # a conversation
                await engine.generate(request(f"q{i}", sampling=Sampling(0, max_tokens=5), adapter="tuned"))
            assert not all(task.done() for task in slow)
            await asyncio.gather(*slow)

    asyncio.run(run())


def test_adapters_that_take_turns_give_the_replies_that_they_give_alone(tiny_model: Path, adapter: Path) -> None:
    both = [request(f"q{i}", seed=i, adapter=("tuned", None)[i % 2]) for i in range(20)]
    together = ask(tiny_model, both, {"tuned": adapter})
    alone = [*ask(tiny_model, both[0::2], {"tuned": adapter}), *ask(tiny_model, both[1::2], {"tuned": adapter})]
    assert [c.reply_ids for c in together[0::2] + together[1::2]] == [c.reply_ids for c in alone]


def test_an_adapters_replies_are_those_of_peft(tiny_model: Path, adapter: Path) -> None:
    from peft import PeftModel

    (reply,) = ask(tiny_model, [request("what?", sampling=GREEDY, adapter="tuned")], {"tuned": adapter})
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), adapter)
    prompt = torch.tensor([list(reply.prompt_ids or [])])
    whole = model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=GREEDY.max_tokens
    )
    assert list(reply.reply_ids or []) == whole[0, reply.prompt_tokens :].tolist()


def test_an_adapter_folder_with_a_whole_model_takes_the_bases_place(tiny_model: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "full")
    weights = load_file(other / "model.safetensors")
    save_file({k: v.flip(0) for k, v in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    base, full = ask(
        tiny_model, [request("a", sampling=GREEDY), request("a", sampling=GREEDY, adapter="full")], {"full": other}
    )
    assert full.text == ask(other, [request("a", sampling=GREEDY)])[0].text != base.text


def test_a_failure_reaches_every_waiting_request_and_every_later_one(tiny_model: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})

    async def run() -> None:
        async with engine_for(broken, max_concurrency=4) as engine:
            waiting = [engine.generate(request("x", seed=i)) for i in range(10)]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(r, EngineError) and "NaN" in str(r) for r in results)
            with pytest.raises(EngineError, match="NaN"):
                await engine.generate(request("later"))

    asyncio.run(run())


def test_a_model_that_is_not_there_fails_the_start_and_leaves_no_thread(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(ValueError, match="no folder"):
            async with engine_for(tmp_path / "nowhere"):
                pass

    asyncio.run(run())
    assert not [t for t in threading.enumerate() if t.name == "winnow-engine"]


def test_a_model_without_a_chat_template_is_the_users_mistake(tiny_model: Path, tmp_path: Path) -> None:
    mute = shutil.copytree(tiny_model, tmp_path / "mute")
    (mute / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        ask(mute, [request("x")])


def test_an_adapter_of_another_base_is_the_users_mistake(tiny_model: Path, adapter: Path) -> None:
    from tasks.engines.model_files import STARTER_FOLDER

    with pytest.raises(ValueError, match="does not fit the model"):
        ask(STARTER_FOLDER, [request("x", adapter="tuned")], {"tuned": adapter})


def test_a_machine_that_runs_out_of_memory_still_answers_all_requests(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [request("sum " * (n % 9), seed=n) for n in range(40)]
    expected = [c.reply_ids for c in ask(tiny_model, many)]

    def small_forward(self: object, input_ids: torch.Tensor, **inputs: object) -> object:
        if len(input_ids) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, input_ids=input_ids, **inputs)

    forward = Qwen3ForCausalLM.forward
    monkeypatch.setattr(Qwen3ForCausalLM, "forward", small_forward)
    assert [c.reply_ids for c in ask(tiny_model, many)] == expected


def test_a_request_that_nobody_waits_for_is_given_up(tiny_model: Path) -> None:
    async def run() -> None:
        async with engine_for(tiny_model) as engine:
            task = asyncio.create_task(engine.generate(request("x", sampling=Sampling(max_tokens=400))))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await engine.generate(request("y", sampling=GREEDY))).completion_tokens > 0

    asyncio.run(run())


def test_a_reply_that_takes_too_long_is_an_infrastructure_fault(tiny_model: Path) -> None:
    async def run() -> None:
        config = EngineConfig(kind="in_process", timeout_s=0.001)
        async with open_engine(ModelConfig(path=str(tiny_model)), config) as engine:
            with pytest.raises(EngineError, match="timeout_s"):
                await engine.generate(request("x", sampling=Sampling(max_tokens=400)))

    asyncio.run(run())


def test_an_unknown_adapter_is_named_with_those_that_exist(tiny_model: Path, adapter: Path) -> None:
    with pytest.raises(EngineError, match=r"'other'.*\['tuned'\]"):
        ask(tiny_model, [request("x", adapter="other")], {"tuned": adapter})


def test_stop_can_be_called_twice_and_fails_what_waits_or_comes_later(tiny_model: Path) -> None:
    async def run() -> None:
        engine = engine_for(tiny_model)
        await engine.start()
        waiting = asyncio.create_task(engine.generate(request("x", sampling=Sampling(max_tokens=490))))
        await asyncio.sleep(0.01)
        await engine.stop()
        await engine.stop()
        with pytest.raises(EngineError, match="stopped"):
            await waiting
        with pytest.raises(EngineError, match="stopped"):
            await engine.generate(request("x"))

    asyncio.run(run())
    assert not [t for t in threading.enumerate() if t.name == "winnow-engine"]


def test_nothing_is_printed(tiny_model: Path, adapter: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ask(tiny_model, [request("x"), request("x", adapter="tuned")], {"tuned": adapter})
    assert capfd.readouterr() == ("", "")
