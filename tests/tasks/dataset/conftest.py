"""Builders of turns and episodes: everything has a default but what the test is about."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.rollout.episode import Episode, EpisodeError, Turn


class Build:
    """`build.turn(...)` and `build.episode(...)`."""

    @staticmethod
    def turn(agent: str = "solver", turn_idx: int = 0, success: bool = True, **changes: Any) -> Turn:
        fields: dict[str, Any] = {
            "agent_name": agent,
            "policy_name": "shared_model",
            "turn_idx": turn_idx,
            "messages": [{"role": "user", "content": f"ask {agent} {turn_idx}"}],
            "reply": f"reply {turn_idx}",
            "finish_reason": "stop",
            "reward": float(success),
            "success": success,
            "prompt_tokens": 10,
            "completion_tokens": 5,
        }
        return Turn(**(fields | changes))

    @staticmethod
    def episode(env_idx: int = 0, success: bool = True, turns: list[Turn] | None = None, **changes: Any) -> Episode:
        problem_hash = f"{env_idx:016x}"
        told = [{"role": "user", "content": f"problem {env_idx}, rollout {changes.get('rollout_idx', 0)}"}]
        fields: dict[str, Any] = {
            "problem_hash": problem_hash,
            "rollout_idx": 0,
            "env_idx": env_idx,
            "env_name": "math_env",
            "difficulty": 1,
            "success": success,
            "turns": [Build.turn(success=success, messages=told)] if turns is None else turns,
            "duration_s": 0.5,
        }
        return Episode(**(fields | changes))

    @staticmethod
    def error(kind: str = "KeyError") -> EpisodeError:
        return EpisodeError(kind=kind, message="'x'", traceback="Traceback ...")


@pytest.fixture(scope="session")
def build() -> type[Build]:
    return Build
