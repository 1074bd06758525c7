"""Where Prefect keeps the results of tasks."""

from __future__ import annotations

from pathlib import Path


def results_folder() -> Path:
    """The folder; it may not be there yet."""
    from prefect.settings import get_current_settings  # it takes a second

    path = get_current_settings().results.local_storage_path
    if path is None:
        raise ValueError("Prefect has no results.local_storage_path; wanted a folder")
    return Path(path)
