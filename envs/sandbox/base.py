"""The interface behind which untrusted code runs, and the words for what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

RunStatus = Literal["ok", "timeout", "output_limit", "oom", "runtime_error"]


class SandboxConfig(BaseModel):
    """Limits of one run of untrusted code. They are part of a verdict, so a change of them replays episodes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu_s: float = Field(2.0, gt=0, le=600, description="CPU seconds that one run may use.")
    memory_mb: int = Field(512, ge=64, description="Address space of one run, in MiB.")
    output_kb: int = Field(256, ge=1, le=65536, description="Most that one run may print, in KiB.")


class SandboxError(RuntimeError):
    """The sandbox itself failed, not the program in it. Never a reward of 0: it stops the run."""


@dataclass(frozen=True)
class Run:
    """What became of one run of a program, as seen from outside it."""

    status: RunStatus
    stdout: str
    stderr: str
    """Only its tail."""
    cpu_s: float
    wall_s: float
    exit_code: int | None
    """None if a signal ended it."""

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True)
class CallResult:
    """What one function call gave. `value` is plain data (None, bool, int, float, str, list, tuple, set, dict)."""

    status: RunStatus
    value: Any = None
    error: str = ""
    """The last line of the traceback, for `runtime_error`."""


class Sandbox(Protocol):
    """Runs Python source that may be hostile. Safe to call from many threads at once."""

    tier: str
    """How strong the isolation is; stands in every episode's metadata."""

    def run(self, source: str, stdin: str = "") -> Run:
        """Run a whole program.

        Raises:
            SandboxError: the sandbox could not run it.
        """
        ...

    def call(self, source: str, function: str, calls: Sequence[Sequence[Any]]) -> list[CallResult]:
        """Run `source`, then `function(*args)` for each of `calls`; one result a call, in order.

        Arguments go in and results come out as data; nothing in the guest decides whether a result is right.
        A guest that dies in a call gives that call and all later ones its status.

        Raises:
            SandboxError: the sandbox could not run it.
        """
        ...
