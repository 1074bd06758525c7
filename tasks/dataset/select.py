"""Which turns are trained on. Selecting is not collecting: it reads whole episodes and replays none."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.dataset.records import REASONS, Funnel, Reason, Record, RecordMetadata, Rejected
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode, Turn


@dataclass(frozen=True)
class Selection:
    """Every turn that was played, on one side or the other."""

    kept: list[Record]
    rejected: list[Rejected]
    funnel: Funnel


@dataclass(frozen=True)
class _Candidate:
    """A turn with what decides about it."""

    episode: Episode
    turn: Turn
    agent_turns: Sequence[Turn]
    """All turns of its agent in the episode, in order."""
    record: Record

    @property
    def agent_success(self) -> bool:
        return self.agent_turns[-1].success


def select_turns(episodes: Iterable[Episode], config: CollectConfig, heldout_hashes: frozenset[str]) -> Selection:
    """Split all turns into those that are trained on and those that are not, with a reason for each.

    The rule, applied to episodes that are over, never to a flag as it stood while they were played:

    - `collect_mode=env`: every turn of an episode whose verdict is success is kept, the failed tries that led there
      included; every turn of any other episode is rejected.
    - `collect_mode=agent`: every turn of an agent whose last turn in the episode succeeded is kept, whatever the
      others did.
    - `only_success=false`: every turn of every finished episode is kept.

    Then, in this order: turns of agents that only take part, turns that `turns` takes no credit for, truncated replies,
    empty replies, problems in the held-out set, turns whose messages and reply were kept before (the first stays),
    episodes that `max_per_problem` has too many of, and what `agent_ratios` has too many of. An errored episode is
    rejected as `episode_error`, never as a failure.

    What `turns` takes of an agent in an episode that passed the rule above, whichever `collect_mode` that was:

    - `all`: every turn.
    - `last`: the last one. Nothing of the agent is kept where that one is truncated or empty.
    - `until_success`: those up to and including the first with `Turn.success`; all, if there is none. An env that does
      not judge each turn gives all of them the episode's verdict, and then that is the agent's first turn alone.

    `max_per_problem` counts the episodes of a problem of which a turn is kept, and keeps or drops these turns together.
    Episodes are taken in the order that `prefer` says, and one that only repeats what is kept takes no place:

    - `shortest`: fewest completion tokens in the turns with no reason of their own to be rejected, then `first`.
    - `first`: lowest `rollout_idx`.
    - `random`: by a number that depends on `seed` and the episode's key alone.

    The result depends on the set of episodes, not on the order in which they finished.

    Raises:
        ValueError: `agent_ratios` names an agent that did not play, or an episode stands there twice.
    """
    episodes = sorted(episodes, key=lambda e: (e.env_idx, e.problem_hash, e.rollout_idx))
    refuse_doubles(episodes)
    candidates = [c for episode in episodes for c in _candidates(episode)]
    reasons = _reasons(candidates, config, heldout_hashes)
    kept = [c.record for c, reason in zip(candidates, reasons, strict=True) if reason is None]
    rejected = [
        Rejected(messages=c.record.messages, metadata=c.record.metadata, reason=reason)
        for c, reason in zip(candidates, reasons, strict=True)
        if reason is not None
    ]
    return Selection(kept, rejected, _funnel(episodes, kept, rejected))


def check_agent_ratios(ratios: Mapping[str, float], agents: Collection[str]) -> None:
    """See that the ratios can be met by these agents.

    Raises:
        ValueError: an agent is unknown, or the shares are not within 0 and 1 and together at most 1.
    """
    unknown = sorted(set(ratios) - set(agents))
    if unknown:
        raise ValueError(
            f"collect.agent_ratios: no agent {unknown[0]!r} plays here; wanted {', '.join(sorted(agents))}."
        )
    if any(not 0 <= share <= 1 for share in ratios.values()) or sum(ratios.values()) > 1 + 1e-9:
        raise ValueError(f"collect.agent_ratios: found {dict(ratios)}; wanted shares from 0 to 1, together at most 1.")


def for_policy(config: CollectConfig, episodes: Iterable[Episode], roles: Collection[str]) -> CollectConfig:
    """What selects from the turns of one policy. `agent_ratios` become those of its agents among themselves.

    They keep the proportions that they have among all roles, and add up to 1. Roles without a ratio share in equal
    parts what the ratios leave. Where that gives none of the policy's agents anything, none of their turns is kept.

    Args:
        episodes: with the turns of the policy alone.
        roles: all that play, whoever answers for them.
    """
    ratios = config.agent_ratios
    if not ratios:
        return config
    unnamed = set(roles) - set(ratios)
    left = max(0.0, 1 - sum(ratios.values())) / max(1, len(unnamed))
    shares = {turn.agent_name: ratios.get(turn.agent_name, left) for e in episodes for turn in e.turns}
    total = sum(shares.values())
    if total:
        shares = {agent: share / total for agent, share in shares.items() if agent in ratios}
    return config.model_copy(update={"agent_ratios": shares})


def refuse_doubles(episodes: Sequence[Episode]) -> None:
    """See that no episode stands there twice: it would count twice in every rate.

    Raises:
        ValueError: one does.
    """
    key, times = Counter(e.key for e in episodes).most_common(1)[0] if episodes else (None, 0)
    if key is not None and times > 1:
        raise ValueError(
            f"episode {key.rollout_idx} of problem {key.problem_hash} stands there {times} times; wanted each once; "
            "the journal was copied or edited."
        )


def _candidates(episode: Episode) -> Iterator[_Candidate]:
    by_agent: dict[str, list[Turn]] = {}
    for turn in sorted(episode.turns, key=lambda t: t.turn_idx):
        by_agent.setdefault(turn.agent_name, []).append(turn)
    for turn in episode.turns:
        agent_turns = by_agent[turn.agent_name]
        yield _Candidate(episode, turn, agent_turns, _to_record(episode, turn, agent_turns[-1].success))


def _to_record(episode: Episode, turn: Turn, agent_success: bool) -> Record:
    metadata = {
        "agent_name": turn.agent_name,
        "policy_name": turn.policy_name,
        "reward": turn.reward,
        "env_success": episode.success and episode.error is None,
        "env_name": episode.env_name,
        "env_idx": episode.env_idx,
        "rollout_idx": episode.rollout_idx,
        "turn_idx": turn.turn_idx,
        "problem_hash": episode.problem_hash,
        "agent_success": agent_success,
        "finish_reason": turn.finish_reason,
        "prompt_tokens": turn.prompt_tokens,
        "completion_tokens": turn.completion_tokens,
        "difficulty": episode.difficulty,
    }
    return Record(
        messages=[*turn.messages, {"role": "assistant", "content": turn.reply}],
        metadata=RecordMetadata.model_validate(metadata),
    )


def _reasons(
    candidates: Sequence[_Candidate], config: CollectConfig, heldout_hashes: frozenset[str]
) -> list[Reason | None]:
    """For each turn, the first reason in `REASONS` to reject it, or None."""
    reasons = [_own_reason(candidate, config, heldout_hashes) for candidate in candidates]
    _reject_repeats(reasons, candidates, config)
    if config.agent_ratios and candidates:
        check_agent_ratios(config.agent_ratios, {c.turn.agent_name for c in candidates})
        left = [i for i, reason in enumerate(reasons) if reason is None]
        for i in _surplus(left, candidates, config.agent_ratios, config.seed):
            reasons[i] = "agent_ratio"
    return reasons


def _own_reason(candidate: _Candidate, config: CollectConfig, heldout_hashes: frozenset[str]) -> Reason | None:
    """The reason that lies in the turn itself, whatever the other turns are."""
    episode, turn = candidate.episode, candidate.turn
    if episode.error is not None:
        return "episode_error"
    if config.only_success and config.collect_mode == "env" and not episode.success:
        return "episode_failed"
    if config.only_success and config.collect_mode == "agent" and not candidate.agent_success:
        return "agent_failed"
    if not turn.trained:
        return "not_trained"
    if not _has_credit(turn, candidate.agent_turns, config.turns):
        return "other_turn"
    if turn.finish_reason == "length" and not config.keep_truncated:
        return "truncated"
    if not turn.reply.strip():
        return "empty_reply"
    if episode.problem_hash in heldout_hashes:
        return "held_out"
    return None


def _has_credit(turn: Turn, agent_turns: Sequence[Turn], which: str) -> bool:
    if which == "last":
        return turn.turn_idx == agent_turns[-1].turn_idx
    if which == "until_success":
        return not any(before.success for before in agent_turns if before.turn_idx < turn.turn_idx)
    return True


def _reject_repeats(reasons: list[Reason | None], candidates: Sequence[_Candidate], config: CollectConfig) -> None:
    """Reject turns that repeat a kept one, and all of the episodes that `max_per_problem` leaves no place for.

    Both at once: what an episode without a place says must not make its equal in another one a duplicate.
    """
    problems: dict[str, dict[int, list[int]]] = {}
    for i, candidate in enumerate(candidates):
        if reasons[i] is None:
            episode = candidate.episode
            problems.setdefault(episode.problem_hash, {}).setdefault(episode.rollout_idx, []).append(i)
    seen: set[str] = set()
    for episodes in problems.values():
        places = config.max_per_problem or len(episodes)
        for members in sorted(episodes.values(), key=lambda m: _preference([candidates[i] for i in m], config)):
            takes_place = False
            for i in members:
                content = candidates[i].record.content
                if content in seen:
                    reasons[i] = "duplicate"
                elif not places:
                    reasons[i] = "over_quota"
                else:
                    seen.add(content)
                    takes_place = True
            places -= takes_place


def _preference(turns: Sequence[_Candidate], config: CollectConfig) -> tuple[int | str, int]:
    """Sorts the episodes of a problem, each given by its turns: what comes first is kept."""
    episode = turns[0].episode
    first: int | str = 0
    if config.max_per_problem and config.prefer == "shortest":
        first = sum(c.turn.completion_tokens for c in turns)
    elif config.max_per_problem and config.prefer == "random":
        first = _lot(config.seed, episode.key)
    return first, episode.rollout_idx


def _surplus(
    left: Sequence[int], candidates: Sequence[_Candidate], ratios: Mapping[str, float], seed: int
) -> Iterator[int]:
    """What must go so that the rest has the wanted shares, and as much as possible stays.

    Agents without a ratio share what the ratios leave. A group with nothing in it gives its share to the others.
    """
    groups: dict[str, list[int]] = {}
    for i in left:
        name = candidates[i].turn.agent_name
        groups.setdefault(name if name in ratios else "", []).append(i)
    shares = {name: ratios.get(name, max(0.0, 1 - sum(ratios.values()))) for name in groups}
    most = min((len(groups[name]) / share for name, share in shares.items() if share > 1e-9), default=0.0)
    for name, members in groups.items():
        quota = math.floor(most * shares[name] + 1e-9)
        yield from sorted(members, key=lambda i: _turn_lot(candidates[i], seed))[quota:]


def _turn_lot(candidate: _Candidate, seed: int) -> str:
    return _lot(seed, candidate.episode.key, candidate.turn.agent_name, candidate.turn.turn_idx)


def _lot(*name: object) -> str:
    """A fixed random number: which surplus goes depends on the seed and the name, not on what else was played."""
    return hashlib.sha256(" ".join(map(str, name)).encode()).hexdigest()


def _funnel(episodes: Sequence[Episode], kept: Sequence[Record], rejected: Sequence[Rejected]) -> Funnel:
    finished = [e for e in episodes if e.error is None]
    counts = Counter(r.reason for r in rejected)
    return Funnel(
        finished=len(finished),
        succeeded=sum(e.success for e in finished),
        errored=len(episodes) - len(finished),
        turns=sum(len(e.turns) for e in episodes),
        kept=len(kept),
        kept_by_agent=dict(sorted(Counter(r.metadata.agent_name for r in kept).items())),
        rejected={reason: counts[reason] for reason in REASONS if counts[reason]},
    )
