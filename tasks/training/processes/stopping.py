"""SIGTERM to a training process: a wish to end soon, which is heard between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TrainingStopped(BaseException):
    """The process was told to end. Like KeyboardInterrupt it is no fault, so that nothing takes it for one."""


class StopSignal:
    """What SIGTERM does in this process. `heed` is called first, in the main thread."""

    def __init__(self) -> None:
        self.came = False
        self._wait = False

    def heed(self) -> None:
        """From now on SIGTERM raises `TrainingStopped`, at once or after what must be finished."""
        signal.signal(signal.SIGTERM, self._on_signal)

    @contextmanager
    def waits(self) -> Iterator[None]:
        """Within this block it is only noted, in `came`; whoever runs the block looks at it."""
        self._wait = True
        try:
            yield
        finally:
            self._wait = False

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self.came = True
        if not self._wait:
            raise TrainingStopped("the training was told to end; run the same command again to go on with it")
