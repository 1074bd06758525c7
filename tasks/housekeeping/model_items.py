"""Model folders, those that were promoted, and what interrupted trainings left to go on from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tasks.housekeeping.item import Item, extent, leftovers, shown_time, temporary, who_writes


def model_items(folder: Path) -> Iterator[Item]:
    """What trainings have made in a folder where runs were started."""
    rooms = [folder]
    for path in _folders(folder):
        if path.name.endswith("-rounds"):
            rooms.append(path)
            yield from _rounds(path)
        elif path.name.endswith("-promoted"):
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
    for path in _folders(folder):
        found = extent(path)
        if path.name == "promoted":
            since = f"since {shown_time(found.modified)}, the best of the rounds"
            yield _promoted(Item(kind="versions", what="model folder", path=path, extent=found), since)
        else:
            cost = "that round must be trained again"
            yield Item(kind="versions", what="model folder", path=path, extent=found, cost=cost, series=str(folder))


def _promoted(item: Item, detail: str) -> Item:
    return Item(
        kind=item.kind,
        what=item.what,
        path=item.path,
        extent=item.extent,
        state="promoted",
        detail=detail,
        needed="promoted",
    )


def _versions(folder: Path) -> Iterator[Item]:
    """What was promoted, one after the other; `current` leads to the one in use."""
    current = (folder / "current").resolve()
    told = _history(folder / "history.jsonl")
    for path in _folders(folder / "versions"):
        item = Item(
            kind="versions",
            what="promoted version",
            path=path,
            extent=extent(path),
            state="replaced",
            detail=told.get(path.name, ""),
            cost="it cannot be rolled back to",
            series=str(folder),
        )
        yield _promoted(item, item.detail) if path.resolve() == current else item
    yield from leftovers(temporary(folder))


def _history(path: Path) -> dict[str, str]:
    """What the history says last of each version."""
    found: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        if isinstance(entry, dict) and "version" in entry:
            found[str(entry["version"])] = ", ".join(f"{k} {v}" for k, v in entry.items() if k != "version")
    return found


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
