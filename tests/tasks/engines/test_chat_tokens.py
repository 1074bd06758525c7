"""What a chat template is told besides the messages, and what is said of arguments that it does not take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer

from tasks.engines import open_engine
from tasks.engines.base import ChatRequest, Completion, Sampling
from tasks.engines.chat_tokens import TemplateArgsError, check_template_args, end_of_turn_id, prompt_token_ids
from tasks.engines.config import EngineConfig, ModelConfig
from tests.tasks.engines.started import ask, request

NO_THOUGHTS = {"enable_thinking": False}


@pytest.fixture(scope="module")
def tokenizer(thinking_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(thinking_model)


def test_an_argument_changes_the_prompt_and_not_what_ends_a_reply(tokenizer: Any) -> None:
    plain = prompt_token_ids(tokenizer, request().messages, {})
    told = prompt_token_ids(tokenizer, request().messages, NO_THOUGHTS)
    assert tokenizer.decode(told) == tokenizer.decode(plain) + "<think>\n\n</think>\n\n"
    assert end_of_turn_id(tokenizer, NO_THOUGHTS) == end_of_turn_id(tokenizer, {})


def test_the_in_process_engine_reads_the_prompt_that_the_arguments_make(thinking_model: Path, tokenizer: Any) -> None:
    def reply(arguments: dict[str, Any]) -> Completion:
        model = ModelConfig(path=str(thinking_model), chat_template_args=arguments)
        return ask(open_engine(model, EngineConfig(kind="in_process")), request())[0]

    for arguments in ({}, NO_THOUGHTS):
        assert reply(arguments).prompt_ids == prompt_token_ids(tokenizer, request().messages, arguments)
    assert reply(NO_THOUGHTS).prompt_ids != reply({}).prompt_ids


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"enable_thinkng": False}, "knows no enable_thinkng; did you mean enable_thinking?"),
        ({"colour": "red"}, "knows no colour; leave it out"),
        ({"mood": "wild"}, "refuses mood='wild': TemplateError: mood is calm"),
    ],
)
def test_an_argument_that_the_template_does_not_take_fails_the_start_in_one_line(
    thinking_model: Path, arguments: dict[str, Any], said: str
) -> None:
    model = ModelConfig(path=str(thinking_model), chat_template_args=arguments)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        ask(open_engine(model, EngineConfig(kind="in_process")), ChatRequest([], Sampling(), 0))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model.chat_template_args")


def test_a_template_without_arguments_is_told_none(tiny_model: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    check_template_args(tokenizer, {})
    with pytest.raises(TemplateArgsError, match="knows no enable_thinking"):
        check_template_args(tokenizer, NO_THOUGHTS)


@pytest.mark.parametrize("name", ["add_generation_prompt", "tokenize", "messages", "chat_template"])
def test_what_renders_the_prompts_is_not_overridden(name: str) -> None:
    with pytest.raises(ValidationError, match=f"model.chat_template_args.{name}: this is set by what renders"):
        ModelConfig(chat_template_args={name: False})
