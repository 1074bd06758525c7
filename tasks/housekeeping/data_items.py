"""What lies in a data folder: journals, data files with what was rejected, and what killed runs left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.dataset.files import ENDINGS, all_data_files
from tasks.dataset.records import beside
from tasks.housekeeping.item import Item, extent, leftovers, temporary, who_writes
from tasks.reporting.tally import STATES, state
from tasks.rollout.episode import Episode
from tasks.rollout.journal import IDENTITY, journals, read_episodes
from tasks.rollout.plan_request import unplayed


def data_items(folder: Path) -> Iterator[Item]:
    """The journals of a data folder, the newest first, then its data files, the newest first, then leftovers."""
    yield from (_journal(path) for path in journals(folder) if not path.name.startswith("."))
    for path in reversed(all_data_files(folder)):
        yield from _data_file(path)
    yield from leftovers([*temporary(folder), *(folder / ".episodes").glob(".*"), *_orphans(folder)])


def _orphans(folder: Path) -> Iterator[Path]:
    """Files that belong to a data file that is not there: it is the last to come, and the first to go."""
    for ending in ENDINGS:
        for path in folder.glob(f"sft_data_*{ending}"):
            if not path.with_name(path.name.removesuffix(ending) + ".jsonl").exists():
                yield path


def _journal(path: Path) -> Item:
    running = who_writes(path)
    item = Item(kind="journals", what="episodes", path=path, extent=extent(path), needed=running, series=str(path))
    try:
        identity: dict[str, Any] = json.loads((path / IDENTITY).read_text(encoding="utf-8"))
        episodes = read_episodes(path)
    except (OSError, ValueError) as error:
        damaged = f"{error}"
        return replace(item, state=running or "damaged", detail=damaged, owed=None, cost="episodes that may be mended")
    counts = Counter(map(state, episodes))
    played = ", ".join(f"{counts[name]:,} {name}" for name in STATES if counts[name])
    by = "trained adapter" if identity.get("adapters") else "bare model"
    batch = f", batch {identity['batch']}" if identity.get("batch") else ""
    owed, told = _owed(path, episodes)
    return replace(
        item,
        state=running or _how_far(path, owed),
        detail=f"{counts.total():,} of the {by}{batch}: {played}{told}",
        owed=owed,
        cost=f"{counts.total():,} episodes must be played again",
        # So the newest collection stays, and the newest of either side of an evaluation.
        series=json.dumps([str(path.parent), identity.get("problems"), bool(identity.get("adapters"))]),
    )


def _owed(path: Path, episodes: Sequence[Episode]) -> tuple[int | None, str]:
    """How many episodes are owed, if that can be told, and the words for it."""
    try:
        owed = unplayed(path, episodes).owed
    except ValueError as error:
        return None, f"; owed unknown: {error}"
    return owed, f"; {owed:,} owed" if owed else ""


def _how_far(path: Path, owed: int | None) -> str:
    """A journal is finished once a plan was published in it, unless more was asked for since."""
    is_whole = any(path.glob("plan-*.jsonl")) and not owed
    return "whole" if is_whole else "unfinished, resumed by the same command"


def _data_file(path: Path) -> Iterator[Item]:
    with path.open("rb") as file:
        rows = sum(1 for _ in file)
    series = f"{path.parent} {path.name.removesuffix('.jsonl').partition('.')[2]}"  # each policy has its own
    others = [p for ending in ENDINGS if (p := beside(path, ending)).exists()]
    yield Item(
        kind="data",
        what="data file",
        path=path,
        extent=extent(path),
        detail=f"{rows:,} rows",
        cost=f"{rows:,} rows; selected again from the journal, if that is there",
        series=series,
        companions=others,
    )
    if (rejected := beside(path, "_rejected.jsonl")) in others:
        yield Item(
            kind="rejected",
            what="rejected turns",
            path=rejected,
            extent=extent(rejected),
            detail="why turns were not kept",
            cost="the reasons; the same command then writes its data file anew",
            series=series,
        )
