"""Model folders, those that were promoted, and what interrupted trainings left to go on from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasks.evaluation.report import percent
from tasks.housekeeping.item import Item, extent, leftovers, shown_time, temporary, who_writes
from tasks.promotion.history import HISTORY, Entry, read_history
from tasks.promotion.promoted import CURRENT, VERSIONS, current_version, is_promoted_folder, replaced_by_present


def model_items(folder: Path) -> Iterator[Item]:
    """What trainings have made in a folder where runs were started."""
    rooms = [folder]
    for path in _folders(folder):
        if path.name.endswith("-rounds"):
            rooms.append(path)
            yield from _rounds(path)
        elif is_promoted_folder(path) and (path / HISTORY).is_file():
            yield from _versions(path)
        elif path.name.startswith("sft_model_") or _is_model(path):
            rooms.append(path)
            yield Item(kind="models", what="model folder", path=path, extent=extent(path), needed="a result")
    for room in rooms:
        yield from (_training(path) for path in sorted(room.glob(".*.work-*")))
        yield from leftovers(temporary(room))


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.glob("*") if p.is_dir() and not p.name.startswith("."))


def _is_model(path: Path) -> bool:
    """Whether a training has published this folder, or those in it, one for each policy."""
    return any(True for pattern in ("training_args.bin", "*/training_args.bin") for _ in path.glob(pattern))


def _rounds(folder: Path) -> Iterator[Item]:
    """The adapters of the rounds of expert iteration, and the best of them."""
    for path in filter(_is_model, _folders(folder)):
        found = extent(path)
        in_use = path.name == "promoted"
        yield Item(
            kind="versions",
            what="model folder",
            path=path,
            extent=found,
            state="promoted" if in_use else "whole",
            detail=f"since {shown_time(found.modified)}, the best of the rounds" if in_use else "",
            needed="promoted" if in_use else "",
            cost="that round must be trained again",
            series=str(folder),
        )


def _versions(folder: Path) -> Iterator[Item]:
    """What was promoted, one after the other."""
    history = _history(folder)
    told = {entry.version: entry for entry in history if entry.outcome != "kept the old one"}
    way_back = replaced_by_present(history)
    for path in _folders(folder / VERSIONS):
        entry = told.get(path.name)
        in_use = is_promoted(path)
        yield Item(
            kind="versions",
            what="promoted version",
            path=path,
            extent=extent(path),
            state="promoted" if in_use else "replaced",
            detail=_since(entry) if entry else "",
            needed="promoted" if in_use else "a roll-back goes to it" if path.name == way_back else "",
            cost="it cannot be rolled back to",
            series=str(folder),
            lock=folder / "writer.lock",
        )
    yield from leftovers([*temporary(folder), *temporary(folder / VERSIONS)])


def is_promoted(version: Path) -> bool:
    """Whether a version is the one in use: by the pointer, or by a history that says so and cannot be read."""
    folder = version.parents[1]
    if version.resolve() == (folder / CURRENT).resolve():
        return True
    try:
        return current_version(folder) == version.name
    except ValueError:
        return True


def _history(folder: Path) -> list[Entry]:
    try:
        return read_history(folder)
    except ValueError:
        return []


def _since(entry: Entry) -> str:
    found = f"since {shown_time(entry.when.timestamp())}, {entry.outcome}: {entry.why}"
    if entry.proof is None:
        return found
    before, after = percent(entry.proof.before), percent(entry.proof.after)
    return f"{found}, {before} -> {after} of {entry.proof.problems:,}"


def _training(path: Path) -> Item:
    running = who_writes(path)
    names = (p.name.removeprefix("checkpoint-") for p in path.glob("*/checkpoint-*"))
    last = max((int(name) for name in names if name.isdigit()), default=None)
    return Item(
        kind="checkpoints",
        what="training",
        path=path,
        extent=extent(path),
        state=running or "unfinished, resumed by the same command",
        detail="no checkpoint yet" if last is None else f"a checkpoint after step {last:,}",
        cost="nothing" if last is None else f"{last:,} steps must be trained again",
        needed=running,
        series=str(path).rpartition(".work-")[0],
    )
