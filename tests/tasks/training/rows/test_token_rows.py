"""What the trainer reads of data files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from tasks.training.config import TrainConfig
from tasks.training.rows.token_data import token_data
from tasks.training.rows.token_rows import TokenRows
from tasks.training.steps.packing import MicroBatch, packed, padded


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def rows(tiny_model: Path, tmp_path: Path, tokenizer: Any) -> TokenRows:
    """Three rows of two files; the second is read twice in a pass."""
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    earlier = [{"role": "user", "content": "1 + 2?"}, {"role": "assistant", "content": "3"}]
    asked = [*earlier, {"role": "user", "content": "Twice that?"}, {"role": "assistant", "content": "It is 6."}]
    lines = [{"messages": asked}, {"prompt": "Say 7.", "completion": "7"}]
    first.write_text("".join(json.dumps(line) + "\n" for line in lines))
    second.write_text("\n" + json.dumps({"prompt": "Say 8.", "completion": "8"}) + "\n")
    data = [first, second]
    return TokenRows(token_data(data, tiny_model, tokenizer, {}, TrainConfig()), data, np.array([0, 1, 1, 2]))


def test_the_loss_is_on_the_last_reply_and_on_what_ends_it_and_on_nothing_else(rows: TokenRows, tokenizer: Any) -> None:
    def learned(batch: MicroBatch) -> str:
        at_targets = batch.input_ids.flatten()[batch.places + 1]
        assert (at_targets == batch.targets).all()
        return str(tokenizer.decode(batch.targets))

    read = rows.read([0, 2, 3])
    assert learned(packed(read)) == learned(padded(read, 0)) == "It is 6.<|im_end|>7<|im_end|>8<|im_end|>"
    assert rows.trained.tolist() == [len(row.input_ids) - row.prompt_length for row in rows.read([0, 1, 2, 3])]
    assert rows.lengths.tolist() == [len(row.input_ids) for row in rows.read([0, 1, 2, 3])]


def test_rows_are_named_by_file_and_line(rows: TokenRows) -> None:
    named = [name.rpartition("/")[2] for name in rows.where([0, 1, 2, 3])]
    assert named == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:2", "b.jsonl:2"]
