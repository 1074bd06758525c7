"""One vLLM server of the run's own: started on a free port of loopback, watched, and started again when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.engines.base import EngineError
from tasks.engines.config import EngineConfig
from tasks.engines.openai_http.chat_server import ChatServer
from tasks.engines.openai_http.endpoint import WATCHERS, Backoff, Gate, HttpEndpoint
from tasks.engines.vllm.command import (
    HOST,
    ServerSpec,
    adapter_path,
    image_command,
    remove_container,
    server_command,
    server_environment,
)
from tasks.engines.vllm.kept_process import KeptProcess

logger = logging.getLogger(__name__)

_POLL_S = 0.25
_LOOK_EVERY_S = 5.0
_HUNG_AFTER_S = 120.0
"""A server that has not said for so long that it is well is killed and started again."""
_PORT_TRIES = 3
"""Another process may take the port between its choice and vLLM's start."""
_TAIL_LINES = 15
_MAX_LOGS = 20
_LOG_FOLLOWS = "The end of its log"
_PORT_TAKEN = "address already in use"
_CAUSE = re.compile(r"\b(\w*(?:Error|Exception): .+(?:\n.*Value error, .+)?)")  # pydantic has it in the next line
_SAYS_NOTHING = re.compile(
    r"Engine core initialization failed|Worker failed with error|EngineDeadError|WorkerProc init"
)
_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory|No available memory for the cache|KV cache is needed", re.I)


class ServerStartError(EngineError):
    """vLLM did not start, for a reason that may be gone at the next try."""


