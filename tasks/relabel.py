"""Prefect task: a data file for a control, of turns that other verdicts would have kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from prefect import task

from tasks.caching import by_content
from tasks.dataset.records import write_records
from tasks.dataset.relabel import Control, ControlRef, control_records
from tasks.rollout.artifact import content_hash
from tasks.rollout.collection import PlayConfig
from tasks.rollout.journal import EpisodesRef
from tasks.validate import selection_content, selection_input


def _content(
    episodes: EpisodesRef, config: PlayConfig, policy: str, control: Control, most: int, data_dir: Path
) -> dict[str, Any]:
    return {**selection_content(episodes, config, policy), "control": control, "most": most}


@task(
    name="relabel",
    task_run_name="pick {control} of {policy}",
    cache_key_fn=by_content(_content, version=2),
    persist_result=True,
    result_serializer="json",
)
def relabel(
    episodes: EpisodesRef, config: PlayConfig, policy: str, control: Control, most: int, data_dir: Path
) -> ControlRef:
    """Write `controls/<policy>-<control>-<hash of the rows>.jsonl` in the data folder.

    It has at most `most` rows: as many as the real data has, or all that there are if these are fewer.

    Raises:
        NothingToTrainOnError: no turn is kept.
        ValueError: what is kept does not depend on verdicts alone.
    """
    played, collect, heldout = selection_input(episodes, config, policy)
    records = control_records(played, control, collect, heldout, most)
    digest = hashlib.sha256("".join(record.model_dump_json() for record in records).encode()).hexdigest()
    path = data_dir / "controls" / f"{policy}-{control.replace(' ', '-')}-{digest[:8]}.jsonl"
    write_records(path, records)
    return ControlRef(path=path, sha256=content_hash(path), rows=len(records))
