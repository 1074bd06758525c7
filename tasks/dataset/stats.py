"""The numbers of a collection, and of a data file whose episodes are not known: `<stem>_stats.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.dataset.records import Funnel
from tasks.dataset.select import refuse_doubles
from tasks.rollout.artifact import publish_file
from tasks.rollout.episode import Episode, of_policy

Stats = dict[str, Any]
"""Plain data that JSON can hold: None where a number does not exist, never NaN."""

_EPISODE_COLUMNS = [
    *("env", "problem", "rollout_idx", "difficulty", "success", "error"),
    *("turns", "duration_s", "sandbox_tier"),
]
_TURN_COLUMNS = ["env", "agent", "success", "finish_reason", "reward", "prompt_tokens", "completion_tokens"]


def compute_stats(
    episodes: Sequence[Episode],
    funnel: Funnel,
    requested: int,
    enough_successes: int | None = None,
    policy: str | None = None,
) -> Stats:
    """Everything that is counted about a collection and what was kept of it.

    Rates are over finished episodes: one that errored or is missing is neither a success nor a failure, and has its
    own count. `requested = finished + errored + missing`, and `turns = kept + all rejected`.

    pass@k is an estimate. Where `enough_successes` stopped the tries at a problem, how many there were depends on how
    they went, and solved problems would look better than they are. So it rests on the first `enough_successes`
    rollouts of each problem, which are played whatever comes of them. All other rates are of what was played, and
    hard problems were played more often.

    With a `policy`, all that is about turns is about its own ones, as the funnel must be; episodes are counted whole.

    Raises:
        ValueError: there are more episodes than were requested, or one stands there twice: these are not the
            episodes of this request.
    """
    refuse_doubles(episodes)
    if len(episodes) > requested:
        raise ValueError(f"found {len(episodes)} episodes; wanted at most the {requested} that were requested.")
    if policy is not None:
        episodes = [of_policy(episode, policy) for episode in episodes]
    played, turns = _episode_frame(episodes), _turn_frame(episodes)
    finished = played[played["error"].isna()]
    planned = finished if enough_successes is None else finished[finished["rollout_idx"] < enough_successes]
    outcomes = planned.groupby("problem")["success"].agg(["size", "sum"])
    tries = [(int(n), int(c)) for n, c in outcomes.itertuples(index=False)]
    return {
        "episodes": {
            "requested": requested,
            "finished": funnel.finished,
            "errored": funnel.errored,
            "errors": _counts(played["error"].dropna()),
            "missing": requested - len(episodes),
            "succeeded": funnel.succeeded,
            "success_rate": funnel.success_rate,
        },
        "problems": finished["problem"].nunique(),
        "pass_at_k": pass_at_k_table(tries),
        "rows": {
            "turns": funnel.turns,
            "kept": funnel.kept,
            "kept_by_agent": funnel.kept_by_agent,
            "rejected": dict(funnel.rejected),
        },
        "finish_reasons": _counts(turns["finish_reason"]),
        "sandbox_tiers": _counts(played["sandbox_tier"].dropna()),
        "by_difficulty": {_level(d): _rates(group) for d, group in finished.groupby("difficulty")},
        "by_env": {env: _env_stats(group, turns[turns["env"] == env]) for env, group in finished.groupby("env")},
    }


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of `k` tries succeeds, estimated from `c` successes in `n` >= k tries.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) of Chen et al. 2021, "Evaluating Large Language Models Trained on
    Code", section 2.1.
    """
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_at_k_table(tries: Sequence[tuple[int, int]]) -> dict[str, dict[str, float | int]]:
    """For k = 1, 2, 4, ... up to the most tries at one problem: the mean pass@k over the problems tried k times.

    Args:
        tries: (finished episodes, successes) of each problem.
    """
    most = max((n for n, _ in tries), default=0)
    table: dict[str, dict[str, float | int]] = {}
    for k in [2**i for i in range(most.bit_length())]:
        values = [pass_at_k(n, c, k) for n, c in tries if n >= k]
        table[str(k)] = {"pass_rate": sum(values) / len(values), "problems": len(values)}
    return table


def write_stats(path: Path, stats: Mapping[str, Any]) -> None:
    """Write stats as JSON; the file appears whole or not at all."""
    with publish_file(path) as tmp:
        tmp.write_text(json.dumps(stats, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _episode_frame(episodes: Sequence[Episode]) -> pd.DataFrame:
    rows = [
        (
            *(e.env_name, e.problem_hash, e.rollout_idx, e.difficulty, e.success, e.error and e.error.kind),
            *(len(e.turns), e.duration_s, e.metadata.get("sandbox_tier")),
        )
        for e in episodes
    ]
    return pd.DataFrame(rows, columns=_EPISODE_COLUMNS)


def _turn_frame(episodes: Sequence[Episode]) -> pd.DataFrame:
    """The turns of finished episodes, one a row."""
    rows = [
        (e.env_name, t.agent_name, t.success, t.finish_reason, t.reward, t.prompt_tokens, t.completion_tokens)
        for e in episodes
        if e.error is None
        for t in e.turns
    ]
    return pd.DataFrame(rows, columns=_TURN_COLUMNS)


def _env_stats(episodes: pd.DataFrame, turns: pd.DataFrame) -> Stats:
    return {
        **_rates(episodes),
        "turns": _spread(episodes["turns"]),
        "duration_s": _spread(episodes["duration_s"]),
        "agents": {agent: _agent_stats(group) for agent, group in turns.groupby("agent")},
    }


def _agent_stats(turns: pd.DataFrame) -> Stats:
    return {
        "turns": len(turns),
        "turns_succeeded": int(turns["success"].sum()),
        "finish_reasons": _counts(turns["finish_reason"]),
        **{column: _spread(turns[column]) for column in ("reward", "prompt_tokens", "completion_tokens")},
    }


def _rates(episodes: pd.DataFrame) -> Stats:
    succeeded = int(episodes["success"].sum())
    return {"episodes": len(episodes), "succeeded": succeeded, "success_rate": succeeded / len(episodes)}


def _counts(values: pd.Series[Any]) -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().items()}


def _spread(values: pd.Series[Any]) -> dict[str, float] | None:
    """Mean, median, 90th percentile and maximum; None if there are no values."""
    known = pd.to_numeric(values).dropna()
    if known.empty:
        return None
    return {
        "mean": float(known.mean()),
        "p50": float(known.quantile(0.5)),
        "p90": float(known.quantile(0.9)),
        "max": float(known.max()),
    }


def _level(difficulty: Any) -> str:
    return str(difficulty) if difficulty else "unknown"
