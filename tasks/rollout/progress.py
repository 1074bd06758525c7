"""How far a collection is: a bar on a terminal, a line every ten seconds elsewhere, nothing in tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from tasks.engines.base import Completion
from tasks.rollout.episode import Episode

LINE_EVERY_S = 10.0


class Progress(Protocol):
    """Is told what happens while episodes are played. Called on the event loop, so it must be quick."""

    def started(self, total: int, finished: int, succeeded: int) -> None:
        """`total` episodes are wanted, of which `finished` were on disk already."""

    def request_finished(self, completion: Completion) -> None:
        """One reply came."""

    def episode_finished(self, episode: Episode) -> None:
        """One episode is on disk."""

    def shards_finished(self, finished: int, succeeded: int, tokens: int) -> None:
        """So many of the wanted episodes are finished by now, by others; `tokens` they were sent since the start."""


class Silent:
    """Shows nothing."""

    def started(self, total: int, finished: int, succeeded: int) -> None: ...

    def request_finished(self, completion: Completion) -> None: ...

    def episode_finished(self, episode: Episode) -> None: ...

    def shards_finished(self, finished: int, succeeded: int, tokens: int) -> None: ...


class Tee:
    """Tells several."""

    def __init__(self, *told: Progress) -> None:
        self._told = told

    def started(self, total: int, finished: int, succeeded: int) -> None:
        for each in self._told:
            each.started(total, finished, succeeded)

    def request_finished(self, completion: Completion) -> None:
        for each in self._told:
            each.request_finished(completion)

    def episode_finished(self, episode: Episode) -> None:
        for each in self._told:
            each.episode_finished(episode)

    def shards_finished(self, finished: int, succeeded: int, tokens: int) -> None:
        for each in self._told:
            each.shards_finished(finished, succeeded, tokens)


class Counts:
    """The figures that displays show. Another thread may read them at any time."""

    def __init__(self) -> None:
        self.total = self.finished = self.before = self.succeeded = self.tokens = 0
        self.since = time.monotonic()

    def started(self, total: int, finished: int, succeeded: int) -> None:
        self.total, self.finished, self.before, self.succeeded = total, finished, finished, succeeded
        self.tokens, self.since = 0, time.monotonic()

    def request_finished(self, completion: Completion) -> None:
        self.tokens += completion.completion_tokens

    def episode_finished(self, episode: Episode) -> None:
        self.finished += 1
        self.succeeded += episode.success

    def shards_finished(self, finished: int, succeeded: int, tokens: int) -> None:
        self.finished, self.succeeded, self.tokens = finished, succeeded, tokens

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1."""
        return self.finished / self.total if self.total else 0.0

    @property
    def line(self) -> str:
        """All of it in a line."""
        return f"{self.finished}/{self.total} episodes, {self.rates}, ETA {self.eta}"

    @property
    def rates(self) -> str:
        share = f"{self.succeeded / self.finished:.0%}" if self.finished else "-"
        return f"{share} success, {self.tokens / max(self._elapsed_s, 1e-3):,.0f} tokens/s"

    @property
    def eta(self) -> str:
        played = self.finished - self.before
        if not played:
            return "-"
        return str(timedelta(seconds=round((self.total - self.finished) * self._elapsed_s / played)))

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self.since


class _Bar(Counts):
    """A live bar."""

    def __init__(self, bar: RichProgress, title: str) -> None:
        super().__init__()
        self._bar = bar
        self._row = bar.add_task(title, total=None, rates="")

    def started(self, total: int, finished: int, succeeded: int) -> None:
        super().started(total, finished, succeeded)
        self._bar.update(self._row, total=total, completed=finished, rates=self.rates)

    def request_finished(self, completion: Completion) -> None:
        super().request_finished(completion)
        self._bar.update(self._row, rates=self.rates)

    def episode_finished(self, episode: Episode) -> None:
        super().episode_finished(episode)
        self._bar.update(self._row, completed=self.finished, rates=self.rates)

    def shards_finished(self, finished: int, succeeded: int, tokens: int) -> None:
        super().shards_finished(finished, succeeded, tokens)
        self._bar.update(self._row, completed=self.finished, rates=self.rates)


class _Lines(Counts):
    """A plain line now and then."""

    def __init__(self, title: str, stream: TextIO) -> None:
        super().__init__()
        self._title = title
        self._stream = stream
        self._due = time.monotonic() + LINE_EVERY_S

    def request_finished(self, completion: Completion) -> None:
        super().request_finished(completion)
        self._say_if_due()

    def episode_finished(self, episode: Episode) -> None:
        super().episode_finished(episode)
        self._say_if_due()

    def shards_finished(self, finished: int, succeeded: int, tokens: int) -> None:
        super().shards_finished(finished, succeeded, tokens)
        self._say_if_due()

    def say(self) -> None:
        print(
            f"{self._title}: {self.line}",
            file=self._stream,
            flush=True,
        )

    def _say_if_due(self) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + LINE_EVERY_S
            self.say()


@contextmanager
def show_progress(title: str) -> Iterator[Progress]:
    """Show on stderr how far episodes are played, in the form that suits where stderr goes."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("episodes, {task.fields[rates]}, ETA"),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=Console(stderr=True)) as bar:
            yield _Bar(bar, title)
        return
    lines = _Lines(title, sys.stderr)
    try:
        yield lines
    finally:
        if lines.total:
            lines.say()
