"""Rows share a model, memory and time: none is lost, none waits for ever, none is answered differently."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tasks.engines.base import EngineError, Sampling
from tasks.engines.in_process import batching
from tasks.engines.in_process.attention import use_grouped_attention
from tasks.engines.in_process.batching import Batches
from tasks.engines.in_process.decoding import Row
from tasks.engines.in_process.sampling import row_uniforms

CPU = torch.device("cpu")


@dataclass
class SmallDevice:
    """A real model on a device that holds so many rows times columns at once, and notes what it was given."""

    model: Any
    most_cells: float
    sizes: list[tuple[int, int, int]] = field(default_factory=list)
    """Rows, new columns and all columns of each call."""

    def __call__(self, **inputs: Any) -> Any:
        rows, columns = inputs["attention_mask"].shape
        if rows * columns > self.most_cells:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        self.sizes.append((rows, inputs["input_ids"].shape[1], columns))
        return self.model(**inputs)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    use_grouped_attention(model)
    return model


def make_row(length: int, seed: int, max_tokens: int = 40, adapter: str | None = None) -> Row:
    prompt = [3 + (seed * 31 + i * 7) % 200 for i in range(length)]
    return Row(prompt, Sampling(max_tokens=max_tokens), max_tokens, row_uniforms(seed, max_tokens), adapter=adapter)


def make_rows() -> list[Row]:
    return [make_row(5 + (13 * n) % 60, seed=n, max_tokens=10 + n % 50) for n in range(60)]


def batches_for(select: Callable[[str | None], Any], most_rows: int = 64) -> Batches:
    return Batches(select, frozenset({2}), CPU, most_rows)


def answer_all(batches: Batches, rows: list[Row]) -> list[Row]:
    batches.add(rows)
    finished: list[Row] = []
    with torch.inference_mode():
        while batches.rows:
            finished += batches.turn()
    return finished


def test_rows_that_run_out_of_memory_are_all_answered_once_and_as_if_they_had_not(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plenty = answer_all(batches_for(lambda _: model), make_rows())
    expected = {tuple(row.prompt_ids): row.reply_ids for row in plenty}
    small = SmallDevice(model, most_cells=1000)
    batches = batches_for(lambda _: small)
    rows = make_rows()
    with caplog.at_level(logging.WARNING):
        finished = answer_all(batches, rows)
    assert sorted(map(id, finished)) == sorted(map(id, rows))
    assert {tuple(row.prompt_ids): row.reply_ids for row in finished} == expected
    assert max(num_rows for num_rows, _, _ in small.sizes) >= 4
    assert batches.most_rows < 64
    assert [r.message for r in caplog.records if "out of memory" in r.message] == caplog.messages
    assert len(caplog.messages) == 1


def test_a_cpu_that_has_no_memory_left_is_out_of_memory_as_well(model: Any) -> None:
    failures = iter([RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")])

    def fail_once(**inputs: Any) -> Any:
        if inputs["input_ids"].shape[1] == 1 and (failure := next(failures, None)):
            raise failure
        return model(**inputs)

    batches = batches_for(lambda _: fail_once)
    assert len(answer_all(batches, make_rows())) == 60
    assert batches.most_rows < 64


def test_a_failure_that_is_not_about_memory_is_not_swallowed(model: Any) -> None:
    def broken(**inputs: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        answer_all(batches_for(lambda _: broken), make_rows())


def test_where_a_single_row_does_not_fit_the_error_says_what_to_do(model: Any) -> None:
    small = SmallDevice(model, most_cells=50)
    with pytest.raises(EngineError, match=r"single reply of \d+ tokens.*lower collect\.max_tokens"):
        answer_all(batches_for(lambda _: small), [make_row(30, seed=n, max_tokens=80) for n in range(5)])


def test_after_running_out_of_memory_more_rows_are_tried_only_now_and_then(model: Any) -> None:
    failures: list[int] = []

    def small(**inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 8:
            failures.append(len(inputs["input_ids"]))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return model(**inputs)

    batches = batches_for(lambda _: small, most_rows=16)
    assert len(answer_all(batches, [make_row(9, seed=n, max_tokens=60) for n in range(200)])) == 200
    assert failures[0] == 16
    assert 2 <= len(failures) <= 5  # some 1,000 turns of 4 to 8 rows


def test_the_memory_of_all_batches_together_is_bounded(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 3_000_000
    monkeypatch.setattr("tasks.engines.in_process.batching._free_bytes", lambda device: free)
    batches = batches_for(lambda _: model, most_rows=1000)
    batches.add([make_row(200 + n % 7, seed=n, max_tokens=100, adapter=(None, "b")[n % 2]) for n in range(100)])
    most_bytes, num_finished = 0, 0
    with torch.inference_mode():
        while batches.rows:
            num_finished += len(batches.turn())
            most_bytes = max(most_bytes, batches.cache_bytes)
    one_row = 2 * 2 * 2 * 12 * 4 * 264
    assert num_finished == 100
    assert 8 * one_row < most_bytes <= free


def test_rows_of_two_adapters_go_on_side_by_side(model: Any) -> None:
    selected: list[str | None] = []

    def select(adapter: str | None) -> Any:
        selected.append(adapter)
        return model

    batches = batches_for(select)
    slow = [make_row(20, seed=n, max_tokens=200) for n in range(8)]
    quick = [make_row(20, seed=n, max_tokens=8, adapter="b") for n in range(8)]
    batches.add([*slow, *quick])
    finished: list[Row] = []
    with torch.inference_mode():
        while not all(row.finish_reason for row in quick):
            finished += batches.turn()
    assert any(row.finish_reason is None and row.reply_ids for row in slow)
    assert set(selected) == {None, "b"}


def test_a_row_of_an_odd_length_is_not_passed_by_for_ever(model: Any) -> None:
    batches = batches_for(lambda _: model, most_rows=4)
    odd = make_row(300, seed=1000, max_tokens=5)
    batches.add([make_row(10, seed=n, max_tokens=20) for n in range(8)] + [odd])
    num_turns = 0
    with torch.inference_mode():
        while odd.finish_reason is None:
            batches.turn()
            batches.add([make_row(10, seed=100 + num_turns, max_tokens=20)])  # there are always others
            num_turns += 1
            assert num_turns < 200


def test_a_long_prompt_is_read_in_pieces_between_which_others_go_on(model: Any) -> None:
    device = SmallDevice(model, most_cells=float("inf"))
    batches = batches_for(lambda _: device)
    batches._read_tokens = 128
    short = make_row(10, seed=0, max_tokens=100)
    batches.add([short])
    with torch.inference_mode():
        batches.turn()
        batches.add([make_row(400, seed=1, max_tokens=4)])
        device.sizes.clear()
        for _ in range(4):
            batches.turn()
    new_columns = [new for _, new, _ in device.sizes]
    assert max(new_columns) <= 128
    assert [new for new in new_columns if new > 1] == [128, 128, 128, 16]
    assert new_columns[:4] == [128, 1, 128, 1]


def test_a_prompt_that_is_read_in_pieces_gets_the_reply_that_it_gets_in_one(model: Any) -> None:
    whole = [make_row(length, seed=length, max_tokens=20) for length in (300, 290, 280)]
    answer_all(batches_for(lambda _: model), whole)
    pieces = [make_row(length, seed=length, max_tokens=20) for length in (300, 290, 280)]
    batches = batches_for(lambda _: model)
    batches._read_tokens = 64
    answer_all(batches, pieces)
    assert [row.reply_ids for row in pieces] == [row.reply_ids for row in whole]


def test_rows_read_together_are_about_as_long(model: Any) -> None:
    device = SmallDevice(model, most_cells=float("inf"))
    batches = batches_for(lambda _: device, most_rows=200)
    answer_all(batches, [make_row((10, 400)[n % 2], seed=n, max_tokens=3) for n in range(100)])
    read = [(rows, new) for rows, new, _ in device.sizes if new > 1]
    assert sum(rows * new for rows, new in read) <= 1.3 * sum((10, 400)[n % 2] for n in range(100))


def test_short_rows_do_not_carry_the_padding_of_long_ones(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batching._IDLE_CELLS, "cpu", 1000)
    device = SmallDevice(model, most_cells=float("inf"))
    batches = batches_for(lambda _: device)
    rows = [make_row(400, seed=1, max_tokens=40), *(make_row(10, seed=n, max_tokens=40) for n in range(30))]
    answer_all(batches, rows)
    steps = [(num_rows, columns) for num_rows, new, columns in device.sizes if new == 1]
    assert max(columns for num_rows, columns in steps if num_rows > 1) < 60
    assert max(columns for num_rows, columns in steps if num_rows == 1) > 400


def test_a_row_that_is_given_up_in_the_line_is_never_read(model: Any) -> None:
    device = SmallDevice(model, most_cells=float("inf"))
    batches = batches_for(lambda _: device, most_rows=1)
    first, second = make_row(10, seed=0), make_row(90, seed=1)
    batches.add([first, second])
    with torch.inference_mode():
        batches.turn()
        second.finish_reason = "length"
        while batches.rows:
            batches.turn()
    assert first.reply_ids and not second.reply_ids
    assert max(columns for _, _, columns in device.sizes) < 90
