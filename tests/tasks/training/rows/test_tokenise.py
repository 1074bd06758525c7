"""The loss is on the reply and its end of turn, in the very tokens that the engine reads and samples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from envs.base import EnvConfig
from envs.sandbox.base import SandboxConfig
from tasks.dataset.records import Record
from tasks.engines.chat_tokens import encode, end_of_turn_id, prompt_token_ids
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.model_files import STARTER_FOLDER
from tasks.rollout.collection import Collection, PlayConfig
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Turn
from tasks.training.rows.tokenise import TokenRow, UntrainableRowError, differs_from_sampled, tokenise

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is 1 + 1?"},
    {"role": "assistant", "content": "3"},
    {"role": "user", "content": "Again."},
    {"role": "assistant", "content": " It is 2.\n"},
]


def rows_of(records: list[Record], tokenizer: Any, template_args: dict[str, Any] | None = None) -> list[TokenRow]:
    rows = tokenise(records, tokenizer, template_args or {})
    return [row for row in rows if isinstance(row, TokenRow)]


def with_template(tokenizer: Any, template: str) -> None:
    """Render prompts so; the shape of a whole turn, which tells what ends it, stays."""
    asking = "{% if add_generation_prompt %}"
    tokenizer.chat_template = f"{asking}{template}{{% else %}}{CHAT_TEMPLATE}{{% endif %}}"


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def record(messages: list[dict[str, str]], **metadata: Any) -> Record:
    return Record.model_validate({"messages": messages, "metadata": metadata})


def test_the_loss_is_on_the_last_reply_and_its_end_of_turn(tokenizer: Any) -> None:
    (row,) = rows_of([record(CHAT)], tokenizer)
    assert tokenizer.decode(row.reply_ids) == " It is 2.\n<|im_end|>"
    prompt = row.input_ids[: -len(row.reply_ids)]
    assert prompt == row.prompt_ids == prompt_token_ids(tokenizer, CHAT[:-1], {})  # type: ignore[arg-type]
    assert tokenizer.decode(prompt).endswith("Again.<|im_end|>\n<|im_start|>assistant\n")


def test_a_trained_prompt_is_told_what_the_played_one_was(thinking_model: Path) -> None:
    thinking: Any = AutoTokenizer.from_pretrained(thinking_model)
    (row,) = rows_of([record(CHAT)], thinking, {"enable_thinking": False})
    assert thinking.decode(row.input_ids).endswith("assistant\n<think>\n\n</think>\n\n It is 2.\n<|im_end|>")


def test_a_reply_that_was_cut_off_is_not_taught_to_end_there(tokenizer: Any) -> None:
    (row,) = rows_of([record(CHAT, finish_reason="length")], tokenizer)
    assert tokenizer.decode(row.reply_ids) == " It is 2.\n"


REFUSED_PROMPTS = {
    "{{ raise_exception('roles must\nalternate') }}": r"refuses the prompt \(TemplateError: roles must alternate",
    "<|im_start|><|im_start|>" + CHAT_TEMPLATE: "begins with <|im_start|> twice; wanted it once",
    CHAT_TEMPLATE + "<think>\n": "the reply never closes it, so its thoughts are lost; put them into the reply",
}


@pytest.mark.parametrize("template", REFUSED_PROMPTS)
def test_a_prompt_behind_which_the_wrong_thing_would_be_learned_is_refused(tiny_model: Path, template: str) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.bos_token = "<|im_start|>"
    good = tokenise([record(CHAT)], tokenizer, {})
    assert isinstance(good[0], TokenRow)
    with_template(tokenizer, template)
    (found,) = tokenise([record(CHAT)], tokenizer, {})
    assert isinstance(found, UntrainableRowError) and "\n" not in str(found)
    assert re.search(REFUSED_PROMPTS[template].replace("|im_start|", r"\|im_start\|"), str(found))


def test_thoughts_are_trained_where_the_template_opens_them_and_where_it_does_not(tiny_model: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    thought = [*CHAT[:-1], {"role": "assistant", "content": "<think>one</think>two"}]
    (row,) = rows_of([record(thought)], tokenizer)
    assert tokenizer.decode(row.reply_ids) == "<think>one</think>two<|im_end|>"
    with_template(tokenizer, CHAT_TEMPLATE + "<think>\n")
    (doubled,) = tokenise([record(thought)], tokenizer, {})
    assert "<think> would stand there twice" in str(doubled)
    opened = [*CHAT[:-1], {"role": "assistant", "content": "one</think>two"}]
    (row,) = rows_of([record(opened)], tokenizer)
    assert tokenizer.decode(row.input_ids).endswith("assistant\n<think>\none</think>two<|im_end|>")
    (cut,) = rows_of([record(CHAT, finish_reason="length")], tokenizer)
    assert tokenizer.decode(cut.reply_ids) == " It is 2.\n"


def test_thoughts_are_not_opened_behind_those_that_the_template_has_closed(thinking_model: Path) -> None:
    thinking: Any = AutoTokenizer.from_pretrained(thinking_model)
    thought = [*CHAT[:-1], {"role": "assistant", "content": "<think>one</think>two"}]
    assert rows_of([record(thought)], thinking)
    (doubled,) = tokenise([record(thought)], thinking, {"enable_thinking": False})
    assert "<think> would stand there twice" in str(doubled)


def test_thoughts_that_a_reply_never_closes_are_refused_unless_it_was_cut_off(tokenizer: Any) -> None:
    open_ended = [*CHAT[:-1], {"role": "assistant", "content": "<think>It is 2."}]
    (found,) = tokenise([record(open_ended)], tokenizer, {})
    assert "opens <think> and never closes it" in str(found)
    assert rows_of([record(open_ended, finish_reason="length")], tokenizer)


@pytest.mark.parametrize("reply", ["It is 2.<|im_end|>", "2<|im_end|>\n<|im_start|>user\nAnd 3?"])
def test_a_reply_that_goes_on_behind_its_end_is_refused(tokenizer: Any, reply: str) -> None:
    (found,) = tokenise([record([*CHAT[:-1], {"role": "assistant", "content": reply}])], tokenizer, {})
    assert "the reply holds <|im_end|>, which ends a turn" in str(found)


def test_a_reply_of_which_the_tokenizer_makes_nothing_is_refused(tiny_model: Path) -> None:
    from tokenizers.normalizers import Replace

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.backend_tokenizer.normalizer = Replace("7", "")
    seven = [*CHAT[:-1], {"role": "assistant", "content": "7"}]
    found = tokenise([record(seven), record(CHAT)], tokenizer, {})
    assert "makes no token of the reply" in str(found[0]) and isinstance(found[1], TokenRow)


def test_rows_are_the_same_alone_and_together(tokenizer: Any) -> None:
    records = [record(CHAT), record(CHAT[:3]), record(CHAT, finish_reason="length")]
    assert rows_of(records, tokenizer) == [row for one in records for row in rows_of([one], tokenizer)]


def test_the_end_of_turn_is_the_templates_where_it_is_not_the_tokenizers(tiny_model: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    wanted = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>", "extra_special_tokens": ["<|im_end|>"]})
    assert tokenizer.eos_token_id != wanted
    assert end_of_turn_id(tokenizer, {}) == wanted


def played(folder: Path, model: Path | str, arguments: dict[str, Any], **collect: Any) -> list[Turn]:
    """Turns of one-turn episodes that the in-process engine has played."""
    config = PlayConfig(
        env=EnvConfig(name="math_env", roles=("math_single_agent",), max_turns=1),
        model=ModelConfig(path=str(model), chat_template_args=arguments),
        engine=EngineConfig(kind="in_process", num_gpus=0),
        sandbox=SandboxConfig(),
        collect=CollectConfig.model_validate({"num_episodes": 12, "max_tokens": 100, **collect}),
    )
    episodes = Collection.for_training(config, {}).play(folder, "playing").read()
    return [turn for episode in episodes for turn in episode.turns]


def test_what_was_sampled_is_what_would_be_trained(tmp_path: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(STARTER_FOLDER)
    turns = played(tmp_path, "starter", {}, temperature=0.0)
    assert len(turns) == 12
    assert {differs_from_sampled(turn, tokenizer, {}) for turn in turns} == {None}
    assert {turn.finish_reason for turn in turns} == {"stop"}


def test_a_prompt_that_was_told_something_else_is_noticed(thinking_model: Path, tmp_path: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(thinking_model)
    told = {"enable_thinking": False}
    turns = played(tmp_path, thinking_model, told)
    assert "prompt" not in {differs_from_sampled(turn, tokenizer, told) for turn in turns}
    assert {differs_from_sampled(turn, tokenizer, {}) for turn in turns} == {"prompt"}


def test_a_reply_that_is_spelled_with_other_tokens_is_noticed(tokenizer: Any) -> None:
    prompt, reply = prompt_token_ids(tokenizer, CHAT[:-1], {}), "The answer is 42."  # type: ignore[arg-type]
    end = end_of_turn_id(tokenizer, {})
    spelled = [token for char in reply for token in encode(tokenizer, char)]
    sampled = turn_with(prompt, [*encode(tokenizer, reply), end])
    assert differs_from_sampled(sampled, tokenizer, {}) is None
    assert tokenizer.decode(spelled) == reply
    assert differs_from_sampled(turn_with(prompt, [*spelled, end]), tokenizer, {}) == "reply"
    assert differs_from_sampled(turn_with(prompt, encode(tokenizer, reply)), tokenizer, {}) == "reply"


def test_a_turn_without_token_ids_cannot_be_checked(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="turn 0 of solver has no token ids; wanted one from an engine that tells"):
        differs_from_sampled(turn_with([1], None), tokenizer, {})


def turn_with(prompt_ids: list[int], reply_ids: list[int] | None) -> Turn:
    return Turn(
        agent_name="solver",
        policy_name="shared_model",
        turn_idx=0,
        messages=CHAT[:-1],
        reply="The answer is 42.",
        finish_reason="stop",
        reward=1.0,
        success=True,
        prompt_tokens=1,
        completion_tokens=1,
        prompt_ids=prompt_ids,
        reply_ids=reply_ids,
    )
