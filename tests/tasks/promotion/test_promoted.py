"""The pointer is whole at any moment, the history says how it came to where it is, and there is a way back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from flows.promote import main
from tasks.evaluation.compare import Comparison, compare
from tasks.promotion.history import HISTORY, promoted_at, read_history
from tasks.promotion.promoted import (
    PromotionError,
    all_versions,
    current_version,
    keep,
    promote,
    promoted_folder,
    roll_back,
    version_folder,
)
from tasks.rollout.artifact import Ref, content_hash
from tests.tasks.reporting.folders import episode

ROOT = Path(__file__).parents[3]
BETTER: Comparison = compare([episode(i, False) for i in range(12)], [episode(i, True) for i in range(12)])


def model(folder: Path, text: str) -> Ref:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_text(text)
    (folder / "README.md").write_text(f"the card of {text}")
    return Ref(path=folder, sha256=content_hash(folder))


def promote_one(folder: Path, text: str, instead_of: str | None = None, run: str | None = None) -> str:
    entry = promote(
        folder,
        {Path(): model(folder.with_name(f"model-{text}"), text)},
        instead_of=instead_of,
        comparison=BETTER,
        data={"sft_data/a.jsonl": "abc"},
        run=run,
    )
    assert entry.version is not None
    return entry.version


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return promoted_folder(tmp_path / "sft_model_math")


def weights(folder: Path) -> str:
    """What is read through the pointer."""
    return (folder / "current" / "adapter_model.safetensors").read_text()


def test_a_version_is_a_whole_copy_and_the_pointer_survives_a_move(folder: Path, tmp_path: Path) -> None:
    assert current_version(folder) is None
    first = promote_one(folder, "one")
    assert first.endswith(f"-{content_hash(tmp_path / 'model-one')[:8]}")
    second = promote_one(folder, "two", instead_of=first)
    (tmp_path / "model-two" / "adapter_model.safetensors").write_text("trained anew in the same folder")
    assert current_version(folder) == second and all_versions(folder) == sorted([first, second])
    moved = folder.rename(tmp_path / "elsewhere")
    assert weights(moved) == "two" and (moved / "current" / "README.md").exists()
    (_, entry) = read_history(moved)
    assert (entry.outcome, entry.version, entry.replaced) == ("promoted", second, first)
    assert entry.data == {"sft_data/a.jsonl": "abc"} and entry.proof is not None
    assert (entry.proof.before, entry.proof.after, entry.proof.problems) == (0.0, 1.0, 12)


def test_rolling_back_goes_to_what_was_replaced_then_to_the_bare_model_or_to_a_named_version(folder: Path) -> None:
    first = promote_one(folder, "one")
    second = promote_one(folder, "two", instead_of=first)
    assert roll_back(folder).version == first and weights(folder) == "one"
    third = promote_one(folder, "three", instead_of=first)
    assert roll_back(folder).version == first
    assert roll_back(folder).version is None
    assert not (folder / "current").exists() and current_version(folder) is None
    assert roll_back(folder, second.rpartition("-")[2]).version == second and weights(folder) == "two"
    with pytest.raises(PromotionError, match="is what is promoted already"):
        roll_back(folder, second)
    with pytest.raises(PromotionError, match=rf"0 versions are called nope; wanted one of .*{third}.*, bare"):
        roll_back(folder, "nope")
    assert roll_back(folder, "bare").version is None
    with pytest.raises(PromotionError, match="nothing is before it"):
        roll_back(folder)


def test_what_was_promoted_at_a_time_is_told_by_the_history(folder: Path) -> None:
    first = promote_one(folder, "one")
    keep(folder, "no significant difference", comparison=BETTER)
    second = promote_one(folder, "two", instead_of=first)
    entries = read_history(folder)
    assert [entry.outcome for entry in entries] == ["promoted", "kept the old one", "promoted"]
    assert promoted_at(entries, entries[0].when - timedelta(seconds=1)) is None
    assert promoted_at(entries, entries[1].when) == first
    assert promoted_at(entries, entries[2].when) == second


def test_one_that_was_compared_with_another_than_the_present_one_is_not_promoted(folder: Path) -> None:
    first = promote_one(folder, "one")
    assert promote_one(folder, "two", instead_of=None) == first
    entry = read_history(folder)[-1]
    assert entry.outcome == "kept the old one" and "compared with the bare model" in entry.why
    assert weights(folder) == "one" and all_versions(folder) == [first]


def test_a_run_that_is_tried_again_has_had_its_say_and_a_roll_back_since_stays(folder: Path) -> None:
    promote_one(folder, "one", run="a")
    keep(folder, "nothing new", run="b")
    keep(folder, "nothing new", run="b")
    roll_back(folder)
    promote_one(folder, "one", run="a")
    assert [entry.outcome for entry in read_history(folder)] == ["promoted", "kept the old one", "rolled back"]
    assert current_version(folder) is None


def test_the_same_content_is_one_version(folder: Path) -> None:
    first = promote_one(folder, "one")
    roll_back(folder)
    assert promote_one(folder, "one") == first and all_versions(folder) == [first]


def test_several_policies_are_promoted_together(folder: Path, tmp_path: Path) -> None:
    parts = {Path(name): model(tmp_path / "m" / name, name) for name in ("coder", "tester")}
    entry = promote(folder, parts, instead_of=None, comparison=BETTER)
    assert {path.name for path in (folder / "current").iterdir()} == {"coder", "tester"}
    assert entry.version is not None
    for place, ref in parts.items():
        assert content_hash(version_folder(folder, entry.version) / place) == ref.sha256


def test_a_model_folder_that_changed_since_it_was_evaluated_is_refused(folder: Path, tmp_path: Path) -> None:
    ref = model(tmp_path / "m", "evaluated")
    (tmp_path / "m" / "adapter_model.safetensors").write_text("another")
    with pytest.raises(PromotionError, match="has changed since it was evaluated"):
        promote(folder, {Path(): ref}, instead_of=None, comparison=BETTER)
    assert not all_versions(folder) and not read_history(folder)


def killed_at(line: int, folder: Path, first: str) -> bool:
    """Promote in a process that kills itself when it comes to its n-th line that may write; False: it did not."""
    pid = os.fork()
    if pid == 0:
        left = line

        def count(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if "/tasks/promotion/" not in frame.f_code.co_filename and "artifact.py" not in frame.f_code.co_filename:
                return None
            if event == "line" and (left := left - 1) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return count

        try:
            sys.settrace(count)
            promote_one(folder, "two", instead_of=first, run="x")
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def test_a_kill_at_any_line_leaves_a_whole_version_and_the_same_run_finishes_it(folder: Path) -> None:
    first = promote_one(folder, "one")
    seen = set()
    for line in range(1, 1000, 2):
        was_killed = killed_at(line, folder, first)
        seen.add(weights(folder))
        assert promoted_at(read_history(folder), read_history(folder)[-1].when) == current_version(folder)
        if not was_killed:
            break
        if line % 7 == 0 or current_version(folder) != first:  # go on with it, as a retry does, then back to the start
            second = promote_one(folder, "two", instead_of=first, run="x")
            assert weights(folder) == "two" and current_version(folder) == second
            assert [e.outcome for e in read_history(folder)].count("promoted") == 2
            (folder / HISTORY).write_text((folder / HISTORY).read_text().splitlines(keepends=True)[0])
            keep(folder, "to point back", run="y")
            (folder / HISTORY).write_text((folder / HISTORY).read_text().splitlines(keepends=True)[0])
            assert weights(folder) == "one"
    else:
        raise AssertionError("it never ends")
    assert line > 30 and seen == {"one", "two"}
    assert not list(folder.glob(".current.*"))


def test_a_torn_line_of_the_history_does_not_count_and_the_next_one_takes_its_place(folder: Path) -> None:
    first = promote_one(folder, "one")
    with (folder / HISTORY).open("a") as file:
        file.write('{"when": "2026-')
    assert len(read_history(folder)) == 1
    keep(folder, "nothing new")
    assert [entry.version for entry in read_history(folder)] == [first, first]


def test_two_at_once_take_turns_and_only_one_of_them_is_promoted(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.tasks.promotion.test_promoted import promote_one\n"
        "promote_one(Path(sys.argv[1]), sys.argv[2])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", program, str(folder), text], cwd=ROOT, env=env)
        for text in ("one", "two")
    ]
    assert [process.wait(60) for process in both] == [0, 0]
    assert sorted(entry.outcome for entry in read_history(folder)) == ["kept the old one", "promoted"]
    assert len(all_versions(folder)) == 1


def test_the_command_shows_the_history_and_rolls_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["promote", str(folder.parent), *arguments])
        code = main()
        said = capsys.readouterr()
        return code, said.out + said.err

    assert command() == (1, f"{folder.parent} holds no -promoted folder; wanted where a flow has promoted one.\n")
    first = promote_one(folder, "one")
    second = promote_one(folder, "two", instead_of=first)
    code, said = command()
    assert code == 0 and f"{second} is promoted" in said and "0.0 % -> 100.0 %" in said and "+100.0 (" in said
    code, said = command("--roll-back")
    assert code == 0 and f"{first} is promoted" in said and "rolled back" in said
    code, said = command("--roll-back", "nope")
    assert code == 1 and "wanted one of" in said
    other = folder.with_name("sft_model_code-promoted")
    promote_one(other, "one")
    code, said = command("--roll-back")
    assert code == 1 and "which one is to be rolled back?" in said
