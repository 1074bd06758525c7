"""Names of data files: the next free one, and the ones that a user means."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from tasks.dataset.records import DatasetRef, beside, write_records
from tasks.dataset.rows import DataFileError
from tasks.dataset.select import Selection
from tasks.rollout.artifact import content_hash, publish_file

DATA_FILES = "sft_data_" + "[0-9]" * 8 + "_" + "[0-9]" * 6 + ".jsonl"
ENDINGS = ("_rejected.jsonl", "_stats.json", "_config.yaml")


def write_dataset(
    data_dir: Path,
    selection: Selection,
    config: Mapping[str, Any],
    now: datetime | None = None,
    policy: str | None = None,
) -> DatasetRef:
    """Publish a selection as `sft_data_YYYYMMDD_HHMMSS.jsonl`, with `_rejected.jsonl` and `_config.yaml` beside it.

    With several policies each has its own file, `sft_data_YYYYMMDD_HHMMSS.<policy>.jsonl`.

    The data file comes last: where it is, the others are. No file that exists is ever overwritten.

    Args:
        config: the resolved config, plain data.
        now: the time in the name; a second later for each name that is taken.
        policy: whose turns they are, if there are several policies.
    """
    with _one_writer(data_dir):
        path = _free_name(data_dir, now or datetime.now(), f".{policy}" if policy else "")
        write_records(beside(path, "_rejected.jsonl"), selection.rejected)
        with publish_file(beside(path, "_config.yaml")) as tmp:
            tmp.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
        write_records(path, selection.kept)
    return DatasetRef(path=path, sha256=content_hash(path), funnel=selection.funnel)


def find_data_files(spec: str | Path | Sequence[str | Path] | None, data_dir: Path) -> list[Path]:
    """The data files that a user means.

    Args:
        spec: a file, a glob, or a list of them; None is the newest data file in `data_dir`.

    Raises:
        DataFileError: there are none; the message names the ones that exist.
    """
    if spec is None:
        if not (collected := _data_files(data_dir)):
            raise DataFileError(
                f"no {_shown(data_dir)}/sft_data_*.jsonl to train on; collect first with "
                "`python -m flows.collect_only`, or name a file with --train.data_path."
            )
        return collected[:1]
    specs = [spec] if isinstance(spec, str | Path) else spec
    found = [path for one in specs for path in _matches(Path(one).expanduser(), data_dir)]
    if not found:
        raise DataFileError("train.data_path is an empty list; wanted a file, a glob or a list of them.")
    return _each_once(found)


def all_data_files(folder: Path) -> list[Path]:
    """Every data file of a folder, those of single policies too, the oldest first."""
    return sorted(path for path in folder.glob("sft_data_*.jsonl") if not path.name.endswith(ENDINGS))


def data_files_of(folder: Path, policy: str | None = None) -> list[Path]:
    """The data files of a folder, the oldest first: those of one policy, or of the only one."""
    return sorted(folder.glob(DATA_FILES if policy is None else DATA_FILES.replace(".jsonl", f".{policy}.jsonl")))


def find_weighted_files(weights: Mapping[str, float], data_dir: Path) -> dict[Path, float]:
    """The same with weights: each file that an entry names has the entry's weight.

    Raises:
        DataFileError: an entry names no file, or two name the same one.
    """
    if not weights:
        raise DataFileError('train.data_path is empty; wanted weights such as {"a.jsonl": 2, "b*.jsonl": 0.5}.')
    found: dict[Path, tuple[str, float]] = {}
    for spec, weight in weights.items():
        for path in find_data_files(spec, data_dir):
            first, _ = found.setdefault(path.absolute(), (spec, weight))
            if first != spec:
                raise DataFileError(f"train.data_path: both {first} and {spec} name {path}; wanted one weight for it.")
    return {path: weight for path, (_, weight) in found.items()}


def _matches(path: Path, data_dir: Path) -> list[Path]:
    if path.name.endswith("_rejected.jsonl"):
        raise DataFileError(f"{path} holds the turns that were rejected; wanted {path.name.replace('_rejected', '')}.")
    if path.is_file():
        return [path]
    if any(c in str(path) for c in "*?["):
        hits = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        if files := sorted(hit for hit in hits if hit.is_file() and not hit.name.endswith(ENDINGS)):
            return files
    kind = "is a folder" if path.is_dir() else "is not there"
    near = _each_once(_data_files(path if path.is_dir() else path.parent) + _data_files(data_dir))
    exist = "These exist: " + ", ".join(str(p) for p in near[:8]) if near else "No data file exists yet"
    more = f" and {len(near) - 8} more" if len(near) > 8 else ""
    raise DataFileError(f"data file {path} {kind}; wanted a JSONL or parquet file, or a glob. {exist}{more}.")


def _each_once(paths: Sequence[Path]) -> list[Path]:
    return list({path.resolve(): path for path in paths}.values())


def _data_files(folder: Path) -> list[Path]:
    """Newest first, by the time in the name."""
    return sorted(folder.glob(DATA_FILES), reverse=True)


def _free_name(data_dir: Path, when: datetime, of: str) -> Path:
    while True:
        path = data_dir / f"sft_data_{when:%Y%m%d_%H%M%S}{of}.jsonl"
        if not any(p.exists() for p in [path, *(beside(path, ending) for ending in ENDINGS)]):
            return path
        when += timedelta(seconds=1)


@contextmanager
def _one_writer(folder: Path) -> Iterator[None]:
    """Two runs that end in the same second must not take the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _shown(folder: Path) -> str:
    return str(folder) if folder.is_absolute() else f"./{folder}"
