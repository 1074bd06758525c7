"""The only place where untrusted code runs."""

from __future__ import annotations

from envs.sandbox.base import Sandbox, SandboxConfig
from envs.sandbox.subprocess_sandbox import SubprocessSandbox


def open_sandbox(config: SandboxConfig) -> Sandbox:
    """A sandbox with these limits, safe to share between threads.

    Raises:
        SandboxError: this machine cannot run one.
    """
    return SubprocessSandbox(config)
