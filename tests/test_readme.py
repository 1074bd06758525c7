"""The README is true: its commands exist, its map shows every file."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_module_that_a_command_names_exists() -> None:
    modules = set(re.findall(r"python -m ([\w.]+)", README))
    assert {"flows.quick_test", "flows.collect_only", "flows.train_only"} <= modules
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"no module {module}"


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"make ([a-z][\w-]*)", README))
    makefile = (ROOT / "Makefile").read_text()
    assert {"quick-test", "test"} <= targets
    for target in targets - {"it", "sure"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target {target}"


def test_the_map_shows_every_code_file_and_no_other() -> None:
    (tree,) = re.findall(r"## Map\n\n```\n(.*?)```", README, re.DOTALL)
    shown = set(re.findall(r"[\w.]+\.(?:py|yaml)", tree))
    rooms = ("flows", "tasks", "envs", "deployments")
    there = {path.name for room in rooms for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py"}
    assert there - shown == set(), "files that the map does not show"
    assert {name for name in shown if name.endswith(".py")} - there <= {"__init__.py", "test_layers.py"}
