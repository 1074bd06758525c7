"""The journal's line: one whole episode. Written by `play.py`, read by `dataset/` and `evaluation/`."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from tasks.engines.base import FinishReason

SHARED_POLICY = "shared_model"
"""The policy of every role that is not given to another one."""


class EpisodeKey(NamedTuple):
    """What a journal holds at most once."""

    problem_hash: str
    rollout_idx: int


class Turn(BaseModel):
    """One request and its reply."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    agent_name: str
    policy_name: str
    turn_idx: int
    """How many turns this agent had before."""
    messages: list[dict[str, str]]
    """Exactly what the policy saw."""
    reply: str
    finish_reason: FinishReason
    reward: float
    success: bool
    """The agent's own success in this turn, as the env judged it."""
    prompt_tokens: int
    completion_tokens: int
    trained: bool = True
    """Whether it may be trained on: some agents only take part."""
    prompt_ids: list[int] | None = None
    reply_ids: list[int] | None = None
    reasoning: str | None = None
    """The model's thoughts, where the engine gives them apart; the env has not seen them."""


class EpisodeError(BaseModel):
    """What ended an episode: the env's bug or its time, never a bad reply or the infrastructure's fault."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    """The exception's class name; EnvTimeout: the env was not back in time; EpisodeTimeout: the whole took too long."""
    message: str
    traceback: str
    """For EnvTimeout, where the env was at the time; for EpisodeTimeout, nothing."""


class Episode(BaseModel):
    """One play of one problem. An errored episode has `error`, and no verdict that counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem_hash: str
    rollout_idx: int
    env_idx: int
    """Position of the problem in its problem set."""
    env_name: str
    difficulty: int
    success: bool
    turns: list[Turn]
    error: EpisodeError | None = None
    duration_s: float
    metadata: dict[str, Any] = {}

    @property
    def key(self) -> EpisodeKey:
        return EpisodeKey(self.problem_hash, self.rollout_idx)


def last_turns(episode: Episode) -> dict[str, Turn]:
    """The last turn of each agent that had one."""
    return {turn.agent_name: turn for turn in sorted(episode.turns, key=lambda turn: turn.turn_idx)}


def of_policy(episode: Episode, policy: str) -> Episode:
    """The episode with the turns of one policy alone."""
    return episode.model_copy(update={"turns": [turn for turn in episode.turns if turn.policy_name == policy]})
