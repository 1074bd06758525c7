"""One HTML file with all that it needs: nothing is loaded, and a policy in it forbids it to."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.evaluation.compare import Comparison, compare
from tasks.evaluation.plot import BEFORE
from tasks.evaluation.report import (
    ARMS_HEADER,
    MOST_LISTED,
    ROUNDS_CAVEAT,
    ROUNDS_HEADER,
    arm_rows,
    level_name,
    percent,
    points,
    round_row,
)
from tasks.evaluation.series import Series
from tasks.reporting import charts
from tasks.reporting.conversations import browser
from tasks.reporting.folder import KEPT, RunData, read_run
from tasks.reporting.tally import STATES, Funnel, Rate, funnel, lengths, rates_by
from tasks.rollout.artifact import publish_file

PAGE = "report.html"
TEMPLATES = Path(__file__).parent / "templates"

GROUPS = {"env": "environment", "role": "role", "difficulty": "difficulty", "turn": "turn of a role"}


@dataclass(frozen=True)
class Chart:
    """A picture with what it says in words."""

    title: str
    svg: Markup
    text: str
    """For those who do not see it, and beneath it as a table would be."""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def write_page(folders: Sequence[Path], path: Path) -> None:
    """Write the page of one data folder, or of two side by side; it appears whole or not at all.

    Raises:
        ValueError: a folder holds no episodes.
    """
    html = page([read_run(folder) for folder in folders])
    with publish_file(path) as tmp:
        tmp.write_text(html, encoding="utf-8")


def page(runs: Sequence[RunData]) -> str:
    """The page as HTML."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    names = _names(runs)
    return templates.get_template("report.html.j2").render(
        runs=[_run_facts(run, name) for run, name in zip(runs, names, strict=True)],
        charts=_shared_charts(runs, names),
        between=_between(runs),
        browser=browser(runs),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )


