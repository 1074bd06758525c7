"""Ends with its worker: shown with real workers in tests/deployments/test_nights.py."""

from __future__ import annotations

import os
import threading

import pytest

from flows.worker_death import end_with_worker


def test_the_first_process_of_a_container_watches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getppid", lambda: 0)
    before = threading.active_count()
    end_with_worker()
    assert threading.active_count() == before
