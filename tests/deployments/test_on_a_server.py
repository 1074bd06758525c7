"""What a team has of a Prefect server: the form of a run, refusals, and being told without looking."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments import automations
from flows.collect_only import collect_only
from flows.config import RunConfig, known_keys
from tests.browser import open_chromium

SCRIPTS = Path(__file__).parents[1] / "flows" / "scripts"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"train": {"learning_rate": -1}}, "config.train.learning_rate"),
        ({"collect": {"num_episodes": 0}}, "config.collect.num_episodes"),
        ({"collect": {"collect_mode": "both"}}, "config.collect.collect_mode"),
        ({"collect": {"by_role": {"coder": {"top_p": 2}}}}, "config.collect.by_role.coder.top_p"),
        ({"collect": {"num_episods": 5}}, "num_episods"),
        ({"colect": {}}, "colect"),
    ],
)
def test_bad_parameters_are_refused_when_a_run_is_created(
    served: str, deployed: dict[str, str], config: dict[str, Any], named: str
) -> None:
    url = f"{served}/api/deployments/{deployed['collect-and-train/on-demand']}/create_flow_run"
    answer = httpx.post(url, json={"parameters": {"config": config}})
    assert answer.is_client_error
    assert named in answer.text


@pytest.fixture
def page(served: str) -> Iterator[Any]:
    """A page that can reach the server and nothing else: Prefect's UI asks a service for analytics."""
    with open_chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)  # ms
        page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(served) else route.abort())
        yield page


def test_the_page_of_a_run_is_a_form_with_descriptions_choices_and_bounds_that_starts_it(
    served: str, deployed: dict[str, str], page: Any
) -> None:
    page.goto(f"{served}/v2/deployments/deployment/{deployed['collect-and-train/on-demand']}/run")
    episodes = page.get_by_label("Num Episodes")
    episodes.wait_for()
    text = page.locator("main").inner_text()
    keys = known_keys()
    missing = {key for key, field in keys.items() if (field.description or "") not in text}
    assert len(keys) > 60
    assert not missing
    assert {"Environment", "Engine", "Sandbox", "Collecting", "Training", "Evaluation"} <= set(
        text.replace(" (Optional)", "").split("\n")
    )
    assert episodes.input_value() == "100"
    assert episodes.get_attribute("min") == "1"
    page.get_by_role("button", name="Select Whose success").click()
    page.get_by_role("option", name="agent").dispatch_event("click")
    page.get_by_role("button", name="Select registered").click()
    page.get_by_role("option", name="math_env").dispatch_event("click")
    episodes.fill("7")
    with page.expect_response("**/create_flow_run") as answer:
        page.get_by_role("button", name="Submit").click()
    config = RunConfig.model_validate(answer.value.json()["parameters"]["config"])
    given = {"env": {"name": "math_env"}, "collect": {"num_episodes": 7, "collect_mode": "agent"}}
    assert config == RunConfig.model_validate(given)


class Told:
    """What has arrived at the two receivers."""

    def __init__(self) -> None:
        self.posted: list[str] = []
        self.mailed: list[str] = []

    def wait_for(self, texts: list[str]) -> None:
        """Wait until each of the texts has arrived on both ways."""
        give_up = time.monotonic() + 120
        while not all(any(text in one for one in way) for text in texts for way in (self.posted, self.mailed)):
            assert time.monotonic() < give_up, (texts, self.posted, self.mailed)
            time.sleep(0.1)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """A web server and a mail server on loopback, whose addresses stand in the environment."""
    told = Told()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.posted.append(body["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    class Mail(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 ready\r\n")
            for line in self.rfile:
                word = line[:4].upper()
                if word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines = iter(self.rfile.readline, b".\r\n")
                    told.mailed.append(b"".join(lines).decode())
                self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Hook) as hook,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail) as mail,
    ):
        for server in (hook, mail):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WINNOW_WEBHOOK_URL", f"http://127.0.0.1:{hook.server_address[1]}/hook")
        address = f"127.0.0.1:{mail.server_address[1]}"
        monkeypatch.setenv(
            "WINNOW_MAIL_URL", f"mailto://{address}?from=winnow@example.org&to=team@example.org&format=text"
        )
        yield told
        hook.shutdown()
        mail.shutdown()


def test_a_team_is_told_of_a_worse_night_of_nothing_collected_and_of_a_failure(
    served: str, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for _ in range(2):  # the second time brings up to date what there is
        assert automations.main() == 0
    names = [a["name"] for a in httpx.post(f"{served}/api/automations/filter", json={}).json()]
    assert sorted(names) == ["winnow-nothing-collected", "winnow-run-failed", "winnow-success-rate-fell"]

    def night(number: int, script: str, **collect: Any) -> Any:
        config = {
            "env": {"name": "math_env", "roles": ["math_single_agent"], "max_turns": 1},
            "model": {"path": "starter"},
            "engine": {"kind": "scripted", "script": script},
            "collect": {"num_episodes": 8, "only_success": False, "batch": f"night {number}"} | collect,
        }
        return collect_only(RunConfig.model_validate(config), return_state=True)

    assert night(1, "improving:right_reply").is_completed()
    assert night(2, "guessing:wrong_reply").is_completed()
    told.wait_for(["of the episodes of night 2 succeeded"])
    assert night(3, "guessing:wrong_reply", only_success=True).is_failed()
    told.wait_for(["math_env: nothing to train on", "ended as Failed"])


def test_without_an_address_it_says_what_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WINNOW_WEBHOOK_URL", "WINNOW_MAIL_URL"):
        monkeypatch.delenv(name, raising=False)
    assert automations.main() == 2
    assert "WINNOW_WEBHOOK_URL" in capsys.readouterr().err
