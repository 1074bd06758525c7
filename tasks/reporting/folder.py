"""What lies in a data folder: its episodes, what became of their turns, and how the training went."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.dataset.files import all_data_files
from tasks.dataset.records import Record, Rejected, beside
from tasks.engines.model_files import ADAPTER_CONFIG, holds_model
from tasks.evaluation.compare import Comparison, compare
from tasks.evaluation.series import Series, read_series
from tasks.rollout.artifact import content_hash
from tasks.rollout.episode import Episode, EpisodeKey, Turn
from tasks.rollout.journal import IDENTITY, journals, read_episodes
from tasks.rollout.plan_request import Asked, unplayed
from tasks.training.job import TRAIN_LOG

KEPT = "kept"
UNDECIDED = "undecided"
"""A turn that no data file speaks of: its collection is not finished, or lies elsewhere."""

BEFORE, AFTER = "held out, before", "held out, after"
"""Names of the two sides of an evaluation."""

MOST_EPISODES = 50_000
"""Episodes of one folder that a page shows; the journals written last come first."""


class TurnKey(NamedTuple):
    """Names a turn in every file."""

    problem_hash: str
    rollout_idx: int
    agent_name: str
    turn_idx: int


@dataclass(frozen=True)
class Played:
    """The episodes of one journal."""

    name: str
    """In words: `collected`, `held out, before`, ..."""
    folder: Path
    episodes: Sequence[Episode]
    is_heldout: bool
    identity: Mapping[str, Any]
    asked: Asked | None = None
    """What was asked for and is not there; None: that is not known."""


class LossPoint(BaseModel):
    """A line of `train_log.jsonl` in a model folder."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: int
    loss: float | None = None
    validation_loss: float | None = None


@dataclass(frozen=True)
class RunData:
    """A data folder, as the page shows it."""

    name: str
    folder: Path
    journals: Sequence[Played]
    fates: Mapping[TurnKey, str]
    """What became of each turn: `KEPT`, or the reason why not."""
    losses: Mapping[str, Sequence[LossPoint]]
    """By model folder."""
    config: Mapping[str, Any]
    comparison: Comparison | None = None
    series: Series = field(default_factory=Series)
    notes: Sequence[str] = field(default=())
    """What could not be read or shown, a line each."""

    @property
    def collected(self) -> list[Episode]:
        """The episodes that were played to train on."""
        return [e for journal in self.journals if not journal.is_heldout for e in journal.episodes]

    @property
    def after(self) -> list[Episode]:
        """The held-out episodes that the trained adapter played."""
        return [e for journal in self.journals if journal.name == AFTER for e in journal.episodes]

    def fate(self, episode: Episode, turn: Turn) -> str:
        return self.fates.get(
            TurnKey(episode.problem_hash, episode.rollout_idx, turn.agent_name, turn.turn_idx), UNDECIDED
        )


