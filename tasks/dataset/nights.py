"""Whether a night went worse than those before it, by the stats beside the data files of one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.dataset.files import all_data_files
from tasks.dataset.records import DatasetRef, beside

NIGHTS = 7
"""So many of the newest are what is usual."""
_SAME = ("env", "model", "policies")
"""Sections of the config that make two nights comparable. What is sampled how is a part of what is watched."""


@dataclass(frozen=True)
class Fall:
    """A success rate that is lower than it was. Rates are from 0 to 1, over finished episodes."""

    env: str
    batch: str
    rate: float
    usual: float
    """The mean over the nights before."""
    nights: int
    """How many these are."""

    @property
    def text(self) -> str:
        """It in a line."""
        nights = f"{self.nights} nights" if self.nights > 1 else "night"
        return (
            f"{self.env}: {100 * self.rate:.1f} % of the episodes of {self.batch} succeeded, "
            f"{100 * (self.usual - self.rate):.1f} points less than in the {nights} before"
        )


def success_fall(dataset: DatasetRef, max_drop: float) -> Fall | None:
    """How far success has fallen, if by more than `max_drop` below the mean of the last seven nights.

    A night is a collection with a `collect.batch`; those before it are the other ones in its folder, with the same env,
    model and policies; files that are damaged are none of them. Without any, or where no episode finished, nothing can
    be said.
    """
    config = _config(dataset.path)
    batch, rate = config["collect"]["batch"], dataset.funnel.success_rate
    if batch is None or rate is None:
        return None
    rates = _rates_before(dataset.path, config)
    usual = sum(rates) / len(rates) if rates else rate
    if usual - rate <= max_drop:
        return None
    return Fall(config["env"]["name"], batch, rate, usual, len(rates))


def _rates_before(path: Path, config: Mapping[str, Any]) -> list[float]:
    """The success rates of the nights before that of a data file, the newest first, and no more than count."""
    rates: dict[str, float] = {}
    for other, of_other in _nights_before(path):
        batch = of_other["collect"]["batch"]
        if batch == config["collect"]["batch"] or any(
            of_other.get(section) != config.get(section) for section in _SAME
        ):
            continue
        rate = _rate(other)
        if rate is not None:
            rates.setdefault(batch, rate)
        if len(rates) == NIGHTS:
            break
    return list(rates.values())


def _nights_before(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The data files of the same policy before this one that are a night's, the newest first."""
    policy = path.name.partition(".")[2]
    for other in reversed(all_data_files(path.parent)):
        if other.name >= path.name or other.name.partition(".")[2] != policy:
            continue
        config: dict[str, Any] = {}
        with suppress(OSError, ValueError, yaml.YAMLError):
            config = _config(other) or {}
        if (config.get("collect") or {}).get("batch") is not None:
            yield other, config


def _rate(path: Path) -> float | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        rate: float | None = json.loads(beside(path, "_stats.json").read_text())["episodes"]["success_rate"]
        return rate
    return None


def _config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(beside(path, "_config.yaml").read_text())
    return config
