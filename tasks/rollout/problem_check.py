"""Problems whose own reference answer does not win: they would count against the model, so none of them is played."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import Progress

from envs import ENV_CLASS_MAPPING
from envs.base import Env, EnvConfig, Problem
from envs.gold import GoldFailure
from envs.sandbox import open_sandbox
from envs.sandbox.base import Sandbox, SandboxConfig
from tasks.rollout.env_threads import EnvThreads
from tasks.rollout.game import EnvFault
from tasks.rollout.gold_player import GoldPlayer, Loss, Verdict

logger = logging.getLogger(__name__)

MAX_NAMED = 5
NUM_FIRST = 8
"""An env that fails in each of the first problems is tried on no others."""


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

    A problem is left out if its reference answer loses, or if it says itself that no answer can be judged, twice: the
    second time it is played alone, since load may be what kept the first from winning. Where the env raises or does not
    come back, that is not the problem's fault: it is played all the same, and ends as an errored episode.

    Raises:
        ServiceError: the infrastructure failed.
        ValueError: no problem is sound, or the env fails in each of the first ones.
    """
    with closing(open_sandbox(sandbox_config)) as sandbox:
        try:
            found = asyncio.run(_check(problems, wanted, env_class, env, sandbox))
        except NotImplementedError as none:
            logger.info("reference answers are not checked: %s", none)
            return ProblemCheck(checked=0, failures={})
    failures, checked = found.failures, found.checked
    named = "; ".join(f"{failure.name}: {failure.reason}" for failure in failures[:MAX_NAMED])
    if len(failures) == checked:
        raise ValueError(f"no reference answer of {checked} problems wins in {env.name}, so none is played ({named})")
    if failures:
        more = "; `python -m envs.problems check` lists all" if len(failures) > MAX_NAMED else ""
        logger.warning(
            "left out: %d of %d problems, whose reference answers fail (%s%s)", len(failures), checked, named, more
        )
    if found.faults:
        first = found.faults[0].as_error()
        logger.warning(
            "%s failed in %d of %d problems when their reference answers were played; they are not left out. The first "
            "failure was %s: %s\n%s",
            env.name,
            len(found.faults),
            checked,
            first.kind,
            first.message,
            first.traceback,
        )
    return ProblemCheck(checked=checked, failures={f.problem.hash: f"{f.name}: {f.reason}" for f in failures})


@dataclass
class _Found:
    """What became of the problems so far."""

    checked: int = 0
    failures: list[GoldFailure] = field(default_factory=list)
    faults: list[EnvFault] = field(default_factory=list)


async def _check(
    problems: Sequence[Problem], wanted: int, env_class: type[Env], env: EnvConfig, sandbox: Sandbox
) -> _Found:
    found = _Found()
    workers = max(os.cpu_count() or 1, NUM_FIRST)  # all of the first at once: each may take the whole env.timeout_s
    async with EnvThreads(workers, env.timeout_s) as threads:
        player = GoldPlayer(env_class, env, sandbox, threads)
        with _progress() as bar:
            row = bar.add_task("checking reference answers", total=min(wanted, len(problems)))
            while len(batch := problems[found.checked : _end_of_batch(found, wanted)]):
                bar.update(row, total=min(wanted + len(found.failures), len(problems)))
                verdicts = await player.play_all(batch, workers, partial(bar.advance, row))
                if not found.checked:
                    await _see_that_it_can_be_played(player, batch, verdicts)
                found.checked += len(batch)
                for problem, verdict in zip(batch, verdicts, strict=True):
                    if isinstance(verdict, Loss):
                        verdict = await player.play(problem)
                    if isinstance(verdict, Loss):
                        found.failures.append(GoldFailure(problem, await player.explain(problem, verdict)))
                    elif isinstance(verdict, EnvFault):
                        found.faults.append(verdict)
    return found


def _end_of_batch(found: _Found, wanted: int) -> int:
    return wanted + len(found.failures) if found.checked else min(wanted, NUM_FIRST)


async def _see_that_it_can_be_played(player: GoldPlayer, batch: Sequence[Problem], verdicts: Sequence[Verdict]) -> None:
    """See that an env did not fail in every problem of a batch; the first is tried once more.

    Raises:
        ValueError: it did.
    """
    if not all(isinstance(verdict, EnvFault) for verdict in verdicts):
        return
    again = await player.play(batch[0])
    if not isinstance(again, EnvFault):
        return
    error = again.as_error()
    name = player.env.name
    logger.error("%s failed with the reference answer of %r\n%s", name, batch[0].statement[:80], error.traceback)
    raise ValueError(
        f"{name} cannot be played: it failed in each of the first {len(batch)} problems, with their reference answers. "
        f"Mend what the log shows: {error.kind}: {' '.join(error.message.split())}"
    )


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
