"""Rows beside what the engine was sent and sampled when it played them, where the journal can tell."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.dataset.records import Record
from tasks.dataset.rows import DataFileError
from tasks.rollout.episode import Turn
from tasks.rollout.journal import IDENTITY, find_episodes
from tasks.training.gate.audit import SentCheck
from tasks.training.rows.token_data import SampledRow, content_digest
from tasks.training.rows.tokenise import differs_from_sampled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def compare_with_sent(
    samples: Sequence[SampledRow],
    data: Sequence[Path],
    fingerprint: str,
    tokenizer: PreTrainedTokenizerBase,
    template_args: Mapping[str, Any],
) -> SentCheck:
    """Look up sampled rows in the journals beside their data files, and compare tokens.

    Args:
        fingerprint: of the model that is trained: what another one was sent need not be the same.

    Raises:
        DataFileError: this model was sent another prompt than the one that would be trained.
    """
    found: Counter[str] = Counter()
    left = {sample.index: sample for sample in samples if not sample.is_shortened}
    for folder in _journals(data):
        by_this_model = _model_of(folder) == fingerprint
        for sample, turn in list(_turns(folder, list(left.values()))):
            if left.pop(sample.index, None) is None:
                continue
            if not by_this_model:
                found["played_by_another_model"] += 1
                continue
            differs = differs_from_sampled(turn, tokenizer, template_args)
            if differs == "prompt":
                raise DataFileError(
                    f"{data[sample.file]}:{sample.number}: the prompt is not what the model was sent when it "
                    f"was played ({len(turn.prompt_ids or ())} tokens in {folder}); train with the "
                    "--model.chat_template_args, tokenizer and chat template that it was collected with"
                )
            found["reply_spelled_otherwise" if differs else "same"] += 1
    return SentCheck(**found, shortened=sum(s.is_shortened for s in samples), not_known=len(left))


def _journals(data: Sequence[Path]) -> list[Path]:
    folders = {path.absolute().parent / ".episodes": None for path in data}
    return [identity.parent for folder in folders for identity in sorted(folder.glob(f"*/{IDENTITY}"))]


def _model_of(folder: Path) -> str | None:
    identity = json.loads((folder / IDENTITY).read_text())
    model: str | None = identity.get("model")
    return model


def _turns(folder: Path, samples: Sequence[SampledRow]) -> Iterator[tuple[SampledRow, Turn]]:
    """The turns that sampled rows were made of, where they have token ids."""
    wanted: defaultdict[Any, list[SampledRow]] = defaultdict(list)
    for sample in samples:
        if sample.episode is not None:
            wanted[sample.episode].append(sample)
    for episode in find_episodes(folder, wanted.keys()):
        for turn in episode.turns:
            if turn.prompt_ids is None or turn.reply_ids is None:
                continue
            row = Record(messages=[*turn.messages, {"role": "assistant", "content": turn.reply}])
            digest = content_digest(row)
            yield from ((sample, turn) for sample in wanted[episode.key] if sample.content == digest)