def _policy(style: str, script: str) -> str:
    """Only this script and this style run. `style` attributes are for the charts, which hold no text of a model."""
    return (
        f"default-src 'none'; script-src {_digest(script)}; style-src-elem {_digest(style)}; "
        "style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _names(runs: Sequence[RunData]) -> list[str]:
    """What tells the runs apart: their folders' names, or their paths if these are the same."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _run_facts(run: RunData, name: str) -> dict[str, Any]:
    """What the page says of one run, apart from the charts that runs share."""
    counts = funnel(run)
    all_rates = rates_by(run.collected, "all")
    comparison = run.comparison
    return {
        "name": name,
        "env": ", ".join(sorted({e.env_name for j in run.journals for e in j.episodes})),
        "model": (run.config.get("model") or {}).get("path"),
        "funnel": counts,
        "num_episodes": sum(counts.episodes[state] for state in STATES),
        "num_turns": sum(counts.turns.values()),
        "kept": counts.turns[KEPT],
        "rate": _rate_text(all_rates["all"]) if all_rates else None,
        "funnel_charts": _funnel_charts(counts) if run.collected else [],
        "series_charts": _series_charts(run.series),
        "comparison": comparison and _comparison_facts(comparison),
        "notes": run.notes,
    }


def _funnel_charts(counts: Funnel) -> list[Chart]:
    colours = {"solved": charts.GOOD, "unsolved": BEFORE, "errored": charts.BAD, KEPT: charts.GOOD}
    of_episodes = "requested episodes" if counts.requested is not None else "episodes"
    title = "Episodes that were requested" if counts.requested is not None else "Episodes that were played"
    return [
        _counts_chart(title, of_episodes, counts.episodes, colours),
        _counts_chart("Turns: kept as rows to train on, or why not", "turns", counts.turns, colours),
    ]


def _counts_chart(title: str, what: str, counts: Mapping[str, int], colours: Mapping[str, str]) -> Chart:
    shown = {name.replace("_", " "): count for name, count in counts.items()}
    total = sum(shown.values())
    sum_text = " + ".join(f"{n:,} {name}" for name, n in shown.items())
    return Chart(title, Markup(charts.counts_chart(shown, colours)), f"{total:,} {what} = {sum_text}")


def _series_charts(series: Series) -> list[Chart]:
    """The rounds of expert iteration, and the arms of a control."""
    made = []
    if any(played.comparison for played in series.rounds):
        svg = Markup(charts.rounds_chart(series.rounds))
        rows = [round_row(played) for played in series.rounds]
        made.append(Chart("Success after each round", svg, ROUNDS_CAVEAT, ROUNDS_HEADER, rows))
    if series.arms:
        (first, *_) = series.arms.values()
        rates = {"bare model": first.comparison.overall.before}
        rates |= {f"trained on {what}": arm.comparison.overall.after for what, arm in series.arms.items()}
        words = "; ".join(f"{name}: {percent(rate.value)}" for name, rate in rates.items())
        svg = Markup(charts.rates_chart({"success on held-out problems": rates}))
        made.append(Chart("Is it the selection that helps?", svg, words, ARMS_HEADER, arm_rows(series.arms)))
    return made


def _comparison_facts(comparison: Comparison) -> dict[str, Any]:
    overall = comparison.overall
    effects = {"all": overall}
    effects |= {f"difficulty {level_name(level)}": e for level, e in comparison.by_difficulty.items()}
    effects |= {f"role {role}": e for role, e in comparison.by_agent.items()}
    rows = [
        [name, f"{e.problems:,}", _estimate(e.before), _estimate(e.after), points(e.difference)]
        for name, e in effects.items()
    ]
    words = f"{percent(overall.before.value)} before, {percent(overall.after.value)} after"
    svg = Markup(charts.before_after_chart(comparison))
    header = ["", "problems", "before", "after", "difference"]
    return {
        "chart": Chart("Before and after training, on held-out problems", svg, words, header, rows),
        "before": percent(overall.before.value),
        "after": percent(overall.after.value),
        "difference": points(overall.difference),
        "verdict": comparison.verdict,
        "p_value": f"{comparison.p_value:.2g}",
        "problems": overall.problems,
        "excluded": comparison.excluded,
        "worse": [
            [c.problem_hash, level_name(c.difficulty), percent(c.before), percent(c.after)]
            for c in comparison.worse[:MOST_LISTED]
        ],
        "num_worse": len(comparison.worse),
        "num_better": len(comparison.better),
    }


def _shared_charts(runs: Sequence[RunData], names: Sequence[str]) -> list[Chart]:
    """Charts in which two runs stand together."""
    named = list(zip(names, runs, strict=True))
    made = []
    for what, words in GROUPS.items():
        rates = {name: rates_by(run.collected, what) for name, run in named}
        if any(rates.values()):
            rows = [
                [*([name] if len(runs) > 1 else []), group, f"{r.succeeded:,} of {r.count:,}", _rate_text(r)]
                for name, groups in rates.items()
                for group, r in groups.items()
            ]
            header = [
                *(["run"] if len(runs) > 1 else []),
                words,
                "turns" if what in ("role", "turn") else "episodes",
                "success (95 % interval)",
            ]
            estimates = {name: {group: r.estimate for group, r in groups.items()} for name, groups in rates.items()}
            made.append(Chart(f"Success by {words}", Markup(charts.rates_chart(estimates)), "", header, rows))
    several = len(runs) > 1
    losses = {f"{name}: {model}" if several else model: p for name, run in named for model, p in run.losses.items()}
    if losses:
        made.append(Chart("Loss while training", Markup(charts.loss_chart(losses)), _loss_text(losses)))
    for of in ("prompt", "completion"):
        found = {
            f"{name}: {role}" if several else role: n
            for name, run in named
            for role, n in lengths(run.collected, of).items()
        }
        if found:
            text = "; ".join(f"{role}: mean {sum(n) / len(n):,.0f}, longest {max(n):,}" for role, n in found.items())
            made.append(Chart(f"Length of a {_LENGTH[of]}", Markup(charts.lengths_chart(found)), text))
    return made


_LENGTH = {"prompt": "prompt", "completion": "reply"}


def _loss_text(losses: Mapping[str, Sequence[Any]]) -> str:
    known = {name: [p.loss for p in points if p.loss is not None] for name, points in losses.items()}
    return "; ".join(f"{name}: {values[0]:.3f} to {values[-1]:.3f}" for name, values in known.items() if values)


def _between(runs: Sequence[RunData]) -> dict[str, Any] | None:
    """The second run against the first one, on the episodes that both have played."""
    if len(runs) < 2:
        return None
    choices: list[tuple[str, Callable[[RunData], Any]]] = [
        ("held-out episodes, after training", lambda run: run.after),
        ("collected episodes", lambda run: run.collected),
    ]
    for what, of in choices:
        sides = [{e.key: e for e in of(run)} for run in runs]
        common = sorted(sides[0].keys() & sides[1].keys())
        try:
            found = compare([sides[0][key] for key in common], [sides[1][key] for key in common])
        except ValueError:
            continue
        return {"what": what, "pairs": f"{found.overall.pairs:,}"} | _comparison_facts(found)
    return {"what": ""}


def _estimate(estimate: Any) -> str:
    return f"{percent(estimate.value)} ({percent(estimate.low)} to {percent(estimate.high)})"


def _rate_text(rate: Rate) -> str:
    return _estimate(rate.estimate)
