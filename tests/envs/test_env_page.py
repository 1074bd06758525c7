"""The page on adding an environment is true: its listings are what a reader saves, its commands what she runs."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envs.base import Env, EnvConfig, Play
from envs.sandbox import open_sandbox
from envs.sandbox.base import SandboxConfig
from flows.config import RunConfig, known_keys
from flows.settings import read_config
from tasks.engines.scripted import ScriptedEngine
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode
from tasks.rollout.plan import Slot
from tasks.rollout.play import play_episode

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "envs" / "README.md").read_text()
LISTINGS: dict[str, str] = dict(re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
BLOCKS: list[str] = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", "").splitlines()]
PACKAGES = ("my_envs", "my_package")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader's folder with every listing of the page saved; Python looks there, as it does for `python -m`."""
    for name, text in LISTINGS.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[module]


def shell(block: str, folder: Path) -> str:
    """What a block of commands prints, run as a reader would whose virtual environment is active."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTHONPATH"))}
    python = Path(sys.executable).parent
    settings |= {"PATH": f"{python}{os.pathsep}{settings['PATH']}", "PREFECT_HOME": str(folder / "prefect")}
    done = subprocess.run(
        ["bash", "-e", "-c", block], cwd=folder, env=settings, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def the_command(*parts: str) -> str:
    (command,) = (command for command in COMMANDS if all(part in command for part in parts))
    return command


def env_named(name: str) -> type[Env]:
    module, _, class_name = name.partition(":")
    found: type[Env] = getattr(importlib.import_module(module), class_name)
    return found


def play(env_class: type[Env], **config: Any) -> Episode:
    """One episode of its first problem, played by the page's script."""
    script = ScriptedEngine(importlib.import_module("my_envs.clock_script").reply)
    env = EnvConfig(name="page", **config)
    slot = Slot(env_class.problems_for(env, None, "train")[0], 0, 0)
    sandbox = open_sandbox(SandboxConfig())
    return asyncio.run(play_episode(slot, env_class, env, sandbox, script, CollectConfig()))


def test_the_listings_are_all_there() -> None:
    assert set(LISTINGS) == {
        "my_envs/clock_env.py",
        "my_envs/clock_script.py",
        "my_envs/clock_pair_env.py",
        "test_clock_env.py",
        "old_run.yaml",
    }


def test_the_contract_test_of_the_page_passes_by_its_command(folder: Path) -> None:
    assert "1 passed" in shell(the_command("pytest"), folder)


def test_the_contract_test_fails_for_an_env_that_is_broken(folder: Path) -> None:
    path = folder / "my_envs" / "clock_env.py"
    path.write_text(path.read_text().replace("return self.problem.arrival", "return clock(0)"))
    with pytest.raises(AssertionError, match="reference answer does not score success"):
        shell(the_command("pytest"), folder)


def test_the_larger_env_keeps_the_promises_too(folder: Path) -> None:
    test = LISTINGS["test_clock_env.py"].replace("clock_env", "clock_pair_env").replace("ClockEnv", "ClockPairEnv")
    (folder / "test_clock_env.py").write_text(test)
    assert "1 passed" in shell(the_command("pytest"), folder)


def test_the_check_commands_print_what_the_page_shows(folder: Path) -> None:
    (shown,) = re.findall(r"^    (\d+ of \d+ reference answers pass .*)$", PAGE, re.MULTILINE)
    assert shown in shell(the_command("envs.problems check --env.name"), folder)
    (block,) = (block for block in BLOCKS if "journeys.jsonl" in block)
    assert "2 of 2 reference answers pass in my_envs.clock_pair_env:ClockPairEnv" in shell(block, folder)


def test_the_collection_with_the_script_keeps_the_right_arrivals(folder: Path) -> None:
    shell(the_command("flows.collect_only", "clock_env:ClockEnv", "scripted"), folder)
    kept, rejected = (
        [json.loads(line) for path in (folder / "sft_data_ClockEnv").glob(name) for line in path.open()]
        for name in ("sft_data_*[0-9].jsonl", "sft_data_*_rejected.jsonl")
    )
    assert len(kept) + len(rejected) == 100
    assert len(kept) > 50
    assert {row["reason"] for row in rejected} == {"episode_failed"}
    env_class = env_named("my_envs.clock_env:ClockEnv")
    answers: dict[str, Any] = {problem.hash: problem for problem in env_class.problems(None, "train")}
    for row in kept:
        assert answers[row["metadata"]["problem_hash"]].arrival in row["messages"][-1]["content"]


