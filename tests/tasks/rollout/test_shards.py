"""A collection that is dealt to several writers has every episode once, whichever of them die."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from envs.base import EnvConfig
from envs.faults import ServiceError
from envs.sandbox.base import SandboxConfig
from tasks.engines.base import EngineError
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.rollout.collection import Collection, PlayConfig
from tasks.rollout.config import CollectConfig
from tasks.rollout.journal import Journal, read_episodes, shard_files
from tasks.rollout.plan import make_plan
from tasks.rollout.play import TooManyErrors
from tasks.rollout.progress import Counts
from tasks.rollout.shards import MOST_FRUITLESS, Here, ShardJob, deal
from tests.tasks.rollout.adding_game import add_problems
from tests.tasks.rollout.playing import timeless


def collection(script: str = "answer_or_not", **collect: Any) -> Collection:
    config = PlayConfig(
        env=EnvConfig(name="tests.tasks.rollout.adding_game:AddingGame"),
        model=ModelConfig(),
        engine=EngineConfig(kind="scripted", script=f"tests.tasks.rollout.playing:{script}", max_concurrency=2),
        sandbox=SandboxConfig(),
        collect=CollectConfig(runner="ray", **collect),
    )
    return Collection(config, add_problems(100))


class Dying(Here):
    """Workers of which some end before they are done: after that many episodes, for each shard in turn."""

    def __init__(self, chosen: Collection, data_dir: Path, lives: list[int], error: Exception) -> None:
        super().__init__(self._play_a_part)
        self.jobs: list[ShardJob] = []
        self._chosen, self._data_dir, self._lives, self._error = chosen, data_dir, lives, error

    def _play_a_part(self, job: ShardJob) -> None:
        self.jobs.append(job)
        most = self._lives.pop(0) if self._lives else job.num_episodes
        part = ShardJob(job.name, job.collection, job.episodes[:most])
        if most:
            self._chosen.play_shard(part, self._data_dir)
        if most < job.num_episodes:
            raise self._error


def test_slots_are_dealt_in_equal_parts_and_all_rollouts_of_a_problem_to_one() -> None:
    hands = deal(make_plan(add_problems(10), 40, 4), 3)
    assert sorted(len(hand) for hand in hands) == [12, 12, 16]
    shards_of = Counter((slot.env_idx, i) for i, hand in enumerate(hands) for slot in hand)
    assert set(shards_of.values()) == {4}
    assert len(shards_of) == 10


def test_no_shard_is_empty() -> None:
    assert [len(hand) for hand in deal(make_plan(add_problems(2), 2, 1), 5)] == [1, 1]


def test_in_shards_the_same_episodes_are_played_as_without(tmp_path: Path) -> None:
    chosen = collection(num_episodes=50, rollouts_per_problem=2, shards=3)
    alone = chosen.play(tmp_path / "alone", "t").read()
    shared = chosen.play(tmp_path / "shards", "t", Here(lambda job: chosen.play_shard(job, tmp_path / "shards")))
    assert len(shard_files(shared.path.parent)) == 3
    assert timeless(shared.read()) == timeless(alone)


@pytest.mark.parametrize("error", [ServiceError("gone"), EngineError("gone"), OSError("gone")], ids=repr)
def test_what_a_dead_writer_left_is_played_by_others_and_nothing_twice(tmp_path: Path, error: Exception) -> None:
    chosen = collection(num_episodes=30, shards=3)
    workers = Dying(chosen, tmp_path, [3, 10, 0, 2, 9, 4], error)
    ref = chosen.play(tmp_path, "t", workers)
    assert [job.num_episodes for job in workers.jobs] == [10, 10, 10, 7, 10, 5, 1, 1]
    assert len({job.name for job in workers.jobs}) == 8
    folder = ref.path.parent
    assert sum(path.read_bytes().count(b"\n") for path in shard_files(folder)) == 30
    assert len({e.key for e in ref.read()}) == len(read_episodes(folder)) == 30


def test_who_watches_is_told_after_each_shard_how_much_all_have_finished(tmp_path: Path) -> None:
    chosen = collection(num_episodes=30, shards=3)
    seen: list[tuple[int, int]] = []

    class Watching(Counts):
        def shards_finished(self, finished: int, succeeded: int, tokens: int) -> None:
            super().shards_finished(finished, succeeded, tokens)
            seen.append((finished, tokens))

    watcher = Watching()
    ref = chosen.play(tmp_path, "t", Dying(chosen, tmp_path, [5], ServiceError("gone")), watcher=watcher)
    assert [finished for finished, _ in seen] == [5, 15, 25, 30]
    assert (watcher.total, watcher.finished, watcher.succeeded) == (30, 30, ref.succeeded)
    assert seen[-1][1] == ref.completion_tokens


def test_a_run_that_was_ended_is_gone_on_with_in_other_shards_or_in_none(tmp_path: Path) -> None:
    chosen = collection(num_episodes=30, shards=3)
    workers = Dying(chosen, tmp_path, [5, 4, 3], KeyError("a bug"))
    with pytest.raises(KeyError):
        chosen.play(tmp_path, "t", workers)
    again = Dying(chosen, tmp_path, [], KeyError("never"))
    collection(num_episodes=20, shards=2).play(tmp_path, "t", again)
    assert sum(job.num_episodes for job in again.jobs) == 20 - 5
    ref = collection(num_episodes=30).play(tmp_path, "t")
    assert sum(path.read_bytes().count(b"\n") for path in shard_files(ref.path.parent)) == 30
    assert len({e.key for e in ref.read()}) == 30


def test_work_whose_writers_die_without_an_episode_is_given_up(tmp_path: Path) -> None:
    chosen = collection(num_episodes=10)
    workers = Dying(chosen, tmp_path, [0, 1, *[0] * MOST_FRUITLESS], ServiceError("no room"))
    with pytest.raises(ServiceError, match="no room"):
        chosen.play(tmp_path, "t", workers)
    assert len(workers.jobs) == 2 + MOST_FRUITLESS


def test_a_writer_whose_episodes_cannot_be_seen_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="10 of its 10 episodes are not to be seen from here"):
        collection(num_episodes=10).play(tmp_path, "t", Here(lambda job: None))
    job = ShardJob("shard-0001-x.jsonl", collection(num_episodes=10).key, ((0, 0),))
    with pytest.raises(ValueError, match=r"collect\.data_dir: .* is not to be seen on"):
        collection(num_episodes=10).play_shard(job, tmp_path / "elsewhere")


def test_a_machine_with_another_model_or_code_plays_nothing(tmp_path: Path) -> None:
    chosen, other = collection(num_episodes=10), collection(num_episodes=10, seed=5)
    with pytest.raises(ValueError, match="are other ones than where the run was started"):
        chosen.play(tmp_path, "t", Here(lambda job: other.play_shard(job, tmp_path)))


def test_errors_of_all_shards_together_count(tmp_path: Path) -> None:
    chosen = collection(num_episodes=40, shards=8, max_error_rate=0.05)
    failing = chosen.config.env.model_copy(update={"name": "tests.tasks.rollout.adding_game:RaisingGame"})
    chosen = Collection(chosen.config.model_copy(update={"env": failing}), chosen.problems)
    played: list[ShardJob] = []

    def play(job: ShardJob) -> None:
        played.append(job)
        chosen.play_shard(job, tmp_path)

    with pytest.raises(TooManyErrors, match="3 of 40 episodes ended in an error"):
        chosen.play(tmp_path, "t", Here(play))
    assert len(played) == 6


def test_a_plan_that_follows_the_outcomes_comes_to_the_same_in_shards(tmp_path: Path) -> None:
    chosen = collection(num_episodes=24, rollouts_per_problem=4, enough_successes=2, shards=3)
    alone = chosen.play(tmp_path / "alone", "t")
    lives = [1, 3, 2, 5]
    shared = chosen.play(tmp_path / "shards", "t", Dying(chosen, tmp_path / "shards", lives, ServiceError("gone")))
    assert timeless(shared.read()) == timeless(alone.read())


def test_a_writer_that_was_only_out_of_reach_doubles_nothing(tmp_path: Path) -> None:
    chosen = collection(num_episodes=20, shards=2)
    jobs: list[ShardJob] = []

    def play(job: ShardJob) -> None:
        jobs.append(job)
        is_cut_off = len(jobs) == 1
        chosen.play_shard(ShardJob(job.name, job.collection, job.episodes[: 5 if is_cut_off else None]), tmp_path)
        if is_cut_off:
            raise ServiceError("out of reach")

    ref = chosen.play(tmp_path, "t", Here(play))
    before = ref.read()
    chosen.play_shard(ShardJob("shard-late", jobs[0].collection, jobs[0].episodes[5:]), tmp_path)
    folder = ref.path.parent
    with (folder / jobs[0].name).open("ab") as own:  # its own shard, which nobody else writes to
        own.write((folder / "shard-late").read_bytes())
    (folder / "shard-late").unlink()
    assert sum(path.read_bytes().count(b"\n") for path in shard_files(folder)) == 25
    assert type(ref).model_validate(ref.model_dump()).read() == before
    assert sorted(read_episodes(folder), key=lambda e: e.key) == sorted(before, key=lambda e: e.key)
    with Journal.open(folder, chosen.identity) as journal:
        assert journal.publish(chosen.due(journal)).sha256 == ref.sha256
