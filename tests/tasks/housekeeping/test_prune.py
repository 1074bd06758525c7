from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envs.retrieval.base import Document
from envs.retrieval.responses import ResponseCache
from tasks.housekeeping.cache_items import cache_items
from tasks.housekeeping.data_items import data_items
from tasks.housekeeping.inventory import run_items
from tasks.housekeeping.item import Item
from tasks.housekeeping.model_items import model_items
from tasks.housekeeping.prune import PRUNABLE, InUse, prunable, remove
from tasks.promotion.history import Entry, append_entry, now
from tasks.rollout.folder_lock import lock_folder, unlock_folder
from tests.tasks.reporting.folders import episode, write_data_file, write_journal

DAY = 24 * 3600.0


def age(path: Path, days: float) -> None:
    when = time.time() - days * DAY
    for part in [path, *path.rglob("*")]:
        os.utime(part, (when, when))


@pytest.fixture
def nights(tmp_path: Path) -> Path:
    """A data folder with four nights, the last of them 40 days ago."""
    for i in range(4):
        write_journal(tmp_path, f"night{i}", [episode(i)], batch=str(i))
        age(tmp_path / ".episodes" / f"night{i}", 43 - i)
    return tmp_path


def chosen(items: list[Item], older_than_days: float = 30, keep: int = 0, **more: set[Path]) -> set[str]:
    return {i.path.name for i in prunable(items, PRUNABLE, older_than_days * DAY, keep, **more)}


def test_old_ones_may_go_but_never_the_newest_unless_it_is_named(nights):
    items = list(data_items(nights))
    assert chosen(items) == {"night0", "night1", "night2"}
    assert chosen(items, older_than_days=41.5) == {"night0", "night1"}
    assert chosen(items, keep=3) == {"night0"}
    assert chosen(items, named={nights / ".episodes" / "night3"}) == {"night3"}


def test_a_journal_that_is_being_written_stays_even_if_it_is_named_and_even_if_that_began_later(nights):
    journal = nights / ".episodes" / "night0"
    before = next(i for i in data_items(nights) if i.path == journal)
    lock = lock_folder(journal)
    try:
        age(journal, 43)
        items = list(data_items(nights))
        assert chosen(items) == {"night1", "night2"}
        assert chosen(items, named={journal}) == set()
        with pytest.raises(InUse, match="somebody writes"):
            remove(before)
    finally:
        unlock_folder(lock)
    (item,) = (i for i in data_items(nights) if i.path == journal)
    assert remove(item) == item.extent.disk_bytes
    assert not journal.exists()


def test_a_training_that_runs_and_what_is_promoted_stay(tmp_path):
    work = tmp_path / ".sft_model_math.work-0"
    promoted = tmp_path / "sft_model_math-promoted"
    for folder in (work, promoted / "versions" / "a", promoted / "versions" / "b", tmp_path / "sft_model_math"):
        folder.mkdir(parents=True)
        (folder / "lock").touch()
    (promoted / "history.jsonl").touch()
    (promoted / "current").symlink_to("versions/a")
    age(tmp_path, 90)
    with (work / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        items = list(model_items(tmp_path))
        everything = {item.path for item in items}
        assert chosen(items) == chosen(items, named=everything) == {"b"}
    assert chosen(list(model_items(tmp_path))) == {"b", work.name}


def test_a_version_that_is_promoted_meanwhile_stays(tmp_path):
    promoted = tmp_path / "sft_model_math-promoted"
    for name in "ab":
        (promoted / "versions" / name).mkdir(parents=True)
    (promoted / "history.jsonl").touch()
    (promoted / "current").symlink_to("versions/a")
    (old,) = (i for i in model_items(tmp_path) if not i.needed)
    append_entry(promoted, Entry(when=now(), outcome="rolled back", version="b", replaced="a", why="asked for"))
    with pytest.raises(InUse, match="promoted by now"):
        remove(old)
    assert {i.needed for i in model_items(tmp_path)} == {"promoted"}


def test_what_was_written_after_it_was_shown_stays(tmp_path):
    write_journal(tmp_path, "c0", [episode(1)])
    age(tmp_path, 90)
    (old,) = data_items(tmp_path)
    shard = old.path / "shard-0000.jsonl"
    os.utime(shard)
    with pytest.raises(InUse, match="written meanwhile"):
        remove(old)
    assert shard.exists()


def test_who_waits_for_a_journal_that_is_deleted_gets_a_new_one(nights):
    (item,) = (i for i in data_items(nights) if i.path.name == "night0")
    remove(item)
    lock = lock_folder(item.path)
    assert [path.name for path in item.path.iterdir()] == ["writer.lock"]
    unlock_folder(lock)


def test_a_data_file_goes_with_all_that_belongs_to_it(tmp_path):
    write_data_file(tmp_path, [episode(1), episode(2, False)])
    (item, _) = data_items(tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert remove(item) == size
    assert list(tmp_path.iterdir()) == []


def test_what_is_behind_a_link_stays_and_so_does_what_a_link_in_a_folder_leads_to(tmp_path, nights):
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    (nights / ".episodes" / "night0" / "link").symlink_to(outside)
    here = tmp_path / "here"
    here.mkdir()
    (here / "sft_data_math").symlink_to(nights)
    assert chosen(run_items(here)) == set()
    remove(next(i for i in data_items(nights) if i.path.name == "night0"))
    assert outside.read_text() == "not ours"


def test_answers_of_search_services_are_forgotten_and_who_has_them_open_goes_on(tmp_path):
    cache = ResponseCache(tmp_path / "responses.sqlite")
    for number in range(50):
        cache.put(["q", number], [Document("id", "title", "text" * 500)])
    (item,) = cache_items(tmp_path)
    assert remove(item) > 50_000
    assert cache.get(["q", 1]) is None
    cache.put(["q", 1], [])
    with sqlite3.connect(item.path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InUse, match="locked"):
            remove(item)


KILLED = """
import os, signal, sys
from pathlib import Path
from tasks.housekeeping.data_items import data_items
from tasks.housekeeping.prune import remove

left = int(sys.argv[2])
def count(event, _):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
item = next(i for i in data_items(Path(sys.argv[1])) if i.kind == sys.argv[3])
sys.addaudithook(count)
remove(item)
"""


@pytest.mark.parametrize("kind", ["journals", "data"])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_kill_in_the_middle_leaves_all_of_it_or_what_the_next_pruning_takes(tmp_path, kind, steps):
    write_journal(tmp_path, "c0", [episode(1)])
    write_data_file(tmp_path, [episode(1)])
    age(tmp_path, 90)
    whole = {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(steps), kind], check=False)
    assert done.returncode == -9
    there = {item.kind: item for item in data_items(tmp_path)}
    if steps == 0:
        assert {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()} == whole
        return
    assert kind not in there
    for item in prunable(list(data_items(tmp_path)), ["leftovers"], 0, 0):
        remove(item)
    other = {"journals": "data", "data": "journals"}[kind]
    assert {item.kind for item in data_items(tmp_path)} - {"rejected"} == {other}
    assert not list(tmp_path.glob(".pruned-*"))
