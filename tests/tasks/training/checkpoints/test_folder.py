"""Checkpoints on disk: whole, or not there."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tasks.training.checkpoints.folder import MANIFEST, CheckpointError, Checkpoints
from tests.tasks.training.small_disk import SmallDisk

REPOSITORY = Path(__file__).parents[4]


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def write(checkpoints: Checkpoints, step: int, form: str = "ddp") -> Path:
    """A checkpoint of two files, published."""
    folder = checkpoints.writing_folder / checkpoints.path(step).name
    (folder / "optimizer").mkdir(parents=True)
    (folder / "weights").write_bytes(b"w" * 1000)
    (folder / "optimizer" / "shard").write_bytes(b"o" * 100)
    checkpoints.publish(step, form)
    return checkpoints.path(step)


def test_the_newest_whole_one_is_found_and_older_ones_are_forgotten(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest_whole("ddp") == (None, [])
    for step in (9, 10, 100):
        write(checkpoints, step)
        checkpoints.forget_old()
    assert checkpoints.steps() == [10, 100]
    assert checkpoints.newest_whole("ddp") == (checkpoints.path(100), [])


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda path: os.truncate(path / "weights", 10), "weights has 10 of 1,000 bytes"),
        (lambda path: (path / "optimizer" / "shard").unlink(), "optimizer/shard is gone"),
        (lambda path: (path / "weights").write_bytes(b"x" * 1000), "weights has changed"),
        (lambda path: (path / MANIFEST).unlink(), f"no readable {MANIFEST}"),
        (lambda path: (path / MANIFEST).write_bytes(b"\xff{"), f"no readable {MANIFEST}"),
    ],
)
def test_a_damaged_one_is_left_out_with_a_line_and_the_one_before_it_is_used(
    checkpoints: Checkpoints, damage: object, what: str
) -> None:
    before, newest = write(checkpoints, 1), write(checkpoints, 2)
    assert callable(damage)
    damage(newest)
    found, lines = checkpoints.newest_whole("ddp")
    assert found == before
    assert [what in line and str(newest) in line and "\n" not in line for line in lines] == [True]
    assert not newest.exists()  # or it would count as one of the newest


def test_one_of_another_form_is_refused_in_one_line(checkpoints: Checkpoints) -> None:
    write(checkpoints, 3, form="fsdp")
    with pytest.raises(CheckpointError, match="checkpoint-3 was written by a training with fsdp; wanted one with ddp"):
        checkpoints.newest_whole("ddp")
    assert checkpoints.steps() == [3]


WRITES_ON = """
import sys
from pathlib import Path
from tasks.training.checkpoints.folder import Checkpoints

checkpoints = Checkpoints(Path(sys.argv[1]), keep=2)
checkpoints.newest_whole("ddp")
for step in range(1 + max(checkpoints.steps(), default=0), 10_000):
    folder = checkpoints.writing_folder / checkpoints.path(step).name
    (folder / "optimizer").mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(1000))
    (folder / "optimizer" / "shard").write_bytes(bytes(100))
    checkpoints.publish(step, "ddp")
    checkpoints.forget_old()
    print(step, flush=True)
"""


def test_a_kill_at_any_moment_leaves_whole_checkpoints_alone(checkpoints: Checkpoints) -> None:
    last = 0
    for more in range(5):
        command = [sys.executable, "-c", WRITES_ON, str(checkpoints.folder)]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(3 + more)]
        time.sleep(0.001 * more)
        process.kill()
        process.wait()
        found, damaged = checkpoints.newest_whole("ddp")
        assert found is not None and damaged == []
        assert seen[0] == last + 1 and checkpoints.steps()[-1] >= seen[-1]
        last = checkpoints.steps()[-1]
        assert {p.name for p in checkpoints.folder.iterdir()} <= {f"checkpoint-{last - i}" for i in range(3)}


@pytest.mark.parametrize("writer", ["torch", "safetensors", "python"])
def test_a_full_disk_is_one_line_with_folder_and_bytes_and_the_last_good_one_stays(
    small_disk: SmallDisk, writer: str
) -> None:
    checkpoints = Checkpoints(small_disk.folder / "checkpoints", keep=2)
    good = write(checkpoints, 7)
    half = checkpoints.writing_folder / "checkpoint-8"
    half.mkdir(parents=True)
    zeros = torch.zeros(200_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    small_disk.fill(os.getpid())
    with (
        pytest.raises(CheckpointError, match=r"step 8 could not be written to .*disk/checkpoints: no space") as caught,
        checkpoints.explained(8, bytes_needed=2_400_000),
    ):
        if writer == "torch":
            torch.save(zeros, half / "optimizer.pt")
        elif writer == "safetensors":
            save_file({"zeros": zeros}, half / "model.safetensors")
        else:
            (half / "state.json").write_bytes(bytes(800_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "about 2.4 MB" in str(caught.value) and "step 7 is kept" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert checkpoints.newest_whole("ddp") == (good, []) and not checkpoints.writing_folder.exists()


def test_an_error_that_is_not_about_writing_stays_what_it_is(checkpoints: Checkpoints) -> None:
    write(checkpoints, 1)
    with pytest.raises(RuntimeError, match="out of range"), checkpoints.explained(2, bytes_needed=1):
        raise RuntimeError("out of range")
