"""A collection: which problems are played by which policy, and where its episodes are kept.

Collecting and evaluating differ only in the problems, the sampling and the adapter; both are a `Collection`.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from envs import load_env_class
from envs.base import Env, EnvConfig, Problem
from envs.problems.splits import heldout_problems, training_problems
from envs.sandbox import open_sandbox
from envs.sandbox.base import SandboxConfig
from tasks.engines import open_engine
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.model_files import model_fingerprint
from tasks.engines.scripted import script_fingerprint
from tasks.evaluation.config import EvaluateConfig
from tasks.faults import is_infrastructure_fault
from tasks.observing.figures import counted, watched
from tasks.observing.logs import collection_id
from tasks.rollout.artifact import Ref
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import SHARED_POLICY, EpisodeKey
from tasks.rollout.journal import IDENTITY, EpisodesRef, Journal, journal_folder
from tasks.rollout.plan import Slot, collection_identity, collection_key, due_slots
from tasks.rollout.plan_request import PlanRequest, note_request
from tasks.rollout.play import check_error_rate, num_succeeded, owed_slots, play_owed
from tasks.rollout.progress import Progress, Silent, Tee, show_progress
from tasks.rollout.shard import ShardFile, ShardWriter, Sink
from tasks.rollout.shards import Here, ShardJob, Workers, deal, play_hands

if TYPE_CHECKING:
    from tasks.rollout.store import StoredCollection


def _played_model(model: ModelConfig, engine: EngineConfig) -> str:
    """Names what answers, in the identity of a collection.

    A model on a server is known by its name alone: not by the server's address, so that one may move, and not by its
    files, which cannot be seen. Whoever puts another model there under the same name gives collect.batch a new one.
    """
    if engine.kind == "scripted":
        return script_fingerprint(engine)
    if engine.kind == "openai_http":
        from tasks.engines.openai_http.engine import reach_server  # its client takes a while to import

        return f"openai_http {engine.model or reach_server(engine)}"
    return model_fingerprint(model)


class PlayConfig(BaseModel):
    """What it takes to play episodes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    env: EnvConfig
    model: ModelConfig
    engine: EngineConfig
    sandbox: SandboxConfig
    collect: CollectConfig
    policies: dict[str, str] = {}
    """The policy of each role; a role that is not named is played by the shared one."""

    @property
    def env_class(self) -> type[Env]:
        return load_env_class(self.env.name)

    @property
    def policy_names(self) -> tuple[str, ...]:
        """The policies that play, in the order of their roles."""
        roles = self.env_class.seats_for(self.env)
        return tuple(dict.fromkeys(self.policies.get(role, SHARED_POLICY) for role in roles))


