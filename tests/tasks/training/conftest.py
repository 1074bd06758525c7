"""Fixtures of tests of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tasks.training.small_disk import SmallDisk, opened


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 2 MB."""
    with opened(tmp_path / "disk", "2m") as disk:
        yield disk
