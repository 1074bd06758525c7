"""Python looks for garbage in cycles whenever so many objects more are alive; episodes in play are many objects."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS_BETWEEN_SEARCHES = 100_000
"""Some ten megabytes. Python's own 700 is less than what is alive of ten episodes."""


@contextmanager
def rare_searches() -> Iterator[None]:
    """Search rarely, and only among what is made from here on.

    With a thousand episodes in play the searches cost a third of all time, and find next to nothing: what an episode
    leaves is in no cycle. A model and the libraries that run it would be gone through as well.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_SEARCHES, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
