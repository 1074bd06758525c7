"""The journal keeps every finished episode exactly once, whatever ends its writer."""

from __future__ import annotations

import asyncio
import errno
import json
import multiprocessing
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.rollout.episode import Episode, EpisodeKey, Turn
from tasks.rollout.journal import (
    EpisodesRef,
    Journal,
    find_episodes,
    journal_folder,
    read_episodes,
)
from tasks.rollout.shard import JournalFileError, JournalWriteError, ShardFile, ShardWriter
from tests.tasks.rollout.playing import IDENTITY, plan, play, timeless

ROOT = Path(__file__).parents[3]


def episode(number: int, reply: str = "a\nb\u2028c") -> Episode:
    turn = Turn(
        agent_name="adder",
        policy_name="shared_model",
        turn_idx=0,
        messages=[{"role": "user", "content": "2 + 2"}],
        reply=reply,
        finish_reason="stop",
        reward=1.0,
        success=True,
        prompt_tokens=3,
        completion_tokens=2,
    )
    return Episode(
        problem_hash=f"{number:016x}",
        rollout_idx=0,
        env_idx=number,
        env_name="adding",
        difficulty=1,
        success=True,
        turns=[turn],
        duration_s=0.5,
    )


def append_all(journal: ShardWriter, episodes: list[Episode]) -> None:
    async def together() -> None:
        await asyncio.gather(*(journal.append(e) for e in episodes))

    asyncio.run(together())


@contextmanager
def files_no_larger_than(num_bytes: int) -> Iterator[None]:
    """The operating system refuses writes beyond that size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    episodes = [episode(n) for n in range(50)]
    with Journal.open(tmp_path, IDENTITY) as journal:
        append_all(journal, episodes)
        assert set(journal.finished) == {e.key for e in episodes}
        assert [entry.line_number for entry in journal.finished.values()] == list(range(1, 51))
    assert read_episodes(tmp_path) == episodes == read_episodes(journal.path)
    with Journal.open(tmp_path, IDENTITY) as again:
        assert dict(again.finished) == dict(journal.finished)


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a thing: syncs to a disk are slow, and a test may need thousands."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


def test_cut_at_any_byte_exactly_the_episodes_without_a_whole_line_are_owed(fast_folder: Path) -> None:
    slots = plan(3)
    with Journal.open(fast_folder, IDENTITY) as journal:
        play(slots, journal)
    whole = journal.path.read_bytes()
    expected = timeless(read_episodes(fast_folder))
    lines = whole.splitlines(keepends=True)
    ends = {sum(map(len, lines[:n])) for n in range(len(lines) + 1)}
    for size in range(len(whole) + 1):
        journal.path.write_bytes(whole[:size])
        num_whole = whole[:size].count(b"\n")
        with Journal.open(fast_folder, IDENTITY) as journal:
            assert [key.problem_hash for key in journal.finished] == [
                json.loads(line)["problem_hash"] for line in lines[:num_whole]
            ]
            if size % 100 == 0 or {size - 1, size, size + 1} & ends:
                assert play(slots, journal) == 3 - num_whole
                assert timeless(read_episodes(fast_folder)) == expected
                assert journal.path.read_bytes().startswith(b"".join(lines[:num_whole]))


def test_readers_do_not_see_a_torn_last_line(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        append_all(journal, [episode(0), episode(1)])
    journal.path.write_bytes(journal.path.read_bytes()[:-1])
    assert read_episodes(tmp_path) == [episode(0)]


@pytest.mark.parametrize("damage", [b"{}\n", b"\n", b"nonsense\n", b"\x00\x00\n", b'{"problem_hash": \xff}\n'])
def test_a_malformed_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path, damage: bytes) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        append_all(journal, [episode(0), episode(1)])
    first, second = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(first + damage + second)
    with pytest.raises(JournalFileError, match=r"shard-0000\.jsonl:2: not an episode"):
        Journal.open(tmp_path, IDENTITY)
    with pytest.raises(JournalFileError, match=r"shard-0000\.jsonl:2: not an episode"):
        read_episodes(tmp_path)
    assert journal.path.read_bytes() == first + damage + second


def test_an_episode_is_never_written_twice(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        append_all(journal, [episode(0)])
        with pytest.raises(ValueError, match="written once"):
            append_all(journal, [episode(0, "another")])
    with Journal.open(tmp_path, IDENTITY) as journal, pytest.raises(ValueError, match="written once"):
        append_all(journal, [episode(0, "another")])
    journal.path.write_bytes(journal.path.read_bytes() * 2)
    with pytest.raises(JournalFileError, match=r":2: the episode of line 1 again"):
        Journal.open(tmp_path, IDENTITY)


def test_another_config_never_appends_and_is_told_what_differs(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        append_all(journal, [episode(0)])
    with pytest.raises(JournalFileError, match=r"env\.max_turns 3 \(saved\) 4 \(now\)\. Resume") as caught:
        Journal.open(tmp_path, {"env": {"name": "adding", "max_turns": 4}, "seed": 0})
    assert "seed" not in str(caught.value)
    with Journal.open(tmp_path, IDENTITY) as journal:
        assert len(journal.finished) == 1


def test_episodes_of_unknown_origin_are_not_appended_to(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        append_all(journal, [episode(0)])
    (tmp_path / "collection.json").unlink()
    with pytest.raises(JournalFileError, match="what made them is unknown"):
        Journal.open(tmp_path, IDENTITY)


def test_different_identities_live_in_different_folders(tmp_path: Path) -> None:
    folder = journal_folder(tmp_path, IDENTITY)
    assert folder.parent == tmp_path / ".episodes"
    assert folder != journal_folder(tmp_path, {**IDENTITY, "seed": 1})


def test_a_full_disk_fails_every_waiter_and_leaves_whole_lines(tmp_path: Path) -> None:
    async def append_each(journal: Journal) -> list[BaseException | None]:
        results = await asyncio.gather(*(journal.append(episode(n)) for n in range(3, 40)), return_exceptions=True)
        return list(results)

    with Journal.open(tmp_path, IDENTITY) as journal:
        append_all(journal, [episode(n) for n in range(3)])
        safe = journal.path.read_bytes()
        with files_no_larger_than(len(safe) + 100):
            errors = asyncio.run(append_each(journal))
        assert {type(error) for error in errors} == {JournalWriteError}
        assert "3 episodes are safe" in str(errors[0])
        assert journal.path.read_bytes() == safe
        assert len(journal.finished) == 3
    with Journal.open(tmp_path, IDENTITY) as journal:
        append_all(journal, [episode(n) for n in range(3, 40)])
    assert len(read_episodes(tmp_path)) == 40


def test_an_append_that_is_cancelled_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    async def start_and_cancel(journal: Journal) -> None:
        appends = [asyncio.ensure_future(journal.append(episode(n))) for n in range(30)]
        await asyncio.sleep(0)
        for append in appends:
            append.cancel()

    with Journal.open(tmp_path, IDENTITY) as journal:
        asyncio.run(start_and_cancel(journal))
    assert {e.key for e in read_episodes(tmp_path)} == set(journal.finished)


HOLD = """
import sys
from pathlib import Path
from tasks.rollout.journal import Journal
with Journal.open(Path(sys.argv[1]), {"seed": 0}) as journal:
    print("open", flush=True)
    sys.stdin.readline()
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def test_a_second_writer_says_whom_it_waits_for_and_goes_on_when_that_is_done(tmp_path: Path) -> None:
    with start_holder(tmp_path) as first:
        assert first.stdout and first.stdin and first.stdout.readline() == "open\n"
        with start_holder(tmp_path) as second:
            assert second.stderr and second.stdout and second.stdin
            waiting = second.stderr.readline()
            assert f"is being written by process {first.pid}; waiting" in waiting
            assert second.poll() is None
            first.stdin.write("\n")
            first.stdin.flush()
            assert second.stdout.readline() == "open\n"
            second.communicate("\n", timeout=20)
        first.communicate(timeout=20)