def test_every_flow_command_can_be_read(folder: Path) -> None:
    flows = [command.split() for command in COMMANDS if "-m flows." in command]
    flows += [command.split() for command in re.findall(r"`(python -m flows\.[^`]*)`", PAGE)]
    assert len(flows) >= 6
    for _, _, module, *arguments in flows:
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
        if "old_run.yaml" not in arguments:
            config = read_config(RunConfig, arguments)
            assert config.env.name.startswith("my_envs.")


def test_the_larger_env_is_played_by_both_roles_under_its_option(folder: Path) -> None:
    config = read_config(RunConfig, the_command("flows.collect_only", "ClockPairEnv").split()[3:])
    env_class = env_named(config.env.name)
    played = env_class.problems_for(config.env, None, "train")
    assert {problem.difficulty for problem in played} == {1}
    episode = play(env_class, options=config.env.options)
    assert episode.error is None
    assert {turn.agent_name for turn in episode.turns} == {"traveller", "programmer"}


def test_what_ends_as_what_is_as_the_table_says(folder: Path) -> None:
    clock_env = env_named("my_envs.clock_env:ClockEnv")

    class Raising(clock_env):  # type: ignore[valid-type, misc]
        def play(self) -> Play:
            yield [self.ask("traveller", "1 2 3")]
            raise LookupError("no such train")

    class WithoutVerdict(clock_env):  # type: ignore[valid-type, misc]
        def play(self) -> Play:
            yield [self.ask("traveller", "1 2 3")]

    class WrongType(clock_env):  # type: ignore[valid-type, misc]
        def play(self) -> Any:
            yield "1 2 3"

    class Stranger(clock_env):  # type: ignore[valid-type, misc]
        def play(self) -> Play:
            yield [self.ask("guard", "1 2 3")]

    class Endless(clock_env):  # type: ignore[valid-type, misc]
        def play(self) -> Play:
            while True:
                yield [self.ask("traveller", "1 2 3")]

    class Blocking(clock_env):  # type: ignore[valid-type, misc]
        def play(self) -> Play:
            yield [self.ask("traveller", "1 2 3")]
            threading.Event().wait()

    def kind(env_class: type[Env]) -> str:
        episode = play(env_class, timeout_s=0.5 if env_class is Blocking else 60)
        assert episode.error is not None
        assert env_class.__name__ in episode.error.traceback or "test_env_page" in episode.error.traceback
        return episode.error.kind

    assert kind(Raising) == "LookupError"
    assert kind(WithoutVerdict) == "RuntimeError"
    rows: dict[str, type[Env]] = {
        "yields something other": WrongType,
        "asks a role that": Stranger,
        "asks a role more than": Endless,
        "takes longer than": Blocking,
    }
    for beginning, env_class in rows.items():
        (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| it {beginning}"))
        assert f"`{kind(env_class)}`" in row


def test_every_setting_that_the_page_names_exists() -> None:
    named = set(re.findall(r"(?:`|--)((?:env|collect|engine|model)\.[a-z_]+(?:\.[a-z_]+)?)", PAGE))
    assert {"env.max_turns", "collect.max_error_rate", "engine.script"} <= named
    assert named - {"env.options.hardest"} - set(known_keys()) == set()


def test_the_old_framework_is_brought_as_the_page_says(folder: Path) -> None:
    package = folder / "my_package"
    package.mkdir()
    old = Path(__file__).parent / "adapters" / "old_framework.py"
    shutil.copy(old, package / "agents.py")
    with (package / "agents.py").open("a") as file:
        file.write("\n\nCoder, Tester = Writer, OldAgent\n")
    (package / "code_env.py").write_text(
        "from my_package.agents import OldBatch\n\n\nclass CodeEnvBatch(OldBatch):\n"
        "    def __init__(self, *arguments, config, **settings):\n"
        '        config.env["table"] = [f"{config.env.dataset}{n}" for n in range(500)]\n'
        "        super().__init__(*arguments, config=config, **settings)\n"
    )
    config = read_config(RunConfig, ["--config", "old_run.yaml"])
    env_class = importlib.import_module("envs.adapters.legacy").LegacyEnv
    problems = env_class.problems_for(config.env, config.env.dataset, None)
    assert len(problems) == 500
    reply = ScriptedEngine(lambda request: "7SPPA")
    sandbox = open_sandbox(SandboxConfig())
    episode = asyncio.run(play_episode(Slot(problems[7], 7, 0), env_class, config.env, sandbox, reply, CollectConfig()))
    assert episode.success
    assert [turn.agent_name for turn in episode.turns] == ["coder", "tester"]
