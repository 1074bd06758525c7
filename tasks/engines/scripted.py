"""An engine whose replies come from a function: for tests and demos, never reported as a model."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Awaitable, Callable

from tasks.engines.base import ChatRequest, Completion, Engine, EngineError
from tasks.engines.config import EngineConfig

Reply = Callable[[ChatRequest], str | Completion | Awaitable[str | Completion]]
"""Answers a request, at once or as a coroutine function. A text ends with `stop`; its tokens are counted as words."""


class ScriptedEngine(Engine):
    """Answers with what a function returns."""

    name = "scripted"

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, request: ChatRequest) -> Completion:
        try:
            answer = self.reply(request)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as error:
            raise EngineError(f"the script raised {type(error).__name__}: {error}") from error
        if isinstance(answer, Completion):
            return answer
        if not isinstance(answer, str):
            raise EngineError(f"the script returned {type(answer).__name__}; wanted a str or a Completion")
        prompt_tokens = sum(len(message["content"].split()) for message in request.messages)
        return Completion(answer, "stop", prompt_tokens, len(answer.split()))

    async def stop(self) -> None:
        """Nothing to free."""


def script_fingerprint(config: EngineConfig) -> str:
    """Names a script by its name and its source: other text may answer otherwise.

    Raises:
        ValueError: see `scripted_engine`.
    """
    reply = scripted_engine(config).reply
    source = inspect.getsource(inspect.getmodule(reply) or reply)
    return f"script {config.script} {hashlib.sha256(source.encode()).hexdigest()[:16]}"


def scripted_engine(config: EngineConfig) -> ScriptedEngine:
    """The engine for the function that `engine.script` names as `module:function`.

    Raises:
        ValueError: it is not set, or not a function that can be imported.
    """
    script = config.script
    module_name, _, function_name = (script or "").partition(":")
    if not (module_name and function_name):
        raise ValueError(
            f"engine.script: got {script!r}; engine.kind scripted takes module:function, e.g. my.demo:reply"
        )
    try:
        found = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"engine.script: cannot load {script!r}: {error}. Wanted module:function, importable from here."
        ) from error
    if not callable(found):
        raise ValueError(f"engine.script: {script!r} is {type(found).__name__}, not a function of one request")
    return ScriptedEngine(found)
