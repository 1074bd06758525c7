"""A collection by several writers: what is owed is dealt to shards, and each is played wherever there is room.

A shard that dies is gone on with elsewhere, under a new name: nobody can know whether its writer is dead or only out of
reach, and two must never write to one shard. What it finished stays finished; only the rest is played again.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tasks.rollout.plan import Slot

logger = logging.getLogger(__name__)

MOST_FRUITLESS = 3
"""Writers of the same work that die one after the other without an episode before it is given up."""


@dataclass(frozen=True)
class ShardJob:
    """What one writer has to play. It is sent to another machine, so it is small: problems are known by position."""

    name: str
    """The shard's."""
    collection: str
    """The key of the collection that the episodes belong to."""
    episodes: tuple[tuple[int, int], ...]
    """Position of the problem in its set, and the rollout."""
    fruitless: int = 0
    """How many writers of this work have died, the last ones without an episode."""

    @property
    def num_episodes(self) -> int:
        return len(self.episodes)


class Workers(Protocol):
    """Where shards are played."""

    def submit(self, job: ShardJob) -> None:
        """Have a shard played as soon as there is room."""

    def next_done(self) -> tuple[ShardJob, Exception | None]:
        """Wait for the next shard to end; the error is what ended it, if it did not end well."""


class Here:
    """Plays shards in this process, one after the other."""

    def __init__(self, play: Callable[[ShardJob], None]) -> None:
        self._play = play
        self._waiting: deque[ShardJob] = deque()

    def submit(self, job: ShardJob) -> None:
        self._waiting.append(job)

    def next_done(self) -> tuple[ShardJob, Exception | None]:
        job = self._waiting.popleft()
        try:
            self._play(job)
        except Exception as error:
            return job, error
        return job, None


def deal(slots: Sequence[Slot], num_shards: int) -> list[list[Slot]]:
    """Deal slots to at most that many shards, about equally: all rollouts of a problem to one, so that its prompt is
    cached there. None is empty.
    """
    hands: list[list[Slot]] = [[] for _ in range(num_shards)]
    smallest = [(0, i) for i in range(num_shards)]
    for _, rollouts in itertools.groupby(slots, key=lambda slot: slot.env_idx):
        _, i = smallest[0]
        hands[i].extend(rollouts)
        heapq.heapreplace(smallest, (len(hands[i]), i))
    return [hand for hand in hands if hand]


def play_hands(
    hands: Sequence[Sequence[Slot]],
    workers: Workers,
    *,
    collection: str,
    new_shard: Callable[[], str],
    take_in: Callable[[str], None],
    is_finished: Callable[[Slot], bool],
    may_try_again: Callable[[Exception], bool],
) -> None:
    """Have each hand played by one writer after the other until all its episodes are finished.

    Args:
        collection: its key.
        new_shard: gives a name that no shard had.
        take_in: learns what a shard holds whose writer has ended.
        is_finished: whether an episode is in one of the shards that were taken in.
        may_try_again: whether an error is of the infrastructure.

    Raises:
        ValueError: a writer ended well, but its episodes are not to be seen here.
        Exception: what ended a writer, where trying again would not help, or has not.
    """
    slots = {(slot.env_idx, slot.rollout_idx): slot for hand in hands for slot in hand}

    def submit(episodes: Sequence[tuple[int, int]], fruitless: int = 0) -> None:
        workers.submit(ShardJob(new_shard(), collection, tuple(episodes), fruitless))

    for hand in hands:
        submit([(slot.env_idx, slot.rollout_idx) for slot in hand])
    num_open = len(hands)
    while num_open:
        job, error = workers.next_done()
        take_in(job.name)
        rest = [episode for episode in job.episodes if not is_finished(slots[episode])]
        if error is not None and not may_try_again(error):
            raise error
        if not rest:
            num_open -= 1
            continue
        if error is None:
            raise ValueError(
                f"{job.name}: {len(rest)} of its {job.num_episodes} episodes are not to be seen from here; "
                "collect.data_dir has to be a folder that all machines share, or give collect.storage"
            )
        fruitless = job.fruitless + 1 if len(rest) == job.num_episodes else 0
        if fruitless == MOST_FRUITLESS:
            raise error
        logger.warning(
            "%s: its writer is lost after %d of %d episodes (%s); the rest is played elsewhere",
            job.name,
            job.num_episodes - len(rest),
            job.num_episodes,
            error,
        )
        submit(rest, fruitless)
