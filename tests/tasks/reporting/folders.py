"""Builders of episodes that were never played, and of the files in a data folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.dataset.files import write_dataset
from tasks.dataset.records import Funnel
from tasks.dataset.select import select_turns
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode, EpisodeError, Turn

HELD_OUT = {"problems": "held out"}
"""Of what identity an evaluation's problems are."""


def turn(reply: str = "the reply", success: bool = True, **changes: Any) -> Turn:
    facts = {
        "agent_name": "solver",
        "policy_name": "shared_model",
        "turn_idx": 0,
        "messages": [{"role": "user", "content": "the question"}],
        "reply": reply,
        "finish_reason": "stop",
        "reward": float(success),
        "success": success,
        "prompt_tokens": 7,
        "completion_tokens": 5,
    }
    return Turn.model_validate(facts | changes)


def episode(number: int, success: bool = True, error: str | None = None, **changes: Any) -> Episode:
    facts = {
        "problem_hash": f"{number:016x}",
        "rollout_idx": 0,
        "env_idx": number,
        "env_name": "math_env",
        "difficulty": 1 + number % 3,
        "success": success,
        "turns": [turn(f"reply {number}", success)],
        "error": EpisodeError(kind="KeyError", message=error, traceback=f"line 1\n{error}") if error else None,
        "duration_s": 0.5,
        "metadata": {"noted": f"gold {number}"},
    }
    return Episode.model_validate(facts | changes)


def write_journal(folder: Path, name: str, episodes: Sequence[Episode], **identity: Any) -> None:
    path = folder / ".episodes" / name
    path.mkdir(parents=True)
    (path / "collection.json").write_text(json.dumps({"problems": "training", "adapters": {}} | identity))
    (path / "shard-0000.jsonl").write_text("".join(e.model_dump_json() + "\n" for e in episodes))


def write_data_file(folder: Path, episodes: Sequence[Episode], heldout: Sequence[Episode] = ()) -> Funnel:
    selection = select_turns(episodes, CollectConfig(), frozenset(e.problem_hash for e in heldout))
    return write_dataset(folder, selection, {"env": {"name": "math_env"}}).funnel
