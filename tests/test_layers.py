"""The rooms and the arrows between them: deployments -> flows -> tasks/*.py -> tasks/<folder>/ -> envs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs.python_source import parse_python

ROOT = Path(__file__).parents[1]
CLIENTS = {"aiohttp", "httpx", "requests", "openai", "urllib3"}
HEAVY = {"torch", "transformers", "trl", "peft", "vllm"}

FORBIDDEN = {
    "envs": {"tasks", "flows", "deployments", "prefect"} | HEAVY | CLIENTS,
    "tasks/engines": {"envs", "flows", "deployments", "prefect"},
    "tasks/rollout": {"flows", "deployments", "prefect"} | HEAVY,
    "tasks/dataset": {"flows", "deployments", "prefect"} | HEAVY,
    "tasks/training": {"flows", "deployments", "prefect"},
    "tasks/evaluation": {"flows", "deployments", "prefect"} | HEAVY,
    "tasks/observing": {"envs", "flows", "deployments", "prefect"} | HEAVY,
    "tasks/promotion": {"flows", "deployments", "prefect"} | HEAVY,
    "tasks/housekeeping": {"flows", "deployments", "prefect"} | HEAVY,
    "tasks/reporting": {"flows", "deployments", "prefect"} | HEAVY,
    "tasks": {"flows", "deployments"},
    "flows": {"deployments"} | HEAVY,
}
"""What no module under a folder may import, wherever in its code."""

OF_TRAINING = ("processes", "progress", "rows", "checkpoints", "steps", "gate", "model_folder")
"""The rooms of tasks/training: each may import from those before it."""


def imports(path: Path) -> Iterator[str]:
    """Top-level packages that a module imports."""
    for node in ast.walk(parse_python(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level < 2, f"{path} imports from a package above its own, which this test does not follow"
            yield path.parent.name if node.level else (node.module or "").partition(".")[0]


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_module_imports_what_its_room_may_not(folder: str) -> None:
    modules = sorted((ROOT / folder).rglob("*.py"))
    assert modules
    wrong = {str(m.relative_to(ROOT)): found for m in modules if (found := FORBIDDEN[folder] & set(imports(m)))}
    assert not wrong


def test_files_in_tasks_are_the_only_ones_in_tasks_that_know_prefect() -> None:
    knowing = {m.relative_to(ROOT) for m in (ROOT / "tasks").rglob("*.py") if "prefect" in imports(m)}
    assert knowing
    assert all(len(module.parts) == 2 for module in knowing)


@pytest.mark.parametrize("room", OF_TRAINING)
def test_a_room_of_training_imports_only_from_those_before_it(room: str) -> None:
    modules = sorted((ROOT / "tasks/training" / room).glob("*.py"))
    assert len(modules) > 1
    may_not = {*OF_TRAINING[OF_TRAINING.index(room) + 1 :], "launch", "sft"}
    nodes = [node for module in modules for node in ast.walk(parse_python(module.read_text()))]
    imported = [(node.module or "").split(".") for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not {name[2] for name in imported if name[:2] == ["tasks", "training"]} & may_not


def test_the_confined_side_of_the_sandbox_imports_the_standard_library_and_itself_alone() -> None:
    modules = sorted((ROOT / "envs/sandbox/zygote").glob("*.py"))
    assert len(modules) > 5
    assert {name for m in modules for name in imports(m)} <= sys.stdlib_module_names | {"zygote"}
