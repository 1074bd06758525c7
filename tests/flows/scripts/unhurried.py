"""A script for the scripted engine that takes its time, and notes which process was asked what."""

import asyncio
import os

from tasks.engines.base import ChatRequest


async def reply(request: ChatRequest) -> str:
    line = f"{os.getpid()} {request.conversation}\n"
    log = os.open(os.environ["UNHURRIED_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, line.encode())
    os.close(log)
    await asyncio.sleep(float(os.environ["UNHURRIED_S"]))
    return f"It is \\boxed{{{request.seed % 100}}}."
