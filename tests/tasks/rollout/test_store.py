"""Journals in an object store. S3 itself is in tests/flows/test_scale.py; here it is fsspec's store in memory."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode, EpisodeKey
from tasks.rollout.journal import Journal, read_episodes
from tasks.rollout.progress import Silent
from tasks.rollout.shard import JournalFileError, ShardWriter
from tasks.rollout.shards import Here, ShardJob
from tasks.rollout.store import Store, StoredCollection, check_store, put_results
from tests.tasks.rollout.playing import IDENTITY, plan, play, timeless
from tests.tasks.rollout.test_shards import collection


@pytest.fixture
def url() -> str:
    return f"memory://bucket-{uuid.uuid4().hex}/prefix"


def test_what_a_writer_puts_is_fetched_as_the_shard_it_would_have_written_to_a_folder(tmp_path: Path, url: str) -> None:
    stored = StoredCollection(Store(url), IDENTITY)
    stored.claim()
    with ShardWriter(stored.sink("shard-0001-a.jsonl"), {}) as shard:
        play(plan(20), shard)
        assert len(shard.finished) == 20
    with Journal.open(tmp_path / "file", IDENTITY) as journal:
        play(plan(20), journal)
    assert stored.fetch(tmp_path) == ["shard-0001-a.jsonl"]
    fetched = read_episodes(tmp_path / "shard-0001-a.jsonl")
    assert timeless(fetched) == timeless(read_episodes(journal.path))
    segments = [name for name in Store(url).sizes("") if "shard-0001" in name]
    assert 1 <= len(segments) <= 20


def test_what_a_store_has_lost_is_not_taken_away_from_who_has_it(tmp_path: Path, url: str) -> None:
    store = Store(url)
    stored = StoredCollection(store, IDENTITY)
    for number in range(2):
        store.put(f"{stored._name}/shard-0001-a.jsonl/0000000{number}-x", b"a line\n")
    stored.fetch(tmp_path)
    store.remove(f"{stored._name}/shard-0001-a.jsonl/00000000-x")
    stored.fetch(tmp_path)
    assert (tmp_path / "shard-0001-a.jsonl").read_bytes() == b"a line\na line\n"


def test_an_episode_counts_once_the_store_has_it(tmp_path: Path, url: str) -> None:
    stored = StoredCollection(Store(url), IDENTITY)
    counted: list[EpisodeKey] = []

    class Checking(Silent):
        def episode_finished(self, episode: Episode) -> None:
            counted.append(episode.key)
            stored.fetch(tmp_path)
            assert set(counted) <= {e.key for e in read_episodes(tmp_path)}

    with ShardWriter(stored.sink("shard-0001-a.jsonl"), {}) as shard:
        play(plan(12), shard, progress=Checking())
    assert len(counted) == 12


def test_another_machine_fetches_what_is_finished_and_plays_the_rest(tmp_path: Path, url: str) -> None:
    chosen = collection(num_episodes=20, storage=url)
    first = chosen.play(tmp_path / "one", "t")
    asked: list[ShardJob] = []
    more = collection(num_episodes=30, shards=2, storage=url)

    def play_elsewhere(job: ShardJob) -> None:
        asked.append(job)
        more.play_shard(job, tmp_path / "nowhere")

    ref = more.play(tmp_path / "two", "t", Here(play_elsewhere))
    assert sum(job.num_episodes for job in asked) == 10
    assert len({e.key for e in ref.read()}) == 30
    again = {e.key: e for e in ref.read()}
    assert all(again[e.key] == e for e in first.read())
    assert not (tmp_path / "nowhere").exists()


def test_another_collection_is_not_taken_for_this_one(url: str) -> None:
    StoredCollection(Store(url), IDENTITY).claim()
    StoredCollection(Store(url), IDENTITY).claim()
    [name] = Store(url).sizes("")
    Store(url).put(name, b'{"seed": 7}')
    with pytest.raises(JournalFileError, match=r"seed 7 \(saved\) 0 \(now\)"):
        StoredCollection(Store(url), IDENTITY).claim()


def test_results_lie_beside_the_journals_and_those_of_two_collections_with_one_name_apart(
    tmp_path: Path, url: str
) -> None:
    data = tmp_path / "sft_data.jsonl"
    for key, text in (("c0", "{}\n"), ("c1", "[]\n")):
        data.write_text(text)
        put_results(url, key, [data])
    assert Store(url).get("results/c0/sft_data.jsonl") == b"{}\n"
    assert Store(url).get("results/c1/sft_data.jsonl") == b"[]\n"


def test_a_store_without_a_client_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"collect\.storage: no client for nosuch://bucket here"):
        check_store("nosuch://bucket")


def test_a_store_that_can_be_written_is_left_as_it_was(url: str) -> None:
    check_store(url)
    assert Store(url).sizes("") == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"storage": "/mnt/shared"}, "a folder that machines share"),
        ({"storage": "file:///mnt/shared"}, "a folder that machines share"),
        ({"storage": "s3://key:secret@bucket/prefix"}, "leave them out"),
        ({"shards": 4}, "found 4 with collect.runner local"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        CollectConfig.model_validate(settings)
    assert "secret" not in caught.value.errors()[0]["msg"]
