"""Which adapter is in use: a folder of versions, a pointer to one of them, and the history of how it came to that.

    sft_model_math-promoted/
      versions/20261128_060312-1f0c8a2e/     a whole model folder or, with several policies, one for each
      current -> versions/20261128_060312-1f0c8a2e
      history.jsonl

A version has its name only when all of it is on disk and is never changed. The history is written first, then the
pointer is moved by a rename; where a kill came between the two, whoever writes next moves it. So `current` is whole at
any moment, and whoever reads a version through it goes on reading that one.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tasks.evaluation.compare import Comparison
from tasks.promotion.history import BARE_MODEL, Entry, Outcome, Proof, append_entry, now, present_version, read_history
from tasks.rollout.artifact import Ref, content_hash, publish_folder, sync_folder
from tasks.rollout.folder_lock import lock_folder, unlock_folder

SUFFIX = "-promoted"
VERSIONS = "versions"
CURRENT = "current"
BARE = "bare"
"""What a roll-back to the bare model is asked for with."""


class PromotionError(ValueError):
    """It cannot be promoted, or not be rolled back to."""


def promoted_folder(output_dir: Path) -> Path:
    """Where the promoted versions of a model folder are kept: `sft_model_math-promoted` of `sft_model_math`."""
    return output_dir.with_name(output_dir.name + SUFFIX)


def is_promoted_folder(folder: Path) -> bool:
    """Whether a folder is one by its name, even if nothing was promoted yet and it is not there."""
    return folder.name.endswith(SUFFIX)


def current_version(folder: Path) -> str | None:
    """The version that is promoted; None: the bare model."""
    return present_version(read_history(folder))


def all_versions(folder: Path) -> list[str]:
    """The versions that are on disk, the oldest first."""
    return sorted(path.name for path in (folder / VERSIONS).glob("[0-9]*") if path.is_dir())


def version_folder(folder: Path, version: str) -> Path:
    """Where a version lies.

    Raises:
        PromotionError: it is gone.
    """
    path = folder / VERSIONS / version
    if not path.is_dir():
        there = ", ".join(all_versions(folder)) or "none"
        raise PromotionError(f"{path} is gone; wanted one of {there}, with python -m flows.promote --roll-back VERSION")
    return path


def promote(
    folder: Path,
    parts: Mapping[Path, Ref],
    *,
    instead_of: str | None,
    comparison: Comparison,
    data: Mapping[str, str] | None = None,
    run: str | None = None,
) -> Entry:
    """Copy model folders into a version, and point to it. The entry says whether that was done.

    Where another version than `instead_of` is promoted by now, the comparison was with the wrong one: it is kept. A run
    that has had its say, and is tried again, changes nothing.

    Args:
        folder: the promoted folder.
        parts: where in the version each model folder goes; `Path()` for the only one.
        comparison: of `instead_of` with the new one.
        data: the data files that it was trained on, with their hashes.

    Raises:
        PromotionError: a model folder has been changed meanwhile.
    """
    with _locked(folder) as entries:
        if said := _said(run, entries):
            return said
        present = present_version(entries)
        outcome: Outcome = "promoted"
        why = f"{comparison.verdict} on held-out problems"
        if present != instead_of:
            outcome = "kept the old one"
            why = f"it was compared with {instead_of or BARE_MODEL}, and {present or BARE_MODEL} is promoted by now"
        version = _publish(folder, parts) if outcome == "promoted" else present  # takes its time; `when` is after it
        entry = Entry(
            when=now(),
            outcome=outcome,
            version=version,
            replaced=present,
            why=why,
            proof=Proof.of(comparison),
            data=dict(data or {}),
            run=run,
        )
        return _enter(folder, entry)


def keep(
    folder: Path,
    why: str,
    *,
    comparison: Comparison | None = None,
    data: Mapping[str, str] | None = None,
    run: str | None = None,
) -> Entry:
    """Note that nothing was promoted, and why. A run that has had its say, and is tried again, changes nothing."""
    with _locked(folder) as entries:
        if said := _said(run, entries):
            return said
        present = present_version(entries)
        entry = Entry(
            when=now(),
            outcome="kept the old one",
            version=present,
            replaced=present,
            why=why,
            proof=None if comparison is None else Proof.of(comparison),
            data=dict(data or {}),
            run=run,
        )
        return _enter(folder, entry)


def _said(run: str | None, entries: Sequence[Entry]) -> Entry | None:
    """What a flow run has entered already, if it has."""
    return None if run is None else next((entry for entry in entries if entry.run == run), None)


def replaced_by_present(entries: Sequence[Entry]) -> str | None:
    """What was promoted before the present version, and a roll-back goes to; None: the bare model."""
    present = present_version(entries)
    came = (entry for entry in reversed(entries) if entry.outcome == "promoted" and entry.version == present)
    return next((entry.replaced for entry in came), None)


def roll_back(folder: Path, to: str | None = None) -> Entry:
    """Point to an earlier version.

    Args:
        to: its name or a part of it, or `bare` for the bare model; None is what the present one took the place of.

    Raises:
        PromotionError: there is no such version, or nothing is promoted.
    """
    if not read_history(folder):
        raise PromotionError(f"{folder}: nothing was promoted there yet; wanted the -promoted folder of a model folder")
    with _locked(folder) as entries:
        present = entries[-1].version
        version = _before(present, entries, folder) if to is None else _named(to, folder)
        if version == present:
            raise PromotionError(f"{folder}: {version or BARE_MODEL} is what is promoted already")
        if version is not None:
            version_folder(folder, version)
        return _enter(
            folder, Entry(when=now(), outcome="rolled back", version=version, replaced=present, why="asked for")
        )


def _before(present: str | None, entries: list[Entry], folder: Path) -> str | None:
    if present is None:
        there = ", ".join(all_versions(folder)) or "none"
        raise PromotionError(f"{folder}: the bare model is promoted, nothing is before it; wanted a version: {there}")
    return replaced_by_present(entries)


def _named(name: str, folder: Path) -> str | None:
    if name == BARE:
        return None
    versions = all_versions(folder)
    found = [version for version in versions if name in version]
    if len(found) != 1:
        raise PromotionError(
            f"{folder}: {len(found)} versions are called {name}; wanted one of {', '.join([*versions, BARE])}"
        )
    return found[0]


@contextmanager
def _locked(folder: Path) -> Iterator[list[Entry]]:
    """Keep other writers out, finish what a kill has left half done, and yield the history."""
    lock = lock_folder(folder)
    try:
        entries = read_history(folder)
        if entries:
            _point_to(folder, entries[-1].version)
        yield entries
    finally:
        unlock_folder(lock)


def _enter(folder: Path, entry: Entry) -> Entry:
    append_entry(folder, entry)
    _point_to(folder, entry.version)
    return entry


def _point_to(folder: Path, version: str | None) -> None:
    pointer = folder / CURRENT
    wanted = None if version is None else Path(VERSIONS, version)
    if (pointer.readlink() if pointer.is_symlink() else None) == wanted:
        return
    if wanted is None:
        pointer.unlink(missing_ok=True)
    else:
        tmp = folder / f".{CURRENT}.{uuid.uuid4().hex[:8]}.tmp"
        tmp.symlink_to(wanted)
        tmp.replace(pointer)
    for left in folder.glob(f".{CURRENT}.*.tmp"):  # by a kill
        left.unlink(missing_ok=True)
    sync_folder(folder)


def _publish(folder: Path, parts: Mapping[Path, Ref]) -> str:
    """The name of a version that holds the model folders: a new one, unless the same content was promoted before."""
    digest = _digest(parts)
    for version in all_versions(folder):
        if version.endswith(f"-{digest}"):
            return version
    version = f"{now().astimezone():%Y%m%d_%H%M%S}-{digest}"
    with publish_folder(folder / VERSIONS / version) as tmp:
        for place, ref in parts.items():
            # With the time of the copying: whatever is old and has a temporary name is taken for a leftover.
            shutil.copytree(ref.path, tmp / place, dirs_exist_ok=True, copy_function=shutil.copy)
            if content_hash(tmp / place) != ref.sha256:
                raise PromotionError(f"{ref.path} has changed since it was evaluated; run the same command again")
    return version


def _digest(parts: Mapping[Path, Ref]) -> str:
    if set(parts) == {Path()}:
        return parts[Path()].sha256[:8]
    named = "".join(f"{place} {ref.sha256}\n" for place, ref in sorted(parts.items()))
    return hashlib.sha256(named.encode()).hexdigest()[:8]
