"""Problems whose own reference answer does not win: they would count against the model, so none of them is played."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import track

from envs import ENV_CLASS_MAPPING
from envs.base import Env, EnvConfig, Problem
from envs.gold import GoldFailure, check_gold
from envs.sandbox import open_sandbox
from envs.sandbox.base import SandboxConfig

logger = logging.getLogger(__name__)

MAX_NAMED = 5


class ProblemCheck(BaseModel):
    """What became of a gold check."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checked: int
    """Problems whose reference answer was played; 0 if the env has no reference answers."""
    failures: dict[str, str]
    """For the hash of each problem that is left out, its name and the reason."""

    @property
    def left_out(self) -> frozenset[str]:
        """Hashes of the problems that are not to be played."""
        return frozenset(self.failures)


def needs_check(env: EnvConfig) -> bool:
    """Whether its problems come from a user; the built-in ones of a shipped env have been checked."""
    return env.dataset is not None or env.benchmark is not None or env.name not in ENV_CLASS_MAPPING


def check_problems(
    problems: Sequence[Problem], wanted: int, env_class: type[Env], env: EnvConfig, sandbox_config: SandboxConfig
) -> ProblemCheck:
    """Check the first problems, in order, until `wanted` sound ones are found. What is left out is logged.

    Raises:
        ServiceError: the infrastructure failed.
        ValueError: no problem is sound.
    """
    failures: list[GoldFailure] = []
    checked = 0
    with closing(open_sandbox(sandbox_config)) as sandbox:
        while len(batch := problems[checked : wanted + len(failures)]):
            verdicts = _shown(check_gold(env_class, batch, env, sandbox, os.cpu_count() or 1), len(batch))
            try:
                failures += [verdict for verdict in verdicts if verdict is not None]
            except NotImplementedError as none:
                logger.info("reference answers are not checked: %s", none)
                return ProblemCheck(checked=0, failures={})
            checked += len(batch)
    named = "; ".join(f"{failure.name}: {failure.reason}" for failure in failures[:MAX_NAMED])
    if len(failures) == checked:
        raise ValueError(f"no reference answer of {checked} problems wins in {env.name}, so none is played ({named})")
    if failures:
        more = "; `python -m envs.problems check` lists all" if len(failures) > MAX_NAMED else ""
        logger.warning(
            "left out: %d of %d problems, whose reference answers fail (%s%s)", len(failures), checked, named, more
        )
    return ProblemCheck(checked=checked, failures={f.problem.hash: f"{f.name}: {f.reason}" for f in failures})


def _shown(verdicts: Iterator[GoldFailure | None], total: int) -> Iterable[GoldFailure | None]:
    console = Console(stderr=True)
    return track(
        verdicts, "checking reference answers", total, console=console, transient=True, disable=not console.is_terminal
    )
