"""Plots of success on held-out problems with 95 % intervals: before and after by difficulty, and over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.evaluation.compare import Comparison, Effect
from tasks.evaluation.intervals import Estimate
from tasks.evaluation.report import level_name, points
from tasks.evaluation.series import Round
from tasks.rollout.artifact import publish_file

BEFORE, AFTER, INK, GRID = "#9aa5b1", "#1f6feb", "#24292f", "#e6e8eb"
WIDTH = 0.38


def before_after_plot(comparison: Comparison, path: Path) -> None:
    """Draw the comparison into a PNG; the file appears whole or not at all."""
    with publish_file(path) as tmp:
        before_after_figure(comparison).savefig(tmp, format="png")


def before_after_figure(comparison: Comparison) -> Figure:
    """The comparison as bars, a pair for each difficulty."""
    groups = _groups(comparison)
    # A Figure of its own, not pyplot's: no window system is asked for, and nothing global is left behind.
    figure = Figure(figsize=(max(6.4, 1.1 * len(groups) + 2.6), 4.4), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    positions = [i + (0.5 if i == len(groups) - 1 and i else 0.0) for i in range(len(groups))]
    for side, colour, label, shift in (
        ("before", BEFORE, "before", -WIDTH / 2),
        ("after", AFTER, "after training", WIDTH / 2),
    ):
        _bars(axes, [p + shift for p in positions], [getattr(effect, side) for _, effect in groups], colour, label)
    axes.set_xticks(positions, [f"{name}\nn = {effect.problems:,}" for name, effect in groups])
    _dress(axes, comparison)
    return figure


def rounds_plot(rounds: Sequence[Round], path: Path) -> None:
    """Draw success after each round into a PNG; the file appears whole or not at all."""
    with publish_file(path) as tmp:
        rounds_figure(rounds).savefig(tmp, format="png")


def rounds_figure(rounds: Sequence[Round]) -> Figure:
    """Success after each round, the bare model being round 0. At least one of them was compared."""
    figure = Figure(figsize=(max(6.4, 0.9 * len(rounds) + 3.4), 4.0), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    base = next(played.comparison.overall for played in rounds if played.comparison)
    after = [(played, played.comparison.overall.after) for played in rounds if played.comparison]
    best = [(0, base.before), *((played.number, rate) for played, rate in after if played.promoted)]
    others = [(played.number, rate) for played, rate in after if not played.promoted]
    _points(axes, best, AFTER, "promoted", line="-")
    if others:
        _points(axes, others, BEFORE, "not promoted", line="")
    axes.set_xticks(range(len(rounds) + 1), ["bare model", *(f"round {played.number}" for played in rounds)])
    axes.set_xlim(-0.4, len(rounds) + 0.4)
    axes.set_ylabel("success on held-out problems, %")
    axes.set_title(f"n = {base.problems:,} held-out problems", loc="left", fontsize=11, color=INK)
    axes.grid(axis="y", color=GRID, zorder=0)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return figure


def _points(axes: Axes, rates: Sequence[tuple[int, Estimate]], colour: str, label: str, line: str) -> None:
    at = [number for number, _ in rates]
    heights = [100 * rate.value for _, rate in rates]
    errors = [[100 * (r.value - r.low) for _, r in rates], [100 * (r.high - r.value) for _, r in rates]]
    axes.errorbar(
        at, heights, yerr=errors, fmt=f"o{line}", color=colour, ecolor=INK, elinewidth=1, capsize=3, label=label
    )
    for x, height in zip(at, heights, strict=True):
        axes.annotate(f"{height:.1f}", (x, height), (8, -13), textcoords="offset points", fontsize=9, color=INK)


def _groups(comparison: Comparison) -> list[tuple[str, Effect]]:
    """One group of bars per difficulty, if there are several, then all together."""
    levels = [(level_name(level), effect) for level, effect in comparison.by_difficulty.items()]
    return [*(levels if len(levels) > 1 else []), ("all", comparison.overall)]


def _bars(axes: Axes, at: list[float], rates: list[Estimate], colour: str, label: str) -> None:
    heights = [100 * r.value for r in rates]
    errors = [[100 * (r.value - r.low) for r in rates], [100 * (r.high - r.value) for r in rates]]
    axes.bar(at, heights, WIDTH, color=colour, label=label, zorder=2)
    axes.errorbar(at, heights, yerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=3, zorder=3)
    for x, height, rate in zip(at, heights, rates, strict=True):
        axes.annotate(
            f"{height:.0f}",
            (x, 100 * rate.high),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=INK,
        )


def _dress(axes: Axes, comparison: Comparison) -> None:
    axes.set_title(
        f"{comparison.verdict}: {points(comparison.overall.difference)}", loc="left", fontsize=11, color=INK, pad=28
    )
    axes.set_ylabel("success on held-out problems, %")
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color=GRID, zorder=0)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, frameon=False, borderaxespad=0.2)
    if len(comparison.by_difficulty) > 1:
        axes.set_xlabel("difficulty (1 is the easiest), bars with 95 % intervals")
