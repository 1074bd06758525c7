"""What a run tells at its end: `report.md`, the closing table in the terminal, and the before/after plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tasks.evaluation.compare import Comparison, Effect, ProblemChange
from tasks.evaluation.intervals import Estimate
from tasks.evaluation.series import Arm, Round, Series
from tasks.training.gate.audit import Audit, audit_markdown, audit_rows
from tasks.training.job import TrainCounts

MOST_LISTED = 20
"""Problems that got worse or better are listed up to here, then counted."""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a flow did. A field left at None, or empty, belongs to a stage that did not run, and has no row."""

    flow: str
    env: str
    model: str
    engine: str
    """Its kind; `scripted` replies come from a function and are never reported as the model's."""
    played_with: str | None = None
    """The adapters that the episodes to train on were played with, where it was not the bare model."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Problems that were not played, with the reason."""
    requested: int | None = None
    finished: int | None = None
    errored: int | None = None
    succeeded: int | None = None
    """Finished episodes that succeeded."""
    kept: Mapping[str, int] = field(default_factory=dict)
    """Turns that are trained on, by policy."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Turns that were not kept, by reason."""
    trained: Mapping[str, TrainCounts] = field(default_factory=dict)
    """What each policy's training did."""
    audits: Mapping[str, Audit] = field(default_factory=dict)
    """What each policy's training was on."""
    comparison: Comparison | None = None
    compared_with: str | None = None
    """What was played before, where it need not be the bare model."""
    promotion: str | None = None
    """What was promoted, or why not."""
    rounds: Sequence[Round] = ()
    controls: Mapping[str, Arm] = field(default_factory=dict)
    """What was trained on in place of the successes, and what that changed."""
    cached: Sequence[str] = ()
    """Stages whose result was there from an earlier run."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """What is where, in words: `data file`, `model folder`, ..."""
    next_steps: Sequence[str] = ()


def summary_table(report: RunReport) -> Table:
    """The closing table for the terminal."""
    table = Table(title=report.flow, title_justify="left", show_header=False, min_width=60)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    sections = (_played_rows, _trained_rows, _round_rows, _compared_rows, _control_rows, _place_rows)
    for section in (rows(report) for rows in sections):
        for name, value in section:
            table.add_row(Text(name), Text(value))
        table.add_section()
    return table


def report_markdown(report: RunReport, plot: Path | None = None, rounds_plot: Path | None = None) -> str:
    """The report as Markdown.

    Args:
        plot: the before/after plot, as the report should link to it.
        rounds_plot: the same for the curve over rounds.
    """
    rows = [*_played_rows(report), *_trained_rows(report), *_compared_rows(report)]
    parts = [f"# {report.flow}: {report.env}", markdown_table(["", ""], rows)]
    if report.rounds:
        parts += _rounds_parts(report.rounds, rounds_plot)
    if report.comparison is not None:
        parts += _comparison_parts(report.comparison, plot)
    if arms := series_of(report).arms:
        parts += ["## Controls", markdown_table(ARMS_HEADER, arm_rows(arms))]
    for policy, found in report.audits.items():
        of = f", policy {policy}" if len(report.audits) > 1 else ""
        parts += [f"## What was trained{of}", mask_audit_markdown(found)]
    if report.rejected:
        parts += ["## Turns that were not kept", markdown_table(["reason", "turns"], _as_rows(report.rejected))]
    if report.left_out:
        parts += ["## Problems that were left out", "\n".join(f"- {reason}" for reason in report.left_out.values())]
    if report.files:
        parts += ["## Files", markdown_table(["what", "where"], _as_rows(report.files))]
    if report.next_steps:
        parts += ["## What to do next", "\n".join(f"- {step}" for step in report.next_steps)]
    return "\n\n".join(parts) + "\n"


def verdict_markdown(report: RunReport) -> str:
    """A run's comparison in a few lines, as a model card has it, and who really played."""
    return markdown_table(["", ""], [("environment", report.env), ("model", _model(report)), *_compared_rows(report)])


def comparison_markdown(report: RunReport, comparison: Comparison) -> str:
    """A run's comparison by itself: the verdict, success by difficulty and agent, and which problems changed."""
    rows = [("environment", report.env), ("model", _model(report)), *_verdict_rows(comparison)]
    return "\n\n".join([markdown_table(["", ""], rows), *_comparison_parts(comparison, None)[1:]])


