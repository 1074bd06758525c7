"""Which episodes are to be played, with which seeds, and what makes two collections the same one."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from envs.base import Env, EnvConfig, Problem, problem_set_digest
from envs.sandbox.base import SandboxConfig
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import EpisodeKey
from tasks.rollout.fingerprint import env_fingerprint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slot:
    """One episode to be played."""

    problem: Problem
    env_idx: int
    """Position of the problem in its problem set."""
    rollout_idx: int

    @property
    def key(self) -> EpisodeKey:
        return EpisodeKey(self.problem.hash, self.rollout_idx)


def make_plan(problems: Sequence[Problem], num_episodes: int, rollouts_per_problem: int) -> list[Slot]:
    """The episodes to play, in order: each problem `rollouts_per_problem` times, then the next problem.

    A set that is used up is gone round again with higher rollout indices. A plan for more episodes starts with the
    plan for fewer, so raising `num_episodes` plays only the difference.

    Raises:
        ValueError: there are no problems, or two of them have the same content.
    """
    _check_not_empty(problems)
    per_round = len(problems) * rollouts_per_problem
    if num_episodes > per_round:
        logger.info("%d episodes of %d problems: the set is gone round again", num_episodes, len(problems))
    slots = []
    for position in range(num_episodes):
        round_idx, rest = divmod(position, per_round)
        env_idx, repeat = divmod(rest, rollouts_per_problem)
        slots.append(Slot(problems[env_idx], env_idx, round_idx * rollouts_per_problem + repeat))
    _check_distinct(slots)
    return slots


def due_slots(
    problems: Sequence[Problem],
    num_episodes: int,
    rollouts_per_problem: int,
    enough_successes: int | None,
    outcomes: Mapping[EpisodeKey, bool | None],
) -> list[Slot]:
    """The episodes that are due, given what is finished: finished ones included, in the order of the set.

    Play what is due and not finished, and ask again, until all that is due is finished. Without `enough_successes` that
    is the plain plan. With it, the plan follows the outcomes, and has at most `num_episodes`:

    1. Each problem of the plain plan is tried as often as it lacks successes to `enough_successes`, then as often as it
       still lacks, and so on; never more often than in the plain plan.
    2. What that saved goes to those that are hard but can be solved: solved at least once in at least
       `enough_successes` tries, but not often enough. In rounds, each again as often as it lacks, at most
       `rollouts_per_problem` more, so that one lucky success does not swallow all. Where too little is left for a
       round they take turns, fewest successes first, then in the order of the set.
    3. What is still left goes to the problems that come next in the set: `enough_successes` tries at each of as many as
       that pays for. Where the set ends first, these go on as in 1 and 2, and then some of the budget is not spent.

    This rests on the outcomes of each problem's first, second, ... rollout alone: the same episodes are due in the end
    whatever was interrupted when, in whatever order they finished, and whatever else has been played. What is due stays
    due, so one may ask again at any time. Waiting until all that is due is finished costs little: most episodes are due
    in the first step of 1 and in that of 3, and between these are fewer than `2 * rollouts_per_problem` small steps.

    A plan for more episodes asks for the same first rollouts of each problem, so it finds most of what was played.

    Args:
        outcomes: of the finished episodes, whether they solved their problem; an errored one did not.

    Raises:
        ValueError: there are no problems, or two of them have the same content.
    """
    if enough_successes is None:
        return make_plan(problems, num_episodes, rollouts_per_problem)
    _check_not_empty(problems)
    budget = _Budget(num_episodes, outcomes)
    num_planned = min(-(-num_episodes // rollouts_per_problem), len(problems))
    tries = [
        _Tries(problems[i], i, enough_successes, _plain_count(i, len(problems), num_episodes, rollouts_per_problem))
        for i in range(num_planned)
    ]
    for problem in tries:
        while not problem.waits and (lack := problem.lack(problem.planned)):
            budget.spend(problem, lack)
    budget.spend_on_hard(tries, rollouts_per_problem)
    num_more = -(-budget.left // enough_successes)
    more = [
        _Tries(problems[i], i, enough_successes, rollouts_per_problem)
        for i in range(num_planned, min(num_planned + num_more, len(problems)))
    ]
    budget.spend_in_turns(more, lambda problem: problem.enough)
    budget.spend_in_turns(more, lambda problem: problem.planned)
    budget.spend_on_hard(more, rollouts_per_problem)
    tries += more
    _check_distinct([Slot(t.problem, t.env_idx, 0) for t in tries])
    return [Slot(t.problem, t.env_idx, rollout_idx) for t in tries for rollout_idx in range(t.num_due)]


def _plain_count(env_idx: int, num_problems: int, num_episodes: int, rollouts_per_problem: int) -> int:
    """How often the plain plan plays a problem."""
    rounds, rest = divmod(num_episodes, num_problems * rollouts_per_problem)
    in_last_round = min(max(rest - env_idx * rollouts_per_problem, 0), rollouts_per_problem)
    return rounds * rollouts_per_problem + in_last_round


@dataclass(slots=True, eq=False)
class _Tries:
    """The tries at one problem that are due: its first `num_due` rollouts."""

    problem: Problem
    env_idx: int
    enough: int
    planned: int
    """How many there are at most, before what is saved goes to hard problems."""
    num_due: int = 0
    num_solved: int = 0
    waits: bool = False
    """Whether some are not finished."""

    @property
    def is_hard(self) -> bool:
        return 0 < self.num_solved < self.enough <= self.num_due

    def lack(self, most: int) -> int:
        """How many more are due for it to be solved often enough, with at most `most` in all."""
        return max(0, min(self.enough - self.num_solved, most - self.num_due))


@dataclass(slots=True)
class _Budget:
    """The episodes that are left. While some that are due are not finished, nothing is spent in turns."""

    left: int
    outcomes: Mapping[EpisodeKey, bool | None]
    waits: bool = False

    def spend(self, tries: _Tries, count: int) -> None:
        for rollout_idx in range(tries.num_due, tries.num_due + count):
            key = EpisodeKey(tries.problem.hash, rollout_idx)
            if key not in self.outcomes:
                tries.waits = True
            elif self.outcomes[key]:
                tries.num_solved += 1
        tries.num_due += count
        self.left -= count
        self.waits = self.waits or tries.waits

    def spend_in_turns(self, problems: Sequence[_Tries], most: Callable[[_Tries], int]) -> None:
        """Round by round, each problem as often as it lacks; `most` is how often it is tried in all."""
        while not self.waits and self.left:
            lacks = {t: t.lack(most(t)) for t in sorted(problems, key=lambda t: (t.num_solved, t.env_idx))}
            turns = [t for turn in range(max(lacks.values(), default=0)) for t, lack in lacks.items() if turn < lack]
            if not turns:
                return
            for tries, count in Counter(turns[: self.left]).items():
                self.spend(tries, count)

    def spend_on_hard(self, problems: Sequence[_Tries], most_more: int) -> None:
        self.spend_in_turns([t for t in problems if t.is_hard], lambda tries: tries.planned + most_more)


def _check_not_empty(problems: Sequence[Problem]) -> None:
    if not problems:
        raise ValueError("no problems to play: the problem set is empty; check env.dataset")


def _check_distinct(slots: Sequence[Slot]) -> None:
    first: dict[EpisodeKey, Slot] = {}
    for slot in slots:
        other = first.setdefault(slot.key, slot)
        if other is not slot:
            raise ValueError(
                f"problems {other.env_idx} and {slot.env_idx} have the same content; a problem set lists each once"
            )


def episode_seed(seed: int, key: EpisodeKey, agent: str, turn_idx: int) -> int:
    """Seed of one request. It depends on nothing else, so neither a resume nor concurrency changes a reply.

    31 bits, because some servers take no more.
    """
    text = json.dumps([seed, key.problem_hash, key.rollout_idx, agent, turn_idx])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def collection_identity(
    *,
    problems: Sequence[Problem],
    env_class: type[Env],
    env: EnvConfig,
    sandbox: SandboxConfig,
    model: str,
    chat_template_args: Mapping[str, Any],
    policies: Mapping[str, str],
    adapters: Mapping[str, str],
    collect: CollectConfig,
) -> dict[str, Any]:
    """Everything that changes what is sampled or judged, as plain JSON data. `model` is a fingerprint, as are the
    `adapters` of the policies that have one; `policies` names the policy of each role that is not the shared one's.

    Left out on purpose: paths, concurrency, what runs the model, the number of episodes, and what is kept of them.

    Raises:
        ValueError: the env does not know one of the options, or cannot be played by the roles.
    """
    identity = {
        "env": {
            "name": env.name,
            "rules": env_fingerprint(env_class),
            "roles": env_class.seats_for(env),
            "max_turns": env.max_turns,
            "options": env_class.Options.model_validate(env.options).identity(),
        },
        "problems": {"count": len(problems), "digest": problem_set_digest(problems)},
        "sandbox": sandbox.verdict_settings(),
        "model": model,
        "policies": dict(policies),
        "adapters": dict(adapters),
        "sampling": asdict(collect.sampling()),
        "seed": collect.seed,
        "batch": collect.batch,
    }
    # What is not used leaves no trace, so that journals from before it was there stay valid.
    if chat_template_args:
        identity["chat_template_args"] = dict(chat_template_args)
    if by_role := collect.what_differs():
        identity["sampling_by_role"] = by_role
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def collection_key(identity: Mapping[str, Any]) -> str:
    """Sixteen hex digits that name a collection; the folder of its journal is called so."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
