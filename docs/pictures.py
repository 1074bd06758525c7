"""Take the pictures of the report that the README shows, from a real run of demo-math: `python -m docs.pictures`.

With a data folder (`python -m docs.pictures sft_data_math`) nothing is run, and its page is looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tasks.reporting.page import write_page

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "deployments" / "configs" / "demo-math.yaml"
COLOURS = 128
SIZE = {"width": 1280, "height": 800}


def main() -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("no chromium here; wanted Debian's package of that name: `make chromium` as root")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        data = Path(sys.argv[1]) if len(sys.argv) > 1 else run_demo(Path(scratch))
        path = Path(scratch) / "report.html"
        write_page([data], path)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        overview = browser.new_page(viewport=SIZE, color_scheme="light")
        overview.goto(path.as_uri())
        take(overview, "report-overview.png")
        episodes = browser.new_page(viewport=SIZE, color_scheme="dark")
        episodes.goto(f"{path.as_uri()}#state=unsolved")
        episodes.keyboard.press("j")
        episodes.locator("#episode .turn").first.wait_for()
        take(episodes, "report-episodes.png")
        browser.close()


def run_demo(folder: Path) -> Path:
    """Run demo-math in `folder`: the data folder that it made."""
    line = [sys.executable, "-m", "flows.collect_and_train", "--config", str(CONFIG)]
    subprocess.run(line, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    return folder / "sft_data_math"


def take(page: Page, name: str) -> None:
    """A picture with few colours, which is small: it is looked at in a README."""
    page.locator("html[data-ready]").wait_for()
    path = ROOT / "docs" / name
    page.screenshot(path=path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
