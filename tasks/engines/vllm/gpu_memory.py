"""GPUs that may be used, and whether a server that has ended has given their memory back.

It asks the driver's own tool: looking by CUDA would take some hundred megabytes on each GPU for as long as this process
lives.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from tasks.engines.base import EngineError

logger = logging.getLogger(__name__)

_SLACK_MIB = 512
"""What others may have taken since, without it being the server's."""
_FREED_WITHIN_S = 60.0
"""The driver takes seconds to clear large allocations of a process that was killed."""
_POLL_S = 0.5
_TOOL_WITHIN_S = 30.0

UsedMib = Mapping[str, int]
"""MiB in use by GPU, under the names that CUDA_VISIBLE_DEVICES has for them."""


def visible_gpus(num_gpus: int | None) -> list[str]:
    """The first `num_gpus` of the GPUs that this process may use, all of them by default."""
    import torch

    count = torch.cuda.device_count()  # asks the driver, and takes nothing
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",")[:count] if named else [str(i) for i in range(count)]
    return gpus if num_gpus is None else gpus[:num_gpus]


def used_memory(gpus: Sequence[str]) -> UsedMib:
    """Memory in use on each GPU, by anybody; empty where there is no GPU or the driver's tool is not there."""
    if not gpus:
        return {}
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={','.join(gpus)}"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_TOOL_WITHIN_S, check=True)
        return dict(zip(gpus, map(int, done.stdout.split()), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        logger.warning("whether the GPUs' memory is given back cannot be seen: nvidia-smi: %s", error)
        return {}


async def wait_until_freed(
    before: UsedMib, look: Callable[[Sequence[str]], UsedMib] = used_memory, within_s: float = _FREED_WITHIN_S
) -> None:
    """Return once the GPUs have about as much free memory as before.

    Raises:
        EngineError: something holds it still.
    """
    until = time.monotonic() + within_s
    while True:
        now = await asyncio.to_thread(look, list(before))
        held = {gpu: now[gpu] - used for gpu, used in before.items() if gpu in now and now[gpu] > used + _SLACK_MIB}
        if not held:
            return
        if time.monotonic() > until:
            shown = ", ".join(f"{mib} MiB on GPU {gpu}" for gpu, mib in held.items())
            raise EngineError(
                f"vLLM has ended, but {shown} are still in use that were free before it; see nvidia-smi for whose "
                "they are: what comes next may not have enough"
            )
        await asyncio.sleep(_POLL_S)
