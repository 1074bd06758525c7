"""What is about to be trained, shown before the first step: how much, how long, on which text the loss is.

What must not be trained is refused while rows are tokenised (`rows/tokenise.py`) or compared with what was played
(`sent.py`); what is here is for people to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tasks.training.config import TrainConfig
from tasks.training.rows.mixing import rows_of_pass
from tasks.training.rows.split import Indices, RowSplit, held_back
from tasks.training.rows.token_data import SampledRow, TokenData

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN_ROWS = 3
_SHOWN_PROMPT = 240
"""Characters of a prompt that are shown, from its end."""
_SHOWN_REPLY = 600
"""Characters of a reply that are shown, half from its beginning and half from its end."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lengths(_Model):
    """Tokens of rows."""

    shortest: int
    median: int
    p90: int
    longest: int


class FileShare(_Model):
    """What one data file contributes."""

    name: str
    rows: int
    """Distinct ones that can be trained on and that no file before it holds."""
    weight: float
    trained: int
    """Rows in one pass."""


class AuditedRow(_Model):
    """A row, as the loss sees it."""

    where: str
    agent_name: str
    not_trained: str
    """The end of the prompt, special tokens and all."""
    trained: str
    """The reply and what ends it, decoded from the tokens that the loss is on."""


class SentCheck(_Model):
    """Sampled rows beside the token ids that the engine read and sampled when it played them."""

    same: int = 0
    reply_spelled_otherwise: int = 0
    """The text is the same; the model had spelled it with other tokens, or ended it with another."""
    played_by_another_model: int = 0
    shortened: int = 0
    not_known: int = 0
    """No journal with token ids is beside the data file, or the row was not collected."""


class HeldBack(_Model):
    """Problems that are not trained on, to see the loss on them."""

    problems: int
    rows: int
    trained_problems: int
    """Those that are trained on."""


class Audit(_Model):
    """What one pass over the data trains."""

    rows: int
    tokens: int
    trained_tokens: int
    """Those with a loss: replies, and what ends them."""
    lengths: Lengths
    reply_lengths: Lengths
    files: list[FileShare]
    duplicates: int
    dropped_overlong: int
    shortened: int
    without_end: int
    """Rows that do not end with the token that ends a turn: replies that were cut off when they were played."""
    earlier_replies: int
    samples: list[AuditedRow]
    sent: SentCheck = SentCheck()
    validation: HeldBack | None = None


def audit(
    tokens: TokenData, data: Sequence[Path], tokenizer: PreTrainedTokenizerBase, end: int, config: TrainConfig
) -> tuple[Audit, RowSplit]:
    """Count and sample what is trained, and say which of the token rows that is.

    Args:
        end: the token that ends a turn.

    Raises:
        NothingToTrainError: the weights leave no row.
        TooFewProblemsError: there are not enough to hold some of them back.
    """
    import pyarrow.compute as pc

    distinct = tokens.rows.data
    length_of = pc.list_value_length(distinct.column("input_ids")).to_numpy()
    prompt_of = distinct.column("prompt_length").to_numpy()
    file_of = distinct.column("file").to_numpy()
    ends_of = np.concatenate([_last(chunk) for chunk in distinct.column("input_ids").chunks]) == end
    problem_of = distinct.column("problem").to_numpy()
    is_held_back = np.zeros(len(file_of), dtype=np.bool_)
    if config.validation_share:
        is_held_back = held_back(problem_of, config.validation_share, config.seed)
    weights = [config.weight(path) for path in data]
    picked = rows_of_pass(file_of, weights, config.seed, left_out=is_held_back)
    lengths, prompts = length_of[picked], prompt_of[picked]
    counts = tokens.counts
    found = Audit(
        rows=len(picked),
        tokens=int(lengths.sum()),
        trained_tokens=int((lengths - prompts).sum()),
        lengths=_lengths(lengths),
        reply_lengths=_lengths(lengths - prompts),
        files=[
            FileShare(
                name=path.name,
                rows=int((file_of == i).sum()),
                weight=weights[i],
                trained=int((file_of[picked] == i).sum()),
            )
            for i, path in enumerate(data)
        ],
        duplicates=counts.duplicates,
        dropped_overlong=counts.dropped_overlong,
        shortened=counts.shortened,
        without_end=int((~ends_of[picked]).sum()),
        earlier_replies=counts.earlier_replies,
        samples=[
            _shown(tokens.rows[sample.index], f"{data[sample.file].name}:{sample.number}", sample.agent_name, tokenizer)
            for sample in _spread_out([sample for sample in counts.samples if not is_held_back[sample.index]])
        ],
        validation=_held_back(problem_of, is_held_back) if config.validation_share else None,
    )
    return found, RowSplit(training=picked, validation=np.flatnonzero(is_held_back))