def test_a_killed_writer_lets_the_next_one_in(tmp_path: Path) -> None:
    with start_holder(tmp_path) as first:
        assert first.stdout and first.stdout.readline() == "open\n"
        first.kill()
        first.wait()
        with Journal.open(tmp_path, {"seed": 0}) as journal:
            assert not journal.finished


def test_a_forked_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, IDENTITY)
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    try:
        journal.close()
        began = time.monotonic()
        Journal.open(tmp_path, IDENTITY).close()
        assert time.monotonic() - began < 10
    finally:
        child.kill()
        child.join()


def test_a_ref_stays_valid_while_its_journal_grows_and_reads_only_its_own_plan(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(20), journal)
        small = journal.publish(plan(10))
        before = small.model_dump_json()
        play(plan(30), journal)
        large = journal.publish(plan(30))
    again = EpisodesRef.model_validate_json(before)
    assert [e.key for e in again.read()] == [slot.key for slot in plan(10)]
    assert (again.requested, again.finished, again.errored, again.turns) == (10, 10, 0, 10)
    assert again.succeeded == sum(e.success for e in again.read())
    assert [e.key for e in large.read()] == [slot.key for slot in plan(30)]
    assert large.completion_tokens == sum(t.completion_tokens for e in large.read() for t in e.turns)