class VllmServer:
    """One server between `start` and `stop`. `chat` is what requests are sent to: they wait while it is down."""

    def __init__(
        self,
        spec: ServerSpec,
        config: EngineConfig,
        on_overload: Callable[[], None],
        prove: Callable[[ChatServer], Awaitable[None]],
    ) -> None:
        """`prove`: sees that adapters are applied; called after each start, before any request."""
        self._spec = spec
        self._config = config
        self._prove = prove
        self._key = secrets.token_urlsafe(32)
        self._gate = Gate()
        self._endpoint = HttpEndpoint("", self._key, config.max_concurrency + WATCHERS, Backoff(), on_overload)
        self.chat = ChatServer(
            self._endpoint, config.timeout_s, "it was made for this run", spec.chat_template_args, self._gate
        )
        self._process: KeptProcess | None = None
        self._watch: asyncio.Task[None] | None = None
        self.log = _new_log()
        self._log_begin = 0
        """Where in the log the present process begins to speak."""

    async def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            EngineError, ValueError: it does not.
        """
        await self.chat.open()
        await self._bring_up()
        self._watch = asyncio.get_running_loop().create_task(self._keep_up())

    async def stop(self) -> None:
        """End it with all that it has started. Safe to call twice, and after a failed start."""
        self._gate.shut_for_good("the engine has been stopped")
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        process, self._process = self._process, None
        try:
            if process is not None:
                await process.stop()
        finally:
            await self.chat.close()

    async def _bring_up(self) -> None:
        for tries in range(1, _PORT_TRIES + 1):
            try:
                await self._start_process()
                break
            except ServerStartError as error:
                if _PORT_TAKEN not in str(error) or tries == _PORT_TRIES:
                    raise
        await self._unless_it_ends(self._set_up())
        self._gate.open()

    async def _set_up(self) -> None:
        await self.chat.look()
        for name in self._spec.adapters:
            await self.chat.load_adapter(name, adapter_path(name, self._spec, self._config.vllm))
        await self._prove(self.chat)

    async def _unless_it_ends(self, asking: Coroutine[Any, Any, None]) -> None:
        """Do what asks the process, without asking on once it has ended.

        Raises:
            EngineError, ValueError: it has.
        """
        assert self._process is not None
        asked, ended = asyncio.ensure_future(asking), asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait([asked, ended], return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise self._start_failure()
            asked.result()
        finally:
            for task in (asked, ended):
                task.cancel()
            await asyncio.wait([asked, ended])

    async def _start_process(self) -> None:
        port, config = _free_port(), self._config.vllm
        self._endpoint.url = f"http://{HOST}:{port}/v1"
        container = f"winnow-vllm-{secrets.token_hex(6)}"
        by_image = image_command(self._spec, config, port, container) if config.image else None
        self._log_begin = self.log.stat().st_size if self.log.exists() else 0
        self._process = await KeptProcess.start(
            by_image or server_command(self._spec, config, port),
            server_environment(self._spec, self._key),
            self.log,
            remove_container(container) if by_image else (),
        )
        until = time.monotonic() + config.start_timeout_s
        while not await self.chat.is_well():
            if self._process.returncode is not None:
                raise self._start_failure()
            if time.monotonic() > until:
                await self._process.stop()
                raise ServerStartError(
                    f"vLLM did not answer within engine.vllm.start_timeout_s={config.start_timeout_s:g} s; raise it if "
                    f"the model is that large. {self._end_of_log()}"
                )
            await asyncio.sleep(_POLL_S)

    async def _keep_up(self) -> None:
        """Start it again whenever it dies, as often as the config allows. Requests wait meanwhile."""
        try:
            self._gate.shut_for_good(await self._last_death())
        except Exception as error:  # whatever broke, those who wait must hear of it
            self._gate.shut_for_good(f"vLLM died, and could not be started again: {type(error).__name__}: {error}")

    async def _last_death(self) -> str:
        """Start it again while that is allowed and may help; then say why it is dead for good."""
        most = self._config.vllm.max_restarts
        why = await self._death()
        for restarts in range(1, most + 1):
            await self._end_process()
            logger.warning("vLLM %s; starting it again (%d of at most %d times)", why, restarts, most)
            try:
                await self._bring_up()
            except ValueError as error:
                return f"vLLM {why}, and could not be started again: {error}"
            except (EngineError, OSError) as error:  # as its death may have been, this may be a passing fault
                why = f"did not start again: {str(error).partition(f'. {_LOG_FOLLOWS}')[0]}"
            else:
                why = await self._death()
        await self._end_process()
        return (
            f"vLLM died {most + 1} times, the last time because it {why}, and engine.vllm.max_restarts is {most}. "
            f"{self._end_of_log()}"
        )

    async def _end_process(self) -> None:
        """Hold requests up, and end what is left of the process."""
        self._gate.close()
        assert self._process is not None
        await self._process.stop()

    async def _death(self) -> str:
        """Wait until the server is dead or hangs, and say which."""
        assert self._process is not None
        ended = asyncio.ensure_future(self._process.wait())
        last_well = time.monotonic()
        try:
            while True:
                await asyncio.wait([ended], timeout=_LOOK_EVERY_S)
                if ended.done():
                    code = ended.result()
                    return f"was killed by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
                if await self.chat.is_well():
                    last_well = time.monotonic()
                elif time.monotonic() - last_well > _HUNG_AFTER_S:
                    return f"did not answer for {_HUNG_AFTER_S:g} s"
        finally:
            ended.cancel()

    def _start_failure(self) -> Exception:
        """What can be said of a server that ended before it answered."""
        log = self._said()
        causes = [cause for cause in _CAUSE.findall(log) if not _SAYS_NOTHING.search(cause)]
        cause = " ".join(causes[-1].split()) if causes else "it does not say why"
        message = f"vLLM did not start: {cause[:500]}"
        if _PORT_TAKEN in log.lower():
            return ServerStartError(f"vLLM did not start: {_PORT_TAKEN}. {self._end_of_log()}")
        if _OUT_OF_MEMORY.search(log):
            message += "; lower engine.vllm.max_model_len or engine.vllm.gpu_memory_utilization, or free the GPU"
            return ServerStartError(f"{message}. {self._end_of_log()}")
        return ValueError(f"{message}. {self._end_of_log()}")

    def _end_of_log(self) -> str:
        return "\n".join([f"{_LOG_FOLLOWS}, {self.log}:", *self._said().splitlines()[-_TAIL_LINES:]])

    def _said(self) -> str:
        """What the present process has written to its log; nothing if that is gone."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_begin)
                return log.read().decode("utf-8", "replace")
        except OSError:
            return ""


def _new_log() -> Path:
    """A name for a log file, in a folder that keeps the newest ones."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    folder = state / "winnow" / "vllm"
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"))[: -_MAX_LOGS + 1]:
        old.unlink(missing_ok=True)
    return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}.log"


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        return int(listening.getsockname()[1])
