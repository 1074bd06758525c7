"""The numbers of a collection as tables for the Prefect UI: what became of its episodes and turns, and its rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.dataset.stats import Stats
from tasks.evaluation.report import markdown_table, percent


def funnel_rows(stats: Stats) -> list[dict[str, str]]:
    """From the episodes that were wanted to the turns that are trained on, each with its share of what it is a part of.

    `requested = finished + errored + missing`, and `turns = kept + all rejected`.
    """
    episodes, turns = stats["episodes"], stats["rows"]
    wanted, finished = episodes["requested"], episodes["finished"]
    rows = [
        _row("episodes requested", wanted),
        _row("episodes finished", finished, wanted, "requested"),
        _row("episodes errored", episodes["errored"], wanted, "requested"),
        _row("episodes missing", episodes["missing"], wanted, "requested"),
        _row("episodes succeeded", episodes["succeeded"], finished, "finished"),
        _row("turns played", turns["turns"]),
        _row("turns kept", turns["kept"], turns["turns"], "turns"),
    ]
    rejected: Mapping[str, int] = turns["rejected"]
    return rows + [
        _row(f"turns rejected: {reason}", count, turns["turns"], "turns") for reason, count in rejected.items()
    ]


def statistics_markdown(stats: Stats) -> str:
    """Success rates by environment, pass@k and difficulty, and what the turns of each agent were like."""
    parts = ["## Success"]
    rates = [(f"{env}", *_rate(of_env)) for env, of_env in stats["by_env"].items()]
    rates += [(f"difficulty {level}", *_rate(of_level)) for level, of_level in stats["by_difficulty"].items()]
    parts.append(markdown_table(["", "episodes", "succeeded", "success"], rates))
    if stats["pass_at_k"]:
        rows = [(k, percent(of_k["pass_rate"]), f"{of_k['problems']:,}") for k, of_k in stats["pass_at_k"].items()]
        parts += ["## pass@k", markdown_table(["k", "pass rate", "problems"], rows)]
    agents = [row for of_env in stats["by_env"].values() for row in _agent_rows(of_env)]
    header = ["agent", "turns", "succeeded", "mean reward", "prompt tokens", "reply tokens", "cut off"]
    parts += ["## Turns, by agent", markdown_table(header, agents)]
    if stats["episodes"]["errors"]:
        errors = [(kind, f"{count:,}") for kind, count in stats["episodes"]["errors"].items()]
        parts += ["## Errors", markdown_table(["kind", "episodes"], errors)]
    return "\n\n".join(parts)


def _row(what: str, number: int, of: int | None = None, whole: str = "") -> dict[str, str]:
    share = f"{percent(number / of)} of {whole}" if of else ""
    return {"what": what, "number": f"{number:,}", "share": share}


def _rate(of: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{of['episodes']:,}", f"{of['succeeded']:,}", percent(of["success_rate"])


def _agent_rows(of_env: Mapping[str, Any]) -> Iterator[list[str]]:
    for agent, turns in of_env["agents"].items():
        yield [
            agent,
            f"{turns['turns']:,}",
            percent(turns["turns_succeeded"] / turns["turns"]),
            "-" if turns["reward"] is None else f"{turns['reward']['mean']:.2f}",
            *("-" if (s := turns[of]) is None else f"{s['p50']:,.0f} (90 %: {s['p90']:,.0f})" for of in _TOKENS),
            f"{turns['finish_reasons'].get('length', 0):,}",
        ]


_TOKENS = ("prompt_tokens", "completion_tokens")
