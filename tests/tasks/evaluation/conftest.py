"""Builders of evaluations: lists of episodes of which only the outcome matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tasks.rollout.episode import Episode, EpisodeError, Turn

Outcome = bool | int | None
"""Success, or None for an episode that an exception ended."""


def _turns(agents: dict[str, list[bool]]) -> list[Turn]:
    return [
        Turn(
            agent_name=agent,
            policy_name="shared_model",
            turn_idx=i,
            messages=[{"role": "user", "content": "q"}],
            reply="a",
            finish_reason="stop",
            reward=float(success),
            success=success,
            prompt_tokens=1,
            completion_tokens=1,
        )
        for agent, successes in agents.items()
        for i, success in enumerate(successes)
    ]


@pytest.fixture(scope="session")
def play() -> Callable[..., list[Episode]]:
    """`play([[1, 0], [None, 1]])`: two problems with two rollouts each. `difficulty` maps a problem's index to it."""

    def build(
        outcomes: Sequence[Sequence[Outcome]],
        difficulty: Callable[[int], int] = lambda i: 1,
        agents: dict[str, list[bool]] | None = None,
    ) -> list[Episode]:
        return [
            Episode(
                problem_hash=f"{i:016x}",
                rollout_idx=j,
                env_idx=i,
                env_name="math_env",
                difficulty=difficulty(i),
                success=bool(outcome),
                turns=_turns(agents or {}),
                error=EpisodeError(kind="KeyError", message="", traceback="") if outcome is None else None,
                duration_s=1.0,
            )
            for i, rollouts in enumerate(outcomes)
            for j, outcome in enumerate(rollouts)
        ]

    return build
