"""The card says what was trained, with what, and how it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tasks.rollout.artifact import content_hash
from tasks.training.gate.audit import Audit, FileShare, Lengths
from tasks.training.job import TrainCounts
from tasks.training.model_folder.card import add_evaluation, card
from tests.tasks.training.jobs import job_of

LENGTHS = Lengths(shortest=5, median=6, p90=7, longest=8)
FOUND = Audit(
    rows=3,
    tokens=18,
    trained_tokens=9,
    lengths=LENGTHS,
    reply_lengths=LENGTHS,
    files=[FileShare(name="data.jsonl", rows=3, weight=1, trained=3)],
    duplicates=0,
    dropped_overlong=0,
    shortened=0,
    without_end=0,
    earlier_replies=0,
    samples=[],
)
COUNTS = TrainCounts(
    rows=3,
    dropped_overlong=0,
    trained_tokens=9,
    steps=2,
    first_loss=2.5,
    last_loss=1.25,
    tokens_per_second=100,
    form="LoRA, rank 4, alpha 8",
)


def card_of(folder: Path, name: str, **train: Any) -> str:
    (folder / "data.jsonl").write_text("{}\n")
    job = job_of(folder, folder, **train).model_copy(update={"model_name": name})
    return card(job, FOUND, COUNTS, 0.5)


def test_a_card_names_base_data_losses_and_use(tmp_path: Path) -> None:
    text = card_of(tmp_path, "org/base", lora_r=24)
    facts = yaml.safe_load(text.split("---\n")[1])
    assert facts["base_model"] == "org/base" and facts["library_name"] == "peft"
    assert content_hash(tmp_path / "data.jsonl") in text and "2.500 -> 1.250" in text
    assert "vllm serve org/base --enable-lora --max-lora-rank 32 --lora-modules out=out" in text


def test_no_path_of_this_machine_is_in_a_card(tmp_path: Path) -> None:
    text = card_of(tmp_path, str(tmp_path / "base"), init_adapter=tmp_path / "old")
    assert str(tmp_path) not in text and "base_model:" not in text and "init_adapter: old" in text
    assert "vLLM cannot serve DoRA" in card_of(tmp_path, "org/base", use_dora=True)
    assert "vllm serve out`" in card_of(tmp_path, "org/base", use_lora=False)


def test_an_evaluation_replaces_the_one_before_and_leaves_the_hash(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    add_evaluation(folder, "nothing to add to")
    (folder / "README.md").write_text(card_of(tmp_path, "org/base"))
    before = content_hash(folder)
    add_evaluation(folder, "first")
    add_evaluation(folder, "second")
    text = (folder / "README.md").read_text()
    assert "second" in text and "first\n" not in text and "Not evaluated" not in text
    assert content_hash(folder) == before
    (folder / "README.md").write_text("mine")
    add_evaluation(folder, "third")
    assert (folder / "README.md").read_text() == "mine"
