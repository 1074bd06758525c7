"""Real processes that are killed at random moments lose nothing and double nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tasks.rollout.journal import read_episodes
from tasks.rollout.play import max_live_episodes
from tests.tasks.rollout.playing import plan

ROOT = Path(__file__).parents[3]
NUM_EPISODES = 400
MAX_CONCURRENCY = 4


def start(folder: Path, log: Path, num_episodes: int = NUM_EPISODES) -> subprocess.Popen[bytes]:
    arguments = [str(folder), str(num_episodes), str(MAX_CONCURRENCY), str(log)]
    command = [sys.executable, "-m", "tests.tasks.rollout.playing", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE)


def num_lines(folder: Path) -> int:
    shard = folder / "shard-0000.jsonl"
    return shard.read_bytes().count(b"\n") if shard.exists() else 0


def wait_for_lines(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while num_lines(folder) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_five_times_a_collection_has_every_episode_once(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal", tmp_path / "log"
    for _ in range(5):
        before = num_lines(journal)
        process = start(journal, log)
        wait_for_lines(journal, before + random.randint(1, 30))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert num_lines(journal) < NUM_EPISODES
    process = start(journal, log)
    assert process.wait(60) == 0, process.communicate()[1]
    keys = [e.key for e in read_episodes(journal)]
    assert len(keys) == NUM_EPISODES
    assert set(keys) == {slot.key for slot in plan(NUM_EPISODES)}
    asked = Counter(log.read_text().splitlines())
    assert sum(asked.values()) - NUM_EPISODES <= 5 * max_live_episodes(MAX_CONCURRENCY)


def test_two_processes_on_one_journal_share_the_work(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal", tmp_path / "log"
    first = start(journal, log, NUM_EPISODES)
    wait_for_lines(journal, 1)
    second = start(journal, log, NUM_EPISODES + 50)
    assert b"is being written by process %d" % first.pid in second.communicate(timeout=60)[1]
    assert first.wait(60) == second.returncode == 0
    assert len(read_episodes(journal)) == NUM_EPISODES + 50
    assert len(log.read_text().splitlines()) == NUM_EPISODES + 50


def test_an_interrupted_process_ends_at_once_and_its_successor_goes_on(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal", tmp_path / "log"
    process = start(journal, log)
    wait_for_lines(journal, 20)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode != 0
    assert 20 <= num_lines(journal) < NUM_EPISODES
    assert start(journal, log).wait(60) == 0
    assert len({e.key for e in read_episodes(journal)}) == num_lines(journal) == NUM_EPISODES
