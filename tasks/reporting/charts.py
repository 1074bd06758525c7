"""Charts as SVG that stands in the page itself. Colours are CSS variables, so that a chart follows light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.evaluation.compare import Comparison
from tasks.evaluation.intervals import Estimate
from tasks.evaluation.plot import AFTER, BEFORE, GRID, INK, before_after_figure, rounds_figure
from tasks.evaluation.series import Round
from tasks.reporting.folder import LossPoint

SECOND, GOOD, BAD, WARN = "#d9730d", "#2da44e", "#cf4a4a", "#bf8700"
VARIABLES = {
    INK: "ink",
    GRID: "grid",
    BEFORE: "before",
    AFTER: "after",
    SECOND: "second",
    GOOD: "good",
    BAD: "bad",
    WARN: "warn",
}
"""The CSS variable that takes the place of each colour."""

SERIES = (AFTER, SECOND, GOOD, BAD, WARN, BEFORE)
WIDTH = 6.2
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, found and copied
    "svg.hashsalt": "winnow",  # the same data gives the same bytes
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
}


def before_after_chart(comparison: Comparison) -> str:
    """Success on held-out problems before and after training, by difficulty."""
    with mpl.rc_context(_STYLE):
        return _svg(before_after_figure(comparison))


def rounds_chart(rounds: Sequence[Round]) -> str:
    """Success on held-out problems after each round."""
    with mpl.rc_context(_STYLE):
        return _svg(rounds_figure(rounds))


def counts_chart(counts: Mapping[str, int], colours: Mapping[str, str]) -> str:
    """A bar for each count, the first at the top."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(0.34 * len(counts) + 0.35)
        names = list(counts)
        at = range(len(names))
        bars = axes.barh(at, list(counts.values()), 0.66, color=[colours.get(n, BEFORE) for n in names], zorder=2)
        axes.bar_label(bars, labels=[f"{n:,}" for n in counts.values()], padding=4, color=INK)
        axes.set_yticks(at, names)
        axes.invert_yaxis()
        axes.set_xlim(0, max(max(counts.values()), 1) * 1.15)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return _svg(figure)


def rates_chart(runs: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Success rates with 95 % intervals: a row for each group, a colour for each run."""
    groups = list(dict.fromkeys(group for rates in runs.values() for group in rates))
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(0.4 * len(groups) + 0.6, legend=list(runs) if len(runs) > 1 else ())
        for i, (run, rates) in enumerate(runs.items()):
            shift = 0.24 * (i - (len(runs) - 1) / 2)
            known = [(y + shift, rates[group]) for y, group in enumerate(groups) if group in rates]
            values = [100 * e.value for _, e in known]
            errors = [[100 * (e.value - e.low) for _, e in known], [100 * (e.high - e.value) for _, e in known]]
            at = [y for y, _ in known]
            axes.errorbar(values, at, xerr=errors, fmt="o", color=SERIES[i], capsize=3, label=run, zorder=3)
        axes.set_yticks(range(len(groups)), groups)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(-2, 102)
        axes.xaxis.set_major_formatter("{x:.0f} %")
        _dress(axes, "x", legend=len(runs) > 1)
        return _svg(figure)


def loss_chart(runs: Mapping[str, Sequence[LossPoint]]) -> str:
    """Loss over steps; the validation loss is dashed."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2.6, legend=[name for run in runs for name in (run, f"{run}, validation")])
        for (run, points), colour in zip(runs.items(), SERIES, strict=False):
            for kind, line in (("loss", "-"), ("validation_loss", "--o")):
                known = [(p.step, value) for p in points if (value := getattr(p, kind)) is not None]
                if known:
                    label = run if kind == "loss" else f"{run}, validation"
                    axes.plot(*zip(*known, strict=True), line, color=colour, markersize=3, label=label)
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats a token)")
        _dress(axes, "y", legend=True)
        return _svg(figure)


def lengths_chart(lengths: Mapping[str, Sequence[int]]) -> str:
    """How many turns have how many tokens."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2.3, legend=list(lengths))
        edges = np.histogram_bin_edges([n for values in lengths.values() for n in values], bins=30)
        for (name, values), colour in zip(lengths.items(), SERIES, strict=False):
            axes.hist(values, bins=list(edges), histtype="stepfilled", alpha=0.35, color=colour)
            axes.hist(values, bins=list(edges), histtype="step", color=colour, label=name)
        axes.set_xlabel("tokens")
        axes.set_ylabel("turns")
        _dress(axes, "y", legend=True)
        return _svg(figure)


def _figure(height: float, legend: Sequence[str] = ()) -> tuple[Figure, Axes]:
    """`height` in inches, to which the rows of the legend are added."""
    rows = -(-len(legend) // _columns(legend)) if legend else 0
    figure = Figure(figsize=(WIDTH, height + 0.23 * rows), layout="constrained")
    return figure, figure.add_subplot()


def _columns(legend: Sequence[str]) -> int:
    """How many entries of a legend fit beside each other."""
    return max(1, min(4, 75 // (max(map(len, legend)) + 7)))


def _dress(axes: Axes, grid: Literal["x", "y"], legend: bool) -> None:
    axes.grid(axis=grid, color=GRID, zorder=0)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if legend:
        columns = _columns(axes.get_legend_handles_labels()[1])
        place: dict[str, Any] = {"bbox_to_anchor": (-0.01, 1.0), "ncols": columns, "borderaxespad": 0.2}
        axes.legend(loc="lower left", frameon=False, fontsize=9, **place)


def _svg(figure: Figure) -> str:
    """The figure without its XML head, its own style sheet and its fixed size: the page sets these."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'^<svg ([^>]*?)width="[^"]*" ', r"<svg \1", svg.replace("\n", " ", 1))
    svg = re.sub(r'^(<svg [^>]*?)height="[^"]*" ', r"\1", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(f": {colour}", f": var(--{variable})")
    return re.sub(r"(font: [^;\"]*) 'sans-serif'", r"\1 system-ui, sans-serif", svg)
