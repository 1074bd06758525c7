"""The embedded engine: transformers in this process, on its GPU or CPU. It needs no server.

One thread owns the model. Requests wait in a queue; the thread takes what waits and decodes it in batches, which
newcomers join while others leave.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from tasks.engines.base import ChatRequest, Completion, Engine, EngineError, FinishReason
from tasks.engines.chat_tokens import decode_reply, prompt_token_ids
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.devices import pick_device
from tasks.engines.in_process.batching import Batches
from tasks.engines.in_process.decoding import Row
from tasks.engines.in_process.policies import Policies
from tasks.engines.in_process.sampling import row_uniforms
from tasks.engines.in_process.stop_texts import before_stop, ends_with_stop

_GATHER_S = 0.003
"""An idle engine starts when no request has come for so long: a burst becomes one batch."""
_TAKEN_AT_ONCE = 64
"""Most requests that are turned into tokens between two turns of decoding."""


@dataclass(eq=False, frozen=True)
class _Job:
    """A request and where its answer goes."""

    request: ChatRequest
    reply: Future[Completion]

    def answer(self, completion: Completion) -> None:
        with suppress(InvalidStateError):  # the one who asked has gone
            self.reply.set_result(completion)

    def fail(self, why: str) -> None:
        with suppress(InvalidStateError):
            self.reply.set_exception(EngineError(why))


class InProcessEngine(Engine):
    """transformers behind a queue. See the module's docstring."""

    name = "in_process"

    def __init__(self, model: ModelConfig, config: EngineConfig, adapters: Mapping[str, Path] | None = None) -> None:
        self._model = model
        self._config = config
        self._adapters = dict(adapters or {})
        self._changed = threading.Condition()
        self._waiting: list[_Job] = []
        self._closed: str | None = "the engine has not been started"
        """Why no request is taken, while that is so."""
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Load the model and the adapters.

        Raises:
            ValueError: they cannot be used as they are: no such model, no chat template, an adapter of another base.
            EngineError: loading failed otherwise.
        """
        ready: Future[None] = Future()
        self._closed = None
        context = contextvars.copy_context()  # so that what the thread logs stands in the log of the flow
        self._thread = threading.Thread(target=context.run, args=(self._run, ready), name="winnow-engine", daemon=True)
        self._thread.start()
        await asyncio.wrap_future(ready)

    async def generate(self, request: ChatRequest) -> Completion:
        if request.adapter is not None and request.adapter not in self._adapters:
            raise EngineError(f"there is no adapter {request.adapter!r}; the engine has {sorted(self._adapters)}")
        job = _Job(request, Future())
        with self._changed:
            if self._closed:
                raise EngineError(self._closed)
            self._waiting.append(job)
            self._changed.notify()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job.reply), self._config.timeout_s)
        except TimeoutError:
            raise EngineError(
                f"a reply took longer than engine.timeout_s={self._config.timeout_s:g} s; raise it, or lower "
                "engine.max_concurrency or collect.max_tokens"
            ) from None

    async def stop(self) -> None:
        self._close("the engine has been stopped")
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _close(self, why: str) -> None:
        """Take no more requests and fail those that wait. The first reason stays."""
        with self._changed:
            self._closed = self._closed or why
            waiting, self._waiting = self._waiting, []
            self._changed.notify()
        for job in waiting:
            job.fail(self._closed)

    def _run(self, ready: Future[None]) -> None:
        """The thread: load, answer until closed, free."""
        live: dict[Row, _Job] = {}
        try:
            policies = self._load()
            if not ready.cancelled():
                ready.set_result(None)
            batches = Batches(policies.select, policies.stop_ids, policies.device, self._config.max_concurrency)
            with torch.inference_mode():
                while self._wait_for_burst():
                    self._serve(policies, batches, live)
        except Exception as error:  # whatever broke, everyone who waits must hear of it
            self._close(_explain(error))
            if not ready.done():  # what a user must mend stays a ValueError: trying again would not help
                ready.set_exception(error if isinstance(error, ValueError) else EngineError(_explain(error)))
        finally:
            for job in live.values():
                job.fail(str(self._closed))
            policies = batches = None  # type: ignore[assignment]
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _load(self) -> Policies:
        try:
            return Policies(self._model, self._adapters, pick_device(self._config.num_gpus))
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
            raise ValueError(
                f"an adapter does not fit the model {self._model.path}; give the base that it was trained on "
                "as --model.path"
            ) from error

    def _wait_for_burst(self) -> bool:
        """Sleep until requests wait and no more are coming. False: the engine was closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            while len(self._waiting) < self._config.max_concurrency and self._changed.wait(_GATHER_S):
                pass
            return not self._closed

    def _serve(self, policies: Policies, batches: Batches, live: dict[Row, _Job]) -> None:
        """Answer requests until none is left."""
        while not self._closed:
            joining = self._prepare(self._take(), policies)
            live.update(joining)
            batches.add(list(joining))
            if not live:
                return
            self._answer(batches.turn(), live, policies)
            _give_up_cancelled(live)

    def _take(self) -> list[_Job]:
        """Some of the requests that wait, oldest first."""
        with self._changed:
            taken, self._waiting = self._waiting[:_TAKEN_AT_ONCE], self._waiting[_TAKEN_AT_ONCE:]
            return taken

    def _prepare(self, jobs: list[_Job], policies: Policies) -> dict[Row, _Job]:
        """Rows to decode. A request that cannot be put to the model is answered here, and the engine goes on."""
        rows: dict[Row, _Job] = {}
        for job in jobs:
            sampling = job.request.sampling
            try:
                prompt_ids = prompt_token_ids(policies.tokenizer, job.request.messages, policies.template_args)
            except Exception as error:  # a chat template raises what it likes
                job.fail(f"the model's chat template refused a request: {type(error).__name__}: {error}")
                continue
            max_tokens = min(sampling.max_tokens, policies.context_tokens - len(prompt_ids))
            if max_tokens < 1:
                job.answer(Completion("", "length", len(prompt_ids), 0, prompt_ids, []))
                continue
            has_stop = (
                ends_with_stop(sampling.stop, partial(decode_reply, policies.tokenizer)) if sampling.stop else None
            )
            uniforms = row_uniforms(job.request.seed, max_tokens)
            rows[Row(prompt_ids, sampling, max_tokens, uniforms, has_stop, job.request.adapter)] = job
        return rows

    def _answer(self, finished: list[Row], live: dict[Row, _Job], policies: Policies) -> None:
        """Send finished replies off."""
        for row in finished:
            text = decode_reply(policies.tokenizer, row.reply_ids)
            before = before_stop(text, row.sampling.stop)
            reason: FinishReason = "stop" if before is not None or row.finish_reason == "stop" else "length"
            sizes = len(row.prompt_ids), len(row.reply_ids)
            completion = Completion(text if before is None else before, reason, *sizes, row.prompt_ids, row.reply_ids)
            if job := live.pop(row, None):
                job.answer(completion)


def _give_up_cancelled(live: dict[Row, _Job]) -> None:
    """Let rows leave that nobody waits for."""
    for row, job in list(live.items()):
        if job.reply.cancelled():
            row.finish_reason = "length"
            del live[row]


def _explain(error: BaseException) -> str:
    """An engine failure in one line, with what to do about it."""
    if isinstance(error, torch.OutOfMemoryError):  # while the model was loaded
        return "out of GPU memory; free some on the device, or use a smaller model"
    if isinstance(error, (ValueError, EngineError)):  # already in words
        return str(error)
    return f"the in-process engine failed: {type(error).__name__}: {error}"