def promotion_markdown(what: str, places: Mapping[str, object], comparison: Comparison | None) -> str:
    """Whether a trained adapter takes the place of the one in use, in a sentence, where things are, and the proof."""
    rows = [*_as_rows(places), *(_verdict_rows(comparison) if comparison else ())]
    return f"**{what}**\n\n{markdown_table(['', ''], rows)}"


def mask_audit_markdown(found: Audit) -> str:
    """What was trained on, and for some rows on which of their text the loss was."""
    return "\n\n".join([markdown_table(["", ""], list(audit_rows(found))), *audit_markdown(found)])


def percent(rate: float) -> str:
    """A rate as people read it: 0.305 is 30.5 %."""
    return f"{100 * rate:.1f} %"


def points(difference: Estimate) -> str:
    """A difference of rates with its interval, in percentage points."""
    value, low, high = (100 * x for x in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"


Rows = Iterator[tuple[str, str]]


def _played_rows(report: RunReport) -> Rows:
    yield "environment", report.env
    yield "model", _model(report)
    yield "engine", report.engine
    if report.played_with:
        yield "played with", report.played_with
    if report.cached:
        yield "cached", ", ".join(report.cached)
    if report.left_out:
        yield "problems left out", f"{len(report.left_out):,}, whose reference answers fail"
    for name in ("requested", "finished", "errored"):
        if (count := getattr(report, name)) is not None:
            yield f"episodes {name}", f"{count:,}"
    if report.succeeded is not None:
        rate = f" ({percent(report.succeeded / report.finished)} of the finished)" if report.finished else ""
        yield "episodes succeeded", f"{report.succeeded:,}{rate}"
    if report.kept:
        rejected = f" ({sum(report.rejected.values()):,} rejected)" if report.rejected else ""
        yield "turns kept", f"{sum(report.kept.values()):,}{rejected}"
        for policy, count in report.kept.items():
            if len(report.kept) > 1:
                yield f"  of {policy}", f"{count:,}"


def _model(report: RunReport) -> str:
    return f"none: scripted replies in place of {report.model}" if report.engine == "scripted" else report.model


def _trained_rows(report: RunReport) -> Rows:
    for policy, counts in report.trained.items():
        of = f" of {policy}" if len(report.trained) > 1 else ""
        yield f"trained{of}", f"{counts.form}; {counts.tokens_per_second:,.0f} tokens/s"
        yield f"trained tokens{of}", f"{counts.trained_tokens:,}"
        yield f"loss first -> last{of}", f"{counts.first_loss:.3f} -> {counts.last_loss:.3f}"
        if counts.validation:
            yield f"validation loss{of}", str(counts.validation)
        if halved := counts.out_of_memory:
            sizes = " -> ".join(f"{size:,}" for size in [halved[0].tokens_before, *(each.tokens for each in halved)])
            yield f"per-device batch{of}", f"{sizes} tokens: memory ran out in step {halved[0].step:,}"


def _compared_rows(report: RunReport) -> Rows:
    if report.compared_with is not None:
        yield "compared with", report.compared_with
    if report.comparison is not None:
        yield from _verdict_rows(report.comparison)
    if report.promotion is not None:
        yield "promotion", report.promotion


def _verdict_rows(comparison: Comparison) -> Rows:
    overall = comparison.overall
    yield "held-out problems", _held_out(comparison)
    yield "success before -> after", f"{percent(overall.before.value)} -> {percent(overall.after.value)}"
    yield "difference", points(overall.difference)
    yield "verdict", f"{comparison.verdict} (exact paired test, p = {comparison.p_value:.2g})"
    yield "problems better, worse", f"{len(comparison.better):,}, {len(comparison.worse):,}"


def _round_rows(report: RunReport) -> Rows:
    for played in report.rounds:
        promoted = "promoted" if played.promoted else "not promoted"
        changed = _change_of(played.comparison) if played.comparison else "nothing was kept"
        yield f"round {played.number}", f"{changed}: {promoted}"


def _control_rows(report: RunReport) -> Rows:
    for what, arm in report.controls.items():
        yield f"trained on {what}", f"{arm.trained_rows:,} rows, {_change_of(arm.comparison)}"


def _change_of(comparison: Comparison) -> str:
    overall = comparison.overall
    return f"{percent(overall.before.value)} -> {percent(overall.after.value)}, {points(overall.difference)}"


def _place_rows(report: RunReport) -> Rows:
    for what, where in report.files.items():
        yield what, str(where)
    for i, step in enumerate(report.next_steps):
        yield "" if i else "next", step


def _held_out(comparison: Comparison) -> str:
    problems, pairs = comparison.overall.problems, comparison.overall.pairs
    played = f"{problems:,}" + (f", {pairs:,} episodes on each side" if pairs != problems else "")
    if not comparison.excluded:
        return played
    return (
        f"{played}; {comparison.excluded:,} pairs left out "
        f"({comparison.errored_before:,} errored before, {comparison.errored_after:,} after)"
    )


def _comparison_parts(comparison: Comparison, plot: Path | None) -> list[str]:
    parts = ["## Before and after", *([f"![Success before and after]({plot})"] if plot else [])]
    effects = {"all": comparison.overall}
    effects |= {f"difficulty {level_name(level)}": effect for level, effect in comparison.by_difficulty.items()}
    effects |= {f"agent {agent}": effect for agent, effect in comparison.by_agent.items()}
    header = ["", "problems", "before", "after", "difference"]
    parts.append(markdown_table(header, [_effect_row(name, effect) for name, effect in effects.items()]))
    parts += ["### Problems that got worse", _changes(comparison.worse)]
    parts += ["### Problems that got better", _changes(comparison.better)]
    return parts


def series_of(report: RunReport) -> Series:
    """The rounds and the arms of a run."""
    if report.comparison is None or not report.controls:
        return Series(rounds=report.rounds)
    rows = sum(counts.rows for counts in report.trained.values())
    arms = {"successes": Arm(trained_rows=rows, comparison=report.comparison), **report.controls}
    return Series(rounds=report.rounds, arms=arms)


ROUNDS_CAVEAT = "All rounds are compared on the same held-out problems, so the last figure is a little too good."
ROUNDS_HEADER = (
    "round",
    "success while collecting",
    "turns kept",
    "trained on",
    "best so far",
    "this round",
    "difference",
    "",
)
ARMS_HEADER = ("trained on", "problems", "before", "after", "difference", "rows")


def _rounds_parts(rounds: Sequence[Round], plot: Path | None) -> list[str]:
    picture = [f"![Success after each round]({plot})"] if plot else []
    table = markdown_table(ROUNDS_HEADER, [round_row(played) for played in rounds])
    return ["## Rounds", *picture, table, ROUNDS_CAVEAT]


def round_row(played: Round) -> list[str]:
    """A round under `ROUNDS_HEADER`."""
    overall = played.comparison.overall if played.comparison else None
    return [
        str(played.number),
        "-" if played.success_rate is None else percent(played.success_rate),
        f"{played.kept:,}",
        f"{played.trained_rows:,} rows",
        *(
            [percent(overall.before.value), percent(overall.after.value), points(overall.difference)]
            if overall
            else "---"
        ),
        "promoted" if played.promoted else "not promoted",
    ]


def arm_rows(arms: Mapping[str, Arm]) -> list[list[str]]:
    """The arms of a control under `ARMS_HEADER`."""
    return [[*_effect_row(what, arm.comparison.overall), f"{arm.trained_rows:,}"] for what, arm in arms.items()]


def level_name(difficulty: int) -> str:
    """A difficulty in words: 0 is an unknown one."""
    return str(difficulty) if difficulty else "unknown"


def _effect_row(name: str, effect: Effect) -> list[str]:
    sides = [f"{percent(e.value)} ({percent(e.low)} to {percent(e.high)})" for e in (effect.before, effect.after)]
    return [name, f"{effect.problems:,}", *sides, points(effect.difference)]


def _changes(changes: Sequence[ProblemChange]) -> str:
    if not changes:
        return "None."
    rows = [
        [c.problem_hash, str(c.env_idx), level_name(c.difficulty), percent(c.before), percent(c.after)]
        for c in changes[:MOST_LISTED]
    ]
    more = f"\n\nAnd {len(changes) - MOST_LISTED:,} more." if len(changes) > MOST_LISTED else ""
    return markdown_table(["problem", "index", "difficulty", "before", "after"], rows) + more


def _as_rows(mapping: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(key, str(value)) for key, value in mapping.items()]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)