def test_a_ref_whose_journal_is_gone_or_changed_is_refused(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(10), journal)
        ref = journal.publish(plan(10)).model_dump_json()
    whole = journal.path.read_text()
    for damaged in (whole.replace("no idea", "an idea", 1), whole[: whole.rindex("{")], whole[:-1]):
        assert damaged != whole
        journal.path.write_text(damaged)
        with pytest.raises(ValidationError, match="1 of 10 episodes"):
            EpisodesRef.model_validate_json(ref)
    journal.path.write_text(whole)
    EpisodesRef.model_validate_json(ref)
    journal.path.unlink()
    with pytest.raises(ValidationError, match="is gone"):
        EpisodesRef.model_validate_json(ref)


def test_a_partial_collection_cannot_be_published(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        play(plan(5), journal)
        with pytest.raises(ValueError, match="3 of 8 episodes are still owed"):
            journal.publish(plan(8))
    assert not list(tmp_path.glob("plan-*"))


def test_a_folder_that_cannot_be_written_is_an_error_and_holds_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Journal.open(tmp_path / "file" / "journal", IDENTITY)


def write_shard(path: Path, episodes: list[Episode]) -> None:
    with ShardWriter(ShardFile(path), {}) as shard:
        append_all(shard, episodes)


def test_a_shard_that_somebody_else_has_begun_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "shard-0001-ab.jsonl"
    write_shard(path, [episode(0)])
    before = path.read_bytes()
    with pytest.raises(JournalWriteError, match="cannot write: File exists"):
        write_shard(path, [episode(1)])
    assert path.read_bytes() == before


def test_an_error_from_another_process_still_tells_a_full_disk() -> None:
    error = JournalWriteError("cannot write")
    error.errno = errno.ENOSPC
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.errno) == (JournalWriteError, "cannot write", errno.ENOSPC)


def test_a_journal_knows_what_all_shards_hold_and_begins_one_of_its_own_beside_them(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY) as journal:
        append_all(journal, [episode(0)])
    write_shard(tmp_path / "shard-0001-ab.jsonl", [episode(1), episode(2)])
    before = (tmp_path / "shard-0001-ab.jsonl").read_bytes()
    with Journal.open(tmp_path, IDENTITY) as journal:
        assert {key.problem_hash for key in journal.finished} == {f"{n:016x}" for n in range(3)}
        append_all(journal, [episode(3)])
        assert journal.path.name.startswith("shard-0002-")
        assert journal.new_shard().startswith("shard-0003-")
    assert (tmp_path / "shard-0001-ab.jsonl").read_bytes() == before
    assert [e.env_idx for e in read_episodes(tmp_path)] == [0, 1, 2, 3]


def test_of_an_episode_in_two_shards_the_last_stands_and_a_ref_keeps_the_one_that_it_means(tmp_path: Path) -> None:
    [slot] = plan(1)

    def write(shard: str, reply: str) -> None:
        said = episode(0, reply).model_copy(update={"problem_hash": slot.key.problem_hash})
        write_shard(tmp_path / shard, [said])

    with Journal.open(tmp_path, IDENTITY):
        pass
    write("shard-0002-ab.jsonl", "second")
    write("shard-0010-ab.jsonl", "third")
    write("shard-0001-ab.jsonl", "first")
    with Journal.open(tmp_path, IDENTITY) as journal:
        ref = journal.publish([slot])
    write("shard-0011-ab.jsonl", "fourth")
    assert [e.turns[0].reply for e in EpisodesRef.model_validate(ref.model_dump()).read()] == ["third"]
    assert [e.turns[0].reply for e in read_episodes(tmp_path)] == ["fourth"]
    assert [e.turns[0].reply for e in find_episodes(tmp_path, [slot.key])] == ["fourth"]


def test_a_torn_line_of_another_writer_is_not_touched(tmp_path: Path) -> None:
    with Journal.open(tmp_path, IDENTITY):
        pass
    other = tmp_path / "shard-0001-ab.jsonl"
    write_shard(other, [episode(0), episode(1)])
    torn = other.read_bytes()[:-5]
    other.write_bytes(torn)
    with Journal.open(tmp_path, IDENTITY) as journal:
        assert [key.problem_hash for key in journal.finished] == [episode(0).problem_hash]
        append_all(journal, [episode(1)])
    assert other.read_bytes() == torn
    assert [e.env_idx for e in read_episodes(tmp_path)] == [0, 1]


def test_ten_thousand_episodes_are_read_in_two_seconds(tmp_path: Path) -> None:
    shard = tmp_path / "shard-0000.jsonl"
    reply = "word " * 600
    with shard.open("w") as file:
        for n in range(10_000):
            file.write(episode(n, reply).model_dump_json() + "\n")
    began = time.process_time()
    episodes = read_episodes(shard)
    assert time.process_time() - began < 2
    assert episodes[-1].key == EpisodeKey(f"{9999:016x}", 0)
    assert shard.stat().st_size > 30_000_000