def read_run(folder: Path) -> RunData:
    """Read a data folder. What is damaged in it is left out and noted.

    Raises:
        ValueError: there is no such folder, or nothing that was played lies in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; wanted a data folder such as ./sft_data_math.")
    notes: list[str] = []
    found = list(_journals(folder, notes))
    if not found:
        why = f" {notes[0]}" if notes else ""
        raise ValueError(
            f"{folder} holds no episodes; wanted a data folder with .episodes/, as `python -m flows.collect_only` "
            f"makes it.{why}"
        )
    config = _config(folder, notes)
    models = _model_folders(folder, config)
    fates = _fates(folder, notes)
    named = _named(found, fates, models)
    return RunData(
        name=folder.resolve().name,
        folder=folder,
        journals=named,
        fates=fates,
        losses={path.name: points for path in models if (points := _losses(path, notes))},
        config=config,
        comparison=_comparison(named, notes),
        series=_series(folder, notes),
        notes=notes,
    )


def _journals(folder: Path, notes: list[str]) -> Iterator[Played]:
    """The newest first."""
    left = MOST_EPISODES
    for path in journals(folder):
        try:
            identity = json.loads((path / IDENTITY).read_text(encoding="utf-8"))
            episodes = read_episodes(path)
        except (OSError, ValueError) as error:
            notes.append(f"A journal was left out. {error}")
            continue
        if len(episodes) > left:
            notes.append(f"Of the {len(episodes):,} episodes in {path} the first {left:,} are shown.")
        if episodes[:left]:
            yield Played("", path, episodes[:left], False, identity, _asked(path, episodes))
        left -= len(episodes[:left])


def _asked(path: Path, episodes: Sequence[Episode]) -> Asked | None:
    try:
        return unplayed(path, episodes)
    except ValueError:  # an earlier version noted nothing
        return None


def _series(folder: Path, notes: list[str]) -> Series:
    try:
        return read_series(folder)
    except ValueError as error:
        notes.append(f"No rounds and no controls: {error}")
        return Series()


def _named(found: Sequence[Played], fates: Mapping[TurnKey, str], models: Sequence[Path]) -> list[Played]:
    """Tell the collections from the evaluations, and the sides of an evaluation from each other.

    Turns of a collection stand in a data file. A journal without such turns is an evaluation, if its problems are other
    ones than a collection's, or if another journal differs from it in nothing but the adapters; the bare model played
    the side before, the trained adapter the one after.
    """
    # Where a data set and a benchmark overlap, what was rejected as held out has its equal in the evaluation.
    decided = {EpisodeKey(key.problem_hash, key.rollout_idx) for key, fate in fates.items() if fate != "held_out"}
    unknown = [j for j in found if not any(e.key in decided for e in j.episodes)]
    games = Counter(_game(j) for j in unknown)
    trained_on = [j.identity.get("problems") for j in found if not any(j is other for other in unknown)]
    heldout = {
        j.folder
        for j in unknown
        if games[_game(j)] > 1 or (trained_on and j.identity.get("problems") not in trained_on)
    }
    trained = {content_hash(path) for path in models}
    adapted = [j for j in found if j.folder in heldout and _adapters(j)]
    after = min(adapted, key=lambda j: not trained & _adapters(j), default=None)
    num_collected = len(found) - len(heldout)

    def name(journal: Played) -> str:
        if journal.folder not in heldout:
            return "collected" if num_collected == 1 else f"collected {_batch(journal)}"
        if after is not None and _game(journal) == _game(after):
            if journal is after:
                return AFTER
            if not _adapters(journal):
                return BEFORE
        return f"held out {journal.folder.name[:6]}"

    named = [replace(j, name=name(j), is_heldout=j.folder in heldout) for j in found]
    return sorted(named, key=lambda j: (j.is_heldout, {BEFORE: 1, AFTER: 2}.get(j.name, 3)))


def _game(journal: Played) -> str:
    """What both sides of an evaluation have in common."""
    return json.dumps({k: v for k, v in journal.identity.items() if k != "adapters"}, sort_keys=True)


def _adapters(journal: Played) -> set[str]:
    return set(journal.identity.get("adapters", {}).values())


def _batch(journal: Played) -> str:
    return str(journal.identity.get("batch") or journal.folder.name[:6])


def _comparison(played: Sequence[Played], notes: list[str]) -> Comparison | None:
    before, after = ([e for j in played if j.name == name for e in j.episodes] for name in (BEFORE, AFTER))
    if not before or not after:
        return None
    common = {e.key for e in before} & {e.key for e in after}
    if lone := len(before) + len(after) - 2 * len(common):
        notes.append(f"{lone:,} held-out episodes stand on one side only, and are not compared.")
    try:
        return compare([e for e in before if e.key in common], [e for e in after if e.key in common])
    except ValueError as error:
        notes.append(f"No before and after: {error}")
        return None


def _fates(folder: Path, notes: list[str]) -> dict[TurnKey, str]:
    """The newest data file says what became of a turn."""
    fates: dict[TurnKey, str] = {}
    for data in all_data_files(folder):
        for path, kind in ((data, Record), (beside(data, "_rejected.jsonl"), Rejected)):
            try:
                for line in path.read_bytes().splitlines():
                    record = kind.model_validate_json(line)
                    if key := _turn_key(record):
                        fates[key] = record.reason if isinstance(record, Rejected) else KEPT
            except (OSError, ValidationError) as error:
                first = str(error).splitlines()[0]
                notes.append(f"{path} was not read to its end: {first}")
    return fates


def _turn_key(record: Record) -> TurnKey | None:
    about = record.metadata
    problem = about.problem_hash
    if not isinstance(problem, str) or about.rollout_idx is None or about.turn_idx is None:
        return None
    return TurnKey(problem, about.rollout_idx, about.agent_name, about.turn_idx)


def _config(folder: Path, notes: list[str]) -> Mapping[str, Any]:
    """The config of the last run that wrote here."""
    paths = [folder / "report_config.yaml", *sorted(folder.glob("sft_data_*_config.yaml"), reverse=True)]
    for path in paths:
        if path.is_file():
            try:
                found = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (ValueError, yaml.YAMLError):
                notes.append(f"{path} is not YAML.")
                continue
            if isinstance(found, dict):
                return found
    return {}


def _model_folders(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """Where the config says that the adapters are: seen from here, or from the folder that the data folder is in."""
    name = (config.get("train") or {}).get("output_dir")
    if not name:
        name = f"sft_model_{str((config.get('env') or {}).get('name', '')).removesuffix('_env')}"
    for base in (Path.cwd(), folder.resolve().parent):
        path = base / name
        if holds_model(path):
            return [path]
        if parts := sorted(p.parent for p in path.glob(f"*/{ADAPTER_CONFIG}")):
            return parts
    return []


def _losses(folder: Path, notes: list[str]) -> list[LossPoint]:
    path = folder / TRAIN_LOG
    if not path.is_file():
        return []
    try:
        return [LossPoint.model_validate_json(line) for line in path.read_bytes().splitlines() if line]
    except ValidationError as error:
        notes.append(f"{path} is not a training log: {error.errors()[0]['msg']}")
        return []