def _held_back(problem_of: Indices, is_held_back: NDArray[np.bool_]) -> HeldBack:
    return HeldBack(
        problems=len(np.unique(problem_of[is_held_back])),
        rows=int(is_held_back.sum()),
        trained_problems=len(np.unique(problem_of[~is_held_back])),
    )


def _spread_out(samples: Sequence[SampledRow]) -> list[SampledRow]:
    """A few of them, from the beginning, the end and between, so that several files are seen."""
    at = np.linspace(0, len(samples) - 1, min(_SHOWN_ROWS, len(samples)))
    return [samples[round(i)] for i in at.tolist()]


def _last(ids: Any) -> Indices:
    """The last token of each row of a batch."""
    last: Indices = ids.flatten().to_numpy()[(ids.offsets.to_numpy() - ids.offsets[0].as_py())[1:] - 1]
    return last


def _lengths(lengths: Indices) -> Lengths:
    low, median, p90, high = np.percentile(lengths, [0, 50, 90, 100], method="nearest")
    return Lengths(shortest=int(low), median=int(median), p90=int(p90), longest=int(high))


def _shown(row: dict[str, Any], where: str, agent: str, tokenizer: PreTrainedTokenizerBase) -> AuditedRow:
    cut, ids = row["prompt_length"], row["input_ids"]
    prompt, reply = (str(tokenizer.decode(part)) for part in (ids[:cut], ids[cut:]))
    if len(prompt) > _SHOWN_PROMPT:
        prompt = f"[{len(prompt) - _SHOWN_PROMPT:,} characters] ... {prompt[-_SHOWN_PROMPT:]}"
    if len(reply) > _SHOWN_REPLY:
        half = _SHOWN_REPLY // 2
        reply = f"{reply[:half]} ... [{len(reply) - _SHOWN_REPLY:,} characters] ... {reply[-half:]}"
    return AuditedRow(where=where, agent_name=agent, not_trained=prompt, trained=reply)


def audit_rows(found: Audit) -> Iterator[tuple[str, str]]:
    """The counts, as name and value."""
    yield "rows", f"{found.rows:,}"
    if len(found.files) > 1 or any(share.weight != 1 for share in found.files):
        for share in found.files:
            weight = "" if share.weight == 1 else f", weight {share.weight:g}: {share.trained:,} in a pass"
            yield f"  of {share.name}", f"{share.rows:,}{weight}"
    if found.validation:
        held = found.validation
        yield (
            "held back to validate",
            f"{held.rows:,} rows of {held.problems:,} problems; {held.trained_problems:,} problems are trained on",
        )
    yield (
        "tokens with a loss",
        f"{found.trained_tokens:,} of {found.tokens:,} ({found.trained_tokens / found.tokens:.1%})",
    )
    yield "tokens of a row", _spread(found.lengths)
    yield "tokens of a reply", _spread(found.reply_lengths)
    for name, count in (
        ("duplicates left out", found.duplicates),
        ("too long, left out", found.dropped_overlong),
        ("too long, oldest messages left out", found.shortened),
        ("replies without an end, as they were cut off", found.without_end),
        ("earlier replies, not trained", found.earlier_replies),
    ):
        if count:
            yield name, f"{count:,}"
    yield "sampled rows beside what was sent", _sent(found.sent)


def audit_table(found: Audit) -> Group:
    """The audit for the terminal: what the loss is on stands in green."""
    table = Table(title="what is trained", title_justify="left", show_header=False, min_width=60)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in audit_rows(found):
        table.add_row(Text(name), Text(value))
    shown = [
        Group(
            Text(f"{sample.where}, {sample.agent_name}; not trained, then trained:", style="bold"),
            Padding(Text(sample.not_trained, style="dim") + Text(sample.trained, style="bold green"), (0, 0, 1, 2)),
        )
        for sample in found.samples
    ]
    return Group(table, *shown)


def audit_markdown(found: Audit) -> list[str]:
    """The sampled rows for the report: paragraphs of Markdown."""
    return [part for sample in found.samples for part in _sample_markdown(sample)]


def _sample_markdown(sample: AuditedRow) -> list[str]:
    return [
        f"`{sample.where}`, {sample.agent_name}. Not trained:",
        _fenced(sample.not_trained),
        "Trained:",
        _fenced(sample.trained),
    ]


def _fenced(text: str) -> str:
    """A code block that no text can end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def _spread(lengths: Lengths) -> str:
    return f"{lengths.shortest:,} to {lengths.longest:,}; half at most {lengths.median:,}, 90 % at most {lengths.p90:,}"


def _sent(sent: SentCheck) -> str:
    said = {
        "the same tokens": sent.same,
        "the reply spelled with other tokens": sent.reply_spelled_otherwise,
        "played by another model": sent.played_by_another_model,
        "shortened": sent.shortened,
        "not known": sent.not_known,
    }
    return ", ".join(f"{count} {what}" for what, count in said.items() if count)
