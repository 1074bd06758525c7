"""Data files become token rows once, in bounded memory; files are mixed by weight; what is trained is shown."""

from __future__ import annotations

import io
import json
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from transformers import AutoTokenizer

from tasks.dataset.rows import DataFileError
from tasks.engines.chat_tokens import end_of_turn_id
from tasks.training.config import TrainConfig
from tasks.training.gate.audit import Audit, audit, audit_markdown, audit_rows, audit_table
from tasks.training.rows import token_data as module
from tasks.training.rows.mixing import rows_of_pass
from tasks.training.rows.token_data import NothingToTrainError, TokenData, cache_folder, token_data

Make = Callable[..., TokenData]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def make(tiny_model: Path, tokenizer: Any) -> Make:
    def made(*data: Path, **config: Any) -> TokenData:
        return token_data(data, tiny_model, tokenizer, {}, TrainConfig.model_validate(config))

    return made


def write(path: Path, *replies: str, prompt: str = "What is 12 + 30?", **metadata: Any) -> Path:
    rows = [{"prompt": f"{prompt} {i}", "completion": reply, "metadata": metadata} for i, reply in enumerate(replies)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def audited(data: list[Path], tokens: TokenData, tokenizer: Any, **config: Any) -> tuple[Audit, Any]:
    return audit(tokens, data, tokenizer, end_of_turn_id(tokenizer, {}), TrainConfig.model_validate(config))


def test_the_rows_on_disk_are_prompt_and_reply_with_the_loss_on_the_reply(
    tmp_path: Path, make: Make, tokenizer: Any
) -> None:
    (row,) = make(write(tmp_path / "a.jsonl", "42")).rows
    assert tokenizer.decode(row["input_ids"][row["prompt_length"] :]) == "42<|im_end|>"
    assert tokenizer.decode(row["input_ids"][: row["prompt_length"]]).endswith("<|im_start|>assistant\n")


def test_the_same_content_is_tokenised_once_wherever_it_lies_and_however_it_is_trained(
    tmp_path: Path, make: Make
) -> None:
    first = make(write(tmp_path / "a.jsonl", "42"))
    (folder,) = [path for path in cache_folder().iterdir() if path.is_dir()]
    before = (folder / "rows.arrow").stat().st_mtime_ns
    again = make(write(tmp_path / "b.jsonl", "42"), learning_rate=1e-3, seed=7, lora_r=1)
    assert again.rows[:] == first.rows[:] and again.counts == first.counts
    assert (folder / "rows.arrow").stat().st_mtime_ns == before
    make(write(tmp_path / "b.jsonl", "43"))
    make(tmp_path / "a.jsonl", max_length=100)
    assert len([path for path in cache_folder().iterdir() if path.is_dir()]) == 3


def test_another_template_or_argument_is_another_content(tmp_path: Path, thinking_model: Path, make: Make) -> None:
    data = [write(tmp_path / "a.jsonl", "42")]
    thinking: Any = AutoTokenizer.from_pretrained(thinking_model)
    plain = token_data(data, thinking_model, thinking, {}, TrainConfig())
    told = token_data(data, thinking_model, thinking, {"enable_thinking": False}, TrainConfig())
    assert len(told.rows[0]["input_ids"]) > len(plain.rows[0]["input_ids"])


def test_what_was_used_longest_ago_is_forgotten(tmp_path: Path, make: Make) -> None:
    for i in range(module._MOST_KEPT + 2):
        make(write(tmp_path / "a.jsonl", str(i)))
    assert len([path for path in cache_folder().iterdir() if path.is_dir()]) == module._MOST_KEPT
    assert len(list(cache_folder().iterdir())) == 2 * module._MOST_KEPT  # each with its lock


def test_a_row_that_would_teach_the_wrong_thing_is_named_and_nothing_is_left_behind(
    tmp_path: Path, tiny_model: Path
) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = str(tokenizer.chat_template).replace("assistant\n", "assistant\n<think>\n")
    data = write(tmp_path / "a.jsonl", "thought</think>42", "42")
    with pytest.raises(DataFileError, match=r"a\.jsonl:2: the chat template opens <think>"):
        token_data([data], tiny_model, tokenizer, {}, TrainConfig())
    assert not [path for path in cache_folder().iterdir() if path.suffix != ".lock"]


LONG = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "word " * 40},
    {"role": "assistant", "content": "one"},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "two"},
]


def write_long(path: Path) -> Path:
    """A row that fits, one of which older messages can be left out, and one with a reply that is too long."""
    rows = [{"messages": LONG[3:]}, {"messages": LONG}, {"prompt": "q", "completion": "word " * 40}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_is_too_long_is_dropped_and_counted(tmp_path: Path, make: Make) -> None:
    data = write_long(tmp_path / "a.jsonl")
    tokens = make(data, max_length=100)
    assert (len(tokens.rows), tokens.counts.dropped_overlong, tokens.counts.shortened) == (1, 2, 0)
    longest = max(len(row["input_ids"]) for row in make(data).rows)
    assert make(data, max_length=longest).counts.dropped_overlong == 0
    assert make(data, max_length=longest - 1).counts.dropped_overlong == 1


def test_what_is_too_long_can_be_an_error(tmp_path: Path, make: Make) -> None:
    with pytest.raises(DataFileError, match=r"a\.jsonl:2: \d+ tokens; wanted at most train\.max_length=100; raise"):
        make(write_long(tmp_path / "a.jsonl"), max_length=100, on_overlong="error")


def test_truncating_leaves_out_old_messages_whole_and_never_a_part_of_the_reply(
    tmp_path: Path, make: Make, tokenizer: Any
) -> None:
    tokens = make(write_long(tmp_path / "a.jsonl"), max_length=100, on_overlong="truncate")
    assert (len(tokens.rows), tokens.counts.dropped_overlong, tokens.counts.shortened) == (2, 1, 1)
    kept = [message for message in LONG if message not in LONG[1:3]]
    shown = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in kept)
    assert tokenizer.decode(tokens.rows[1]["input_ids"]) == shown.removesuffix("\n")


