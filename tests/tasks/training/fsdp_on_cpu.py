"""A rank of a training that shards its model over CPUs: `accelerate launch --module tests.tasks.training.fsdp_on_cpu`.

Torch can do it, and accelerate does it on GPUs alone. All that follows is the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType

from tasks.training.job import Job
from tasks.training.sft import run_job


def have_cpus_pass_for_gpus() -> None:
    """Whatever asks accelerate for the kind of devices then shards over them, if the launcher says so."""
    begin = PartialState.__init__

    def pretend(self: PartialState, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if self._shared_state["distributed_type"] == DistributedType.MULTI_CPU:
            self._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = pretend


if __name__ == "__main__":
    have_cpus_pass_for_gpus()
    outcome = run_job(Job.model_validate_json(Path(sys.argv[1]).read_text()))
    sys.exit(outcome.message or 0)