@dataclass(frozen=True)
class Collection:
    """Episodes to be played."""

    config: PlayConfig
    problems: Sequence[Problem]
    adapters: Mapping[str, Ref] = field(default_factory=dict)
    """The adapter of each policy; one without plays as the bare model."""
    left_out: frozenset[str] = frozenset()
    """Hashes of problems that are not played."""

    @classmethod
    def for_training(
        cls, config: PlayConfig, adapters: Mapping[str, Ref], left_out: frozenset[str] = frozenset()
    ) -> Collection:
        """The episodes to train on.

        Raises:
            ValueError: the problems cannot be read, or none is left that is not held out.
        """
        return cls(config, training_problems(config.env_class, config.env), adapters, left_out)

    @classmethod
    def for_evaluation(
        cls,
        config: PlayConfig,
        evaluate: EvaluateConfig,
        adapters: Mapping[str, Ref],
        left_out: frozenset[str] = frozenset(),
    ) -> Collection:
        """The episodes to compare by: the same ones whoever answers.

        Raises:
            ValueError: the problems cannot be read.
        """
        problems = heldout_problems(config.env_class, config.env)
        changes = {
            "num_episodes": min(evaluate.num_problems, len(problems) - len(left_out)) * evaluate.rollouts_per_problem,
            "rollouts_per_problem": evaluate.rollouts_per_problem,
            "enough_successes": None,
            "batch": None,
            "shards": 1,
            "runner": "local",
            "storage": None,
        }
        collect = config.collect.with_all_roles_at(evaluate.temperature, evaluate.seed).model_copy(update=changes)
        played = config.model_copy(update={"collect": collect})
        return cls(played, problems, adapters, left_out)

    @cached_property
    def playable(self) -> list[int]:
        """The positions of the problems that are not left out."""
        return [i for i, problem in enumerate(self.problems) if problem.hash not in self.left_out]

    @property
    def most_problems(self) -> int:
        """How many of the playable problems can come up at most: the first ones."""
        collect = self.config.collect
        if collect.enough_successes is None:
            return math.ceil(collect.num_episodes / collect.rollouts_per_problem)
        # Each is tried that often, but for the last of the plain plan and the last of those that come next in the set.
        return math.ceil(collect.num_episodes / collect.enough_successes) + 1

    def due(self, journal: Journal) -> list[Slot]:
        """The episodes that are due, given what the journal holds; see `due_slots`."""
        collect = self.config.collect
        outcomes = {key: entry.success for key, entry in journal.finished.items()}
        slots = due_slots(
            [self.problems[i] for i in self.playable],
            collect.num_episodes,
            collect.rollouts_per_problem,
            collect.enough_successes,
            outcomes,
        )
        return [replace(slot, env_idx=self.playable[slot.env_idx]) for slot in slots] if self.left_out else slots

    @property
    def request(self) -> PlanRequest:
        """What is asked of the journal, for those who look at it."""
        collect = self.config.collect
        return PlanRequest(
            num_episodes=collect.num_episodes,
            rollouts_per_problem=collect.rollouts_per_problem,
            enough_successes=collect.enough_successes,
            problems=[self.problems[i].hash for i in self.playable[: self.most_problems]],
        )

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that changes an episode; see `collection_identity`."""
        config = self.config
        return collection_identity(
            problems=self.problems,
            env_class=config.env_class,
            env=config.env,
            sandbox=config.sandbox,
            model=_played_model(config.model, config.engine),
            chat_template_args=config.model.chat_template_args,
            policies=config.policies,
            adapters={policy: adapter.sha256 for policy, adapter in self.adapters.items()},
            collect=config.collect,
        )

    @property
    def content(self) -> dict[str, Any]:
        """What its finished episodes depend on: the key under which they are cached."""
        collect = self.config.collect
        return {
            "identity": self.identity,
            "left_out": sorted(self.left_out),
            "episodes": collect.num_episodes,
            "rollouts_per_problem": collect.rollouts_per_problem,
            "enough_successes": collect.enough_successes,
            "max_error_rate": collect.max_error_rate,
        }

    def play(
        self, data_dir: Path, title: str, workers: Workers | None = None, *, watcher: Progress | None = None
    ) -> EpisodesRef:
        """Play what is owed into the journal in `data_dir`, with a progress bar called `title`.

        `workers` play it in shards, each with an engine of its own. Without them it is played here. `watcher` is
        told what the bar is told.

        Raises:
            EngineError, ServiceError, TooManyErrors, JournalWriteError: see `play_owed`.
            ValueError: the model cannot be loaded, or the journal is damaged.
        """
        with Journal.open(self._folder(data_dir), self.identity) as journal:
            note_request(journal.folder, self.request)
            if workers is not None:
                with show_progress(title) as bar:
                    self._play_shards(journal, workers, Tee(bar, watcher or Silent()))
            elif self.config.collect.storage is not None:
                here = Here(partial(self.play_shard, data_dir=data_dir, watcher=watcher))
                self._play_shards(journal, here, Silent())
            elif owed_slots(self.due(journal), journal):
                asyncio.run(self._play(journal, lambda: self.due(journal), title, watcher or Silent()))
            slots = self.due(journal)
            check_error_rate(slots, journal, self.config.collect.max_error_rate)
            return journal.publish(slots)

    def play_shard(self, job: ShardJob, data_dir: Path, watcher: Progress | None = None) -> None:
        """Be the writer of one shard: play all of its episodes.

        Raises:
            ValueError: what is here would play other episodes than those asked for, or the journal cannot be seen.
            EngineError, ServiceError, TooManyErrors, JournalWriteError: see `play_owed`.
        """
        if job.collection != self.key:
            raise ValueError(
                f"{job.name}: the code, the model or the problems on {socket.gethostname()} are other ones than where "
                "the run was started; install the same everywhere"
            )
        slots = [Slot(self.problems[i], i, rollout_idx) for i, rollout_idx in job.episodes]
        with ShardWriter(self._sink(job.name, data_dir), {}) as shard:
            asyncio.run(self._play(shard, lambda: slots, f"shard {job.name[6:10]}", watcher or Silent()))

    @property
    def key(self) -> str:
        """Names it, and its journal's folder."""
        return collection_key(self.identity)

    def _folder(self, data_dir: Path) -> Path:
        return journal_folder(data_dir, self.identity)

    def _sink(self, shard: str, data_dir: Path) -> Sink:
        stored = self._stored()
        if stored is not None:
            return stored.sink(shard)
        folder = self._folder(data_dir)
        if not (folder / IDENTITY).exists():
            raise ValueError(
                f"collect.data_dir: {folder} is not to be seen on {socket.gethostname()}; give a folder that all "
                "machines share, or collect.storage"
            )
        return ShardFile(folder / shard)

    def _stored(self) -> StoredCollection | None:
        """What the object store has of it, if there is a store."""
        if self.config.collect.storage is None:
            return None
        from tasks.rollout.store import Store, StoredCollection  # the client takes a while to import

        return StoredCollection(Store(self.config.collect.storage), self.identity)

    def _play_shards(self, journal: Journal, workers: Workers, progress: Progress) -> None:
        """Have `workers` play what is owed; where the plan follows the outcomes, in stages."""
        stored = self._stored()
        if stored is not None:
            stored.claim()
            for name in stored.fetch(journal.folder):
                journal.take_in(name)

        collect = self.config.collect
        known: set[EpisodeKey] = set()

        def take_in(name: str) -> None:
            if stored is not None:
                stored.fetch_shard(journal.folder, name)
            journal.take_in(name)
            slots = self.due(journal)
            check_error_rate(slots, journal, collect.max_error_rate, collect.num_episodes)
            finished = [slot.key for slot in slots if slot.key in journal.finished]
            tokens = sum(journal.finished[key].completion_tokens for key in finished if key not in known)
            progress.shards_finished(len(finished), num_succeeded(slots, journal), tokens)

        while owed := owed_slots(slots := self.due(journal), journal):
            known = set(journal.finished)
            progress.started(len(slots), len(slots) - len(owed), num_succeeded(slots, journal))
            play_hands(
                deal(owed, collect.shards),
                workers,
                collection=self.key,
                new_shard=journal.new_shard,
                take_in=take_in,
                is_finished=lambda slot: slot.key in journal.finished,
                may_try_again=is_infrastructure_fault,
            )

    async def _play(self, journal: ShardWriter, due: Callable[[], list[Slot]], title: str, watcher: Progress) -> None:
        config = self.config
        collection_id.set(self.key)
        adapters = {policy: adapter.path for policy, adapter in self.adapters.items()}
        plays_bare = not set(config.policy_names) <= set(adapters)
        async with watched(open_engine(config.model, config.engine, adapters, plays_bare=plays_bare)) as engine:
            with show_progress(title) as bar, closing(open_sandbox(config.sandbox)) as sandbox:
                while owed_slots(slots := due(), journal):
                    await play_owed(
                        slots,
                        env_class=config.env_class,
                        env_config=config.env,
                        sandbox=sandbox,
                        engine=engine,
                        journal=journal,
                        collect=config.collect,
                        max_concurrency=config.engine.max_concurrency,
                        timeout_s=config.engine.timeout_s,
                        episode_timeout_s=config.engine.episode_timeout_s,
                        policies=config.policies,
                        adapters=frozenset(adapters),
                        progress=counted(Tee(bar, watcher)),
                    )
