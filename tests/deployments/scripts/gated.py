"""A script for the scripted engine: it writes down each request, and answers as many as a file allows."""

import asyncio
import os
from pathlib import Path

from tasks.engines.base import ChatRequest

FOLDER = Path(os.environ["GATED_FOLDER"])


async def reply(request: ChatRequest) -> str:
    with (FOLDER / "asked").open("a") as file:
        file.write(f"{request.seed}\n")
    number = len((FOLDER / "asked").read_text().splitlines())
    while number > int((FOLDER / "allowed").read_text()):
        await asyncio.sleep(0.05)
    return f"It is \\boxed{{{request.seed % 100}}}."
