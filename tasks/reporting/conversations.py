"""Episodes for the page: an index of all of them, and their conversations in chunks that it inflates on demand.

Both are JSON, compressed and in base64: whatever a model wrote, nothing of it can end a script or begin markup.
"""

from __future__ import annotations

import base64
import gzip
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.reporting.folder import Played, RunData
from tasks.reporting.tally import state
from tasks.rollout.episode import Episode, Turn

CHUNK = 50
"""Episodes that are inflated together."""

MOST_BYTES = 24_000_000
"""Compressed conversations that a page holds. Of episodes beyond, it shows everything but the conversation."""


@dataclass(frozen=True)
class Browser:
    """What the episode browser is made of, in base64."""

    index: str
    chunks: Sequence[str]
    num_episodes: int
    num_without_conversation: int


def browser(runs: Sequence[RunData], most_bytes: int = MOST_BYTES) -> Browser:
    """Pack the episodes of all journals."""
    listed = [
        (run, journal, episode)
        for run in runs
        for journal in run.journals
        for episode in sorted(journal.episodes, key=lambda e: (e.env_idx, e.rollout_idx))
    ]
    chunks: list[str] = []
    left = most_bytes
    for start in range(0, len(listed), CHUNK):
        packed = _packed([_conversation(*one) for one in listed[start : start + CHUNK]])
        left -= len(packed)
        if left < 0:
            break
        chunks.append(packed)
    without = max(0, len(listed) - CHUNK * len(chunks))
    return Browser(_packed(_index(runs, listed)), chunks, len(listed), without)


Listed = tuple[RunData, Played, Episode]


def _index(runs: Sequence[RunData], listed: Sequence[Listed]) -> dict[str, Any]:
    """A column for each thing that a list row or a filter needs."""
    sets = [(run, journal) for run in runs for journal in run.journals]
    places = {(run.folder, journal.folder): i for i, (run, journal) in enumerate(sets)}
    fates = [sorted({run.fate(e, t) for t in e.turns}) if not j.is_heldout else [] for run, j, e in listed]
    return {
        "chunk": CHUNK,
        "sets": [
            {
                "name": f"{run.name}: {journal.name}" if len(runs) > 1 else journal.name,
                "heldout": journal.is_heldout,
                "where": shlex.quote(str(journal.folder)),
                "count": len(journal.episodes),
            }
            for run, journal in sets
        ],
        "set": [places[run.folder, journal.folder] for run, journal, _ in listed],
        "hash": [e.problem_hash for _, _, e in listed],
        "rollout": [e.rollout_idx for _, _, e in listed],
        "problem": [e.env_idx for _, _, e in listed],
        "env": [e.env_name for _, _, e in listed],
        "difficulty": [e.difficulty for _, _, e in listed],
        "state": [state(e) for _, _, e in listed],
        "turns": [len(e.turns) for _, _, e in listed],
        "prompt_tokens": [sum(t.prompt_tokens for t in e.turns) for _, _, e in listed],
        "completion_tokens": [sum(t.completion_tokens for t in e.turns) for _, _, e in listed],
        "reward": [round(sum(t.reward for t in e.turns), 4) for _, _, e in listed],
        "error": [e.error.kind if e.error else "" for _, _, e in listed],
        "fates": fates,
    }


def _conversation(run: RunData, journal: Played, episode: Episode) -> dict[str, Any]:
    """What is shown of one episode.

    Of a held-out one not what the env noted down, nor the text of an exception: either may quote the reference answer.
    """
    shown: dict[str, Any] = {
        "turns": [_turn(turn, "" if journal.is_heldout else run.fate(episode, turn)) for turn in episode.turns],
        "seconds": round(episode.duration_s, 3),
    }
    if episode.error:
        hidden = "not shown: it may quote a held-out answer"
        shown["error"] = {
            "kind": episode.error.kind,
            "message": hidden if journal.is_heldout else episode.error.message,
            "traceback": "" if journal.is_heldout else episode.error.traceback,
        }
    if not journal.is_heldout:
        shown["metadata"] = episode.metadata
    return shown


def _turn(turn: Turn, fate: str) -> dict[str, Any]:
    left_out = {"prompt_ids", "reply_ids", "trained"}
    return turn.model_dump(exclude=left_out, exclude_none=True) | {"fate": fate}


def _packed(data: object) -> str:
    return base64.b64encode(gzip.compress(json.dumps(data).encode("ascii"), 6, mtime=0)).decode("ascii")


def unpacked(packed: str) -> Any:
    """What `browser` packed."""
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def conversations(packed: Browser) -> Iterator[Any]:
    """The conversations that a page holds, in the order of its index."""
    for chunk in packed.chunks:
        yield from unpacked(chunk)
