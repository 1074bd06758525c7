"""What is said of a run that did not come to its end: one line in its log, and an artifact with how to go on."""

from __future__ import annotations

import shlex
import sys
from typing import Any, TypedDict

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.logging.loggers import flow_run_logger
from pydantic import BaseModel

from tasks.artifacts import artifact_key, show_markdown
from tasks.evaluation.report import markdown_table

_ENDED = {
    StateType.FAILED: "failed",
    StateType.CRASHED: "crashed",
    StateType.CANCELLING: "was cancelled",  # a worker's hooks run before it is said to be over
    StateType.CANCELLED: "was cancelled",
}


def tell_how_it_ended(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Say what ended, why, and what to run to go on. Called by Prefect, in the run's process or in its worker's."""
    env = _env(flow_run.parameters)
    why = _in_a_line(state.message or "no reason was given")
    go_on = how_to_go_on(flow_run)
    ended = _ENDED[state.type]
    flow_run_logger(flow_run, flow).error("%s of %s %s: %s To go on: %s", flow.name, env, ended, why, go_on)
    rows = [("run", flow_run.name), ("flow", flow.name), ("environment", env), ("why", why), ("to go on", f"`{go_on}`")]
    text = f"**{flow.name} {ended}.** What had finished is kept.\n\n{markdown_table(['', ''], rows)}"
    show_markdown(artifact_key(env, "failure"), text, f"{flow.name} {ended}: {why}", flow_run.id)


class FlowHooks(TypedDict):
    """What `@flow` is given."""

    on_failure: list[Any]
    on_crashed: list[Any]
    on_cancellation: list[Any]


HOOKS: FlowHooks = {
    "on_failure": [tell_how_it_ended],
    "on_crashed": [tell_how_it_ended],
    "on_cancellation": [tell_how_it_ended],
}
"""For every flow."""


def _env(parameters: dict[str, Any]) -> str:
    """The name of the environment. What a run was given may lack it, or be anything, if that is why it failed."""
    config = parameters.get("config")
    if isinstance(config, BaseModel):
        config = config.model_dump(mode="json")
    section = config.get("env") if isinstance(config, dict) else None
    name = section.get("name") if isinstance(section, dict) else None
    return name if isinstance(name, str) else "code_env"


def how_to_go_on(flow_run: FlowRun) -> str:
    """The command that resumes: the worker's run again, or the same command line."""
    if flow_run.deployment_id is not None:
        return f"prefect flow-run retry {flow_run.id}"
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or not spec.name.startswith("flows."):
        return "call the flow again with the same config"
    return shlex.join(["python", "-m", spec.name, *sys.argv[1:]])


def _in_a_line(message: str) -> str:
    """The first line of why, without what Prefect says before every reason."""
    line = message.partition("\n")[0].removeprefix("Flow run encountered an exception: ")
    return line if line.endswith((".", "!", "?")) else f"{line}."
