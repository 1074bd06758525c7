"""The fingerprint of an env's rules reacts to what they do, not to how they are written."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from envs import ENV_CLASS_MAPPING, load_env_class
from envs.base import Env
from tasks.rollout.fingerprint import env_fingerprint

GAME = '''"""A game."""
from envs.base import Env
from .prompts import ASK
from . import judge as referee

LIMIT = 3
"""Turns."""


class Game(Env):
    """Rules."""

    def play(self):  # the game
        yield [self.ask("a", ASK.format(LIMIT))]
        self.success = referee.judge(self.problem)
'''
FILES = {
    "__init__.py": "",
    "game.py": GAME,
    "prompts.py": "ASK = 'Add {}.'\n",
    "judge.py": "def judge(problem):\n    from mygames.deep import strict\n    return strict\n",
    "deep.py": "strict = True\n",
    "unrelated.py": "x = 1\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mygames"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def fingerprint(module: str = "mygames.game", name: str = "Game") -> str:
    for loaded in [m for m in sys.modules if m.split(".")[0] in ("mygames", "heir")]:
        del sys.modules[loaded]
    importlib.invalidate_caches()
    return env_fingerprint(getattr(importlib.import_module(module), name))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("game.py", "LIMIT = 3", "LIMIT = 4"),
        ("prompts.py", "Add {}.", "Sum {}."),
        ("judge.py", "return strict", "return not strict"),
        ("deep.py", "True", "False"),
    ],
)
def test_a_changed_rule_prompt_or_judge_changes_it(package: Path, file: str, old: str, new: str) -> None:
    before = fingerprint()
    edit(package / file, old, new)
    assert fingerprint() != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("game.py", "# the game", "# the whole game"),
        ("game.py", '"""Rules."""', '"""Other words."""'),
        ("game.py", '"""Turns."""\n', ""),
        ("game.py", "LIMIT = 3", "LIMIT  =  (3)"),
        ("prompts.py", "'Add {}.'", '"Add {}."'),
        ("unrelated.py", "x = 1", "x = 2"),
    ],
)
def test_comments_docstrings_formatting_and_other_modules_do_not(package: Path, file: str, old: str, new: str) -> None:
    before = fingerprint()
    edit(package / file, old, new)
    assert fingerprint() == before


def test_a_change_in_an_inherited_class_changes_it(package: Path) -> None:
    (package.parent / "heir.py").write_text("from mygames.game import Game\nclass Heir(Game):\n    pass\n")
    before = fingerprint("heir", "Heir")
    edit(package / "prompts.py", "Add", "Sum")
    assert fingerprint("heir", "Heir") != before


def test_a_module_that_nobody_can_import_here_is_no_part_of_the_rules(package: Path) -> None:
    broken = package / "broken"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('made for another version')\n")
    (broken / "part.py").write_text("")
    before = fingerprint()
    edit(package / "judge.py", "return strict", "return strict\n\n\ndef other():\n    from mygames.broken import part")
    assert fingerprint() != before


def test_an_env_without_source_is_refused() -> None:
    typed = type("Typed", (Env,), {"__module__": "nowhere_at_all"})
    with pytest.raises(ValueError, match="the source of nowhere_at_all cannot be read"):
        env_fingerprint(typed)


def test_every_registered_env_has_its_own() -> None:
    prints = [env_fingerprint(load_env_class(name)) for name in ENV_CLASS_MAPPING]
    assert len(set(prints)) == len(prints) > 1
