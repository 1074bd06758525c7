"""Take the pictures that the README shows, from a real run on a real Prefect server: `python -m docs.pictures`.

With a data folder (`python -m docs.pictures sft_data_math`) nothing is run, and only its report is looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from docs.prefect_server import prefect_server
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
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if len(sys.argv) > 1:
            look_at_report(browser, Path(sys.argv[1]), Path(scratch))
        else:
            run_and_look(browser, Path(scratch))
        browser.close()


def run_and_look(browser: Browser, scratch: Path) -> None:
    """Run demo-math in `scratch`, and take all pictures."""
    home = scratch / "server"
    home.mkdir()
    with prefect_server(home) as address:
        own = {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home), "PREFECT_API_URL": f"{address}/api"}
        environment = os.environ | own
        deploy = "from deployments.serve import read_deployments as read; [one.apply() for one in read()]"
        subprocess.run([sys.executable, "-c", f"import flows; {deploy}"], cwd=ROOT, env=environment, check=True)
        line = [sys.executable, "-m", "flows.collect_and_train", "--config", str(CONFIG)]
        subprocess.run(line, cwd=scratch, env=environment, check=True)
        look_at_prefect(browser, address)
    look_at_report(browser, scratch / "sft_data_math", scratch)


def look_at_prefect(browser: Browser, address: str) -> None:
    """The form of a run, with one of its choices open, and what the run has shown."""
    found = httpx.post(f"{address}/api/deployments/filter", json={}).json()
    (deployment,) = (one["id"] for one in found if one["entrypoint"].endswith(":collect_and_train"))
    form = open_page(browser, address, f"deployments/deployment/{deployment}/run")
    form.get_by_role("button", name="Select Whose success").click()
    form.get_by_role("option", name="agent").wait_for()
    take(form, "ui-form.png")
    artifacts = open_page(browser, address, "artifacts")
    artifacts.get_by_text("math-before-after").wait_for()
    take(artifacts, "ui-artifacts.png")


def open_page(browser: Browser, address: str, path: str) -> Page:
    """A page of Prefect's UI, which cannot reach anything but its server: it asks a service for analytics."""
    page = browser.new_page(viewport=SIZE, color_scheme="light")
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(address) else route.abort())
    page.goto(f"{address}/v2/{path}")
    return page


def look_at_report(browser: Browser, data: Path, scratch: Path) -> None:
    """The report of a data folder: its beginning, and an episode."""
    path = scratch / "report.html"
    write_page([data], path)
    overview = browser.new_page(viewport=SIZE, color_scheme="light")
    overview.goto(path.as_uri())
    overview.locator("html[data-ready]").wait_for()
    take(overview, "report-overview.png")
    episodes = browser.new_page(viewport=SIZE, color_scheme="dark")
    episodes.goto(f"{path.as_uri()}#state=unsolved")
    episodes.locator("html[data-ready]").wait_for()
    episodes.keyboard.press("j")
    episodes.locator("#episode .turn").first.wait_for()
    take(episodes, "report-episodes.png")


def take(page: Page, name: str) -> None:
    """A picture with few colours, which is small: it is looked at in a README."""
    path = ROOT / "docs" / name
    page.screenshot(path=path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
