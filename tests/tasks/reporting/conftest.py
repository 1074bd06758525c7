"""A data folder that was never played, and a real browser that looks at its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.rollout.episode import Episode
from tests.browser import open_chromium
from tests.tasks.reporting.folders import HELD_OUT, episode, write_data_file, write_journal


@pytest.fixture
def collected() -> list[Episode]:
    """Twelve: six solved, five unsolved, one errored."""
    return [episode(i, success=i % 2 == 0, error="a bug" if i == 11 else None) for i in range(12)]


@pytest.fixture
def data_folder(tmp_path: Path, collected: list[Episode]) -> Path:
    """The folder of a run that collected, selected, and compared 20 held-out problems: 2 got worse, 15 better."""
    folder = tmp_path / "sft_data_math"
    write_journal(folder, "c0", collected)
    write_data_file(folder, collected)
    before = [episode(100 + i, success=i < 4, error="a gold answer" if i == 19 else None) for i in range(20)]
    after = [episode(100 + i, success=i > 1) for i in range(20)]
    write_journal(folder, "e0", before, **HELD_OUT)
    write_journal(folder, "e1", after, **HELD_OUT, adapters={"shared_model": "abc"})
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for all tests of a module."""
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def view(chromium: Any) -> Iterator[Callable[..., Any]]:
    """`view(path, "#fragment")` opens a page that is ready. No page may log an error or ask for anything."""
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": 1300, "height": 900})

    def open_page(path: Path, fragment: str = "") -> Any:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda r: r.url.startswith(path.as_uri()) or complaints.append(r.url[:200]))
        page.goto(path.as_uri() + fragment)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    context.close()
    assert not complaints
