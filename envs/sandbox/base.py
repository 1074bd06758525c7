"""The interface behind which untrusted code runs, and the words for what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from envs.faults import ServiceError

Tier = Literal["A", "B", "unsafe"]
"""How strong the isolation is. A: namespaces, Landlock and seccomp; B: Landlock and seccomp; unsafe: limits alone."""

RunStatus = Literal["ok", "timeout", "output_limit", "oom", "runtime_error"]
"""What became of a run, as far as it can be told without knowing what was expected of it."""


class SandboxConfig(BaseModel):
    """Where untrusted code runs, and the limits of one run of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu_s: float = Field(2.0, gt=0, le=600, title="CPU time (seconds)", description="CPU seconds that one run may use.")
    memory_mb: int = Field(512, ge=64, title="Memory (MiB)", description="Address space of one run, in MiB.")
    output_kb: int = Field(
        256, ge=1, le=65536, title="Output (KiB)", description="Most that one run may print, in KiB."
    )
    scratch_mb: int = Field(
        0,
        ge=0,
        le=1024,
        title="Scratch folder (MiB)",
        description="Size in MiB of a folder to write to, empty for every run. 0: nothing is writable.",
    )
    packages: tuple[str, ...] = Field(
        ("numpy", "sympy"), description="Installed packages that a run may import, besides the standard library."
    )
    min_tier: Literal["A", "B"] = Field(
        "B",
        title="Weakest isolation",
        description="Weakest isolation to accept. A: namespaces, Landlock and seccomp; B: Landlock and seccomp.",
    )
    allow_unsafe: bool = Field(
        False, description="Where no isolation can be had, run untrusted code with your own rights all the same."
    )

    def verdict_settings(self) -> dict[str, Any]:
        """Those settings that can change a verdict, as JSON data: a change of them replays episodes."""
        return self.model_dump(mode="json", exclude={"min_tier", "allow_unsafe"})


class SandboxError(ServiceError):
    """The sandbox itself failed, not the program in it. Never a reward of 0: it stops the run."""


class SandboxUnavailable(SandboxError):
    """This machine cannot isolate untrusted code as wanted. Says what is missing and how to get it."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What became of one run of a program, as seen from outside it."""

    status: RunStatus
    stdout: str = ""
    stderr: str = ""
    """Only its tail."""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    exit_code: int | None = None
    """None if a signal ended it."""
    signal: int | None = None
    """The signal that ended it, if one did."""
    clock: Literal["cpu", "wall"] | None = None
    """For `timeout`: which clock ran out. `wall` is a program that waits; a busy one always runs out of CPU time."""
    tier: Tier

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

    tier: Tier
    """How strong the isolation is; stands in every episode's metadata."""

    def run(self, source: str, stdin: str = "") -> Run:
        """Run a whole program.

        Raises:
            SandboxError: the sandbox could not run it.
        """
        ...

    def run_each(self, source: str, stdins: Sequence[str], until: Callable[[Run], bool] | None = None) -> list[Run]:
        """Run a whole program once for each of `stdins`, every time in a fresh process; it is compiled only once.

        The first run for which `until` is true is the last of the list. Runs go ahead while it looks at earlier ones.

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
