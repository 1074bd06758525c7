"""Before the first step: what would be trained stands beside what the engine was sent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from envs.base import EnvConfig
from envs.sandbox.base import SandboxConfig
from tasks.dataset.records import Record, write_records
from tasks.dataset.rows import DataFileError
from tasks.dataset.select import select_turns
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.rollout.collection import Collection, PlayConfig
from tasks.rollout.config import CollectConfig
from tasks.rollout.journal import find_episodes, read_episodes
from tasks.training.config import TrainConfig
from tasks.training.gate.audit import SentCheck
from tasks.training.gate.audit_data import audit_data

KEEP = CollectConfig(num_episodes=6, only_success=False, max_tokens=60, keep_truncated=True, temperature=0.0)


def collected(folder: Path, model: ModelConfig) -> tuple[Path, list[Record]]:
    """A data file of turns that the in-process engine has played, with its journal beside it."""
    config = PlayConfig(
        env=EnvConfig(name="math_env", roles=("math_single_agent",), max_turns=1),
        model=model,
        engine=EngineConfig(kind="in_process", num_gpus=0),
        sandbox=SandboxConfig(),
        collect=KEEP,
    )
    episodes = Collection.for_training(config, {}).play(folder, "playing").read()
    kept = select_turns(episodes, KEEP, frozenset()).kept
    write_records(folder / "data.jsonl", kept)
    return folder / "data.jsonl", kept


def test_rows_that_were_played_are_found_in_the_journal_with_the_same_tokens(tmp_path: Path) -> None:
    model = ModelConfig(path="starter")
    data, kept = collected(tmp_path, model)
    own = tmp_path / "own.jsonl"
    own.write_text('{"prompt": "What is 1 + 1?", "completion": "2"}\n')
    found = audit_data([data, own], model, TrainConfig())
    assert found.sent == SentCheck(same=len(kept), not_known=1)
    alone = shutil.copy(data, tmp_path.parent / "alone.jsonl")
    assert audit_data([Path(alone)], model, TrainConfig()).sent == SentCheck(not_known=len(kept))


def test_a_row_that_was_edited_is_another_row(tmp_path: Path) -> None:
    model = ModelConfig(path="starter")
    data, kept = collected(tmp_path, model)
    data.write_text(data.read_text().replace("Problem:", "Question:", 1))
    assert audit_data([data], model, TrainConfig()).sent == SentCheck(same=len(kept) - 1, not_known=1)


def test_a_prompt_that_the_model_was_not_sent_is_refused_in_one_line(thinking_model: Path, tmp_path: Path) -> None:
    told = ModelConfig(path=str(thinking_model), chat_template_args={"enable_thinking": False})
    data, kept = collected(tmp_path, told)
    assert audit_data([data], told, TrainConfig()).sent.same > 0
    with pytest.raises(DataFileError, match=r"data\.jsonl:\d: the prompt is not what the model was sent when it") as e:
        audit_data([data], ModelConfig(path=str(thinking_model)), TrainConfig())
    assert "--model.chat_template_args" in str(e.value) and "\n" not in str(e.value)
    another = Path(shutil.copytree(thinking_model, tmp_path / "another"))
    (another / "config.json").write_text((another / "config.json").read_text() + " ")
    found = audit_data([data], ModelConfig(path=str(another)), TrainConfig())
    assert found.sent == SentCheck(played_by_another_model=len(kept))


def test_some_episodes_of_a_journal_are_found_without_parsing_the_others(tmp_path: Path) -> None:
    collected(tmp_path, ModelConfig(path="starter"))
    (folder,) = (tmp_path / ".episodes").iterdir()
    all_of_them = list(find_episodes(folder, [episode.key for episode in read_episodes(folder)]))
    assert len(all_of_them) == 6
    wanted = all_of_them[2]
    shard = folder / "shard-0000.jsonl"
    lines = shard.read_text().splitlines(keepends=True)
    lines[0] = lines[0][: len(lines[0]) // 2] + "\n"
    shard.write_text("".join(lines))
    assert list(find_episodes(folder, [wanted.key])) == [wanted]
    assert list(find_episodes(folder, [wanted.key._replace(rollout_idx=9)])) == []


def test_a_template_that_tells_its_own_marks_of_generation_trains_the_same(tiny_model: Path, tmp_path: Path) -> None:
    marked = Path(shutil.copytree(tiny_model, tmp_path / "marked"))
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    reply = "{{ message.content }}<|im_end|>\n"
    assert reply in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(
        reply, "{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}{{ '\n' }}"
    )
    tokenizer.save_pretrained(marked)
    (data := tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "q", "completion": "a"}) + "\n")
    plain = audit_data([data], ModelConfig(path=str(tiny_model)), TrainConfig())
    assert audit_data([data], ModelConfig(path=str(marked)), TrainConfig()) == plain