def test_nothing_to_train_on_is_said_with_the_length_that_would_do(tmp_path: Path, make: Make) -> None:
    with pytest.raises(NothingToTrainError, match=r"all 2 rows are longer than train\.max_length=8; the shortest has"):
        make(write(tmp_path / "a.jsonl", "1", "2"), max_length=8)


def test_a_row_that_two_files_hold_is_the_first_files(tmp_path: Path, make: Make, tokenizer: Any) -> None:
    data = [write(tmp_path / "a.jsonl", "1", "2"), write(tmp_path / "b.jsonl", "1", "3")]
    tokens = make(*data)
    assert (tokens.rows["file"][:], tokens.counts.duplicates) == ([0, 0, 1], 1)
    found, _ = audited(data, tokens, tokenizer)
    assert [(share.name, share.rows) for share in found.files] == [("a.jsonl", 2), ("b.jsonl", 1)]


def test_weights_repeat_whole_files_and_draw_the_rest_by_lot() -> None:
    files = np.array([0] * 10 + [1] * 10)
    rows = rows_of_pass(files, [2.5, 0.3], 0)
    times = Counter(rows.tolist())
    assert sorted(times[i] for i in range(10)) == [2] * 5 + [3] * 5
    assert sorted(times[i] for i in range(10, 20)) == [0] * 7 + [1] * 3
    assert rows_of_pass(files, [2.5, 0.3], 0).tolist() == rows.tolist() != rows_of_pass(files, [2.5, 0.3], 1).tolist()
    assert rows_of_pass(files, [1, 1], 0).tolist() == list(range(20))
    with pytest.raises(
        NothingToTrainError, match=r"the weights 0\.01, 0\.01 in train\.data_path leave none of 20 rows"
    ):
        rows_of_pass(files, [0.01, 0.01], 0)


def test_the_audit_counts_what_a_pass_trains(tmp_path: Path, make: Make, tokenizer: Any) -> None:
    data = [write(tmp_path / "a.jsonl", "1", "2 and 3"), write(tmp_path / "b.jsonl", "cut", finish_reason="length")]
    weights = {str(data[0]): 2}
    found, split = audited(data, make(*data), tokenizer, data_path=weights)
    rows = make(*data).rows.select(split.training)
    trained = [len(row["input_ids"][row["prompt_length"] :]) for row in rows]
    lengths = [len(row["input_ids"]) for row in rows]
    assert (found.rows, found.trained_tokens, found.tokens) == (5, sum(trained), sum(lengths))
    assert (found.lengths.shortest, found.lengths.longest) == (min(lengths), max(lengths))
    assert (found.reply_lengths.shortest, found.reply_lengths.longest) == (min(trained), max(trained))
    assert [share.trained for share in found.files] == [4, 1]
    assert found.without_end == 1
    shown = dict(audit_rows(found))
    assert shown["  of a.jsonl"] == "2, weight 2: 4 in a pass"
    assert shown["replies without an end, as they were cut off"] == "1"


def test_the_audit_shows_the_text_that_the_loss_is_on(tmp_path: Path, make: Make, tokenizer: Any) -> None:
    data = [write(tmp_path / "a.jsonl", "first ```\n```text " + "x" * 700 + " last", agent_name="solver")]
    found, _ = audited(data, make(*data), tokenizer)
    (sample,) = found.samples
    assert (sample.where, sample.agent_name) == ("a.jsonl:1", "solver")
    assert sample.not_trained.endswith("<|im_start|>assistant\n")
    assert sample.trained.startswith("first") and sample.trained.endswith("last<|im_end|>")
    assert "characters] ..." in sample.trained and len(sample.trained) < 650
    text = "\n\n".join(audit_markdown(found))
    assert re.search(r"^````text\nfirst ```", text, re.MULTILINE)
    Console(file=(terminal := io.StringIO()), width=100).print(audit_table(found))
    assert "last<|im_end|>" in terminal.getvalue()


def test_the_audit_is_the_same_from_the_cache(tmp_path: Path, make: Make, tokenizer: Any) -> None:
    data = [write(tmp_path / "a.jsonl", *map(str, range(300)))]
    first = audited(data, make(*data), tokenizer)[0]
    assert audited(data, make(*data), tokenizer)[0] == first
    assert len(make(*data).counts.samples) == module._MOST_SAMPLES


def test_a_long_file_is_tokenised_without_being_held(tmp_path: Path, make: Make, tokenizer: Any) -> None:
    data = [write(tmp_path / "a.jsonl", *(f"{i} " + "word " * 50 for i in range(4000)))]
    tracemalloc.start()
    try:
        tokens = make(*data)
        audited(data, tokens, tokenizer)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(tokens.rows) == 4000 and sum(len(ids) for ids in tokens.rows["input_ids"]) > 500_000
    assert peak < 12_000_000  # as Python integers they would be more than 40 MB
