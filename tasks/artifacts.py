"""What a run shows in the Prefect UI, one artifact under each key.

It is there to be looked at, so it never ends a run: where the API fails, a line in the log says so and that is all.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.utilities.context import get_task_and_flow_run_ids

from envs.base import short_name
from tasks.evaluation.compare import Comparison
from tasks.evaluation.report import promotion_markdown

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0


def artifact_key(env: str, what: str, of: str | None = None) -> str:
    """`math-funnel`, or `math-funnel-coder`: a key has lowercase letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", f"{short_name(env)} {what} {of or ''}".lower()).strip("-")


def show_markdown(key: str, text: str, description: str, flow_run_id: UUID | None = None) -> None:
    """A text. `flow_run_id`: of which run, where none is running here."""
    _show(key, "markdown", text, description, flow_run_id)


def show_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """A table, whose columns are the keys of its rows."""
    _show(key, "table", json.dumps([dict(row) for row in rows], ensure_ascii=False), description)


def show_file(key: str, path: Path, description: str) -> None:
    """A link to a file. A browser opens it on the machine that has it, and elsewhere it says where to look."""
    path = path.absolute()
    _show(key, "markdown", f"[{path}]({path.as_uri()})", description)


def show_promotion(env: str, what: str, places: Mapping[str, object], comparison: Comparison | None) -> None:
    """Whether a trained adapter is from now on the one in use, and why.

    Args:
        what: that, in a sentence.
        places: what is where, in words: the adapter, and what is in use.
        comparison: what was in use before against the adapter, on held-out problems, if they were compared.
    """
    show_markdown(artifact_key(env, "promotion"), promotion_markdown(what, places, comparison), what)


def _show(key: str, kind: str, data: str, description: str, flow_run_id: UUID | None = None) -> None:
    task_run_id, running = get_task_and_flow_run_ids()
    if not (flow_run_id := flow_run_id or running):
        return  # a task's function by itself: there is no run to show it with
    made = ArtifactCreate(
        key=key, type=kind, description=description, data=data, flow_run_id=flow_run_id, task_run_id=task_run_id
    )
    try:
        with own_client() as client:
            client.create_artifact(made)
    except Exception as error:
        say_not_shown(key, error)


def own_client() -> SyncPrefectClient:
    """A client beside the one that the run itself talks with, so that a thread may have it, and impatient."""
    return get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT_S})


def say_not_shown(key: str, error: Exception) -> None:
    """One line about what the API did not take."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    logger.warning("%s cannot be shown in the Prefect UI: %s", key, reason)
