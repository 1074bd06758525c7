"""A script for the scripted engine that takes its time, and notes which process was asked what.

While there is a file by the name of its log with `.hold` behind it, a process answers no more than `FREE` requests.
"""

import asyncio
import itertools
import os
from pathlib import Path

from tasks.engines.base import ChatRequest

FREE = 4

_numbers = itertools.count(1)


async def reply(request: ChatRequest) -> str:
    number = next(_numbers)
    line = f"{os.getpid()} {request.conversation}\n"
    log = os.open(os.environ["UNHURRIED_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, line.encode())
    os.close(log)
    await asyncio.sleep(float(os.environ["UNHURRIED_S"]))
    while number > FREE and Path(f"{os.environ['UNHURRIED_LOG']}.hold").exists():
        await asyncio.sleep(0.05)
    return f"It is \\boxed{{{request.seed % 100}}}."
