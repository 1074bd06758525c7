"""The page in a real browser: what a user does with it, and what a model's text must not do to it."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.reporting.folder import read_run
from tasks.reporting.page import page as page_of
from tasks.reporting.page import write_page
from tests.tasks.reporting.folders import episode, turn, write_data_file, write_journal

ROWS = "#list .row"


@pytest.fixture
def report(data_folder) -> Path:
    path = data_folder / "report.html"
    write_page([data_folder], path)
    return path


def told(page) -> str:
    return page.locator("#count").inner_text()


def test_the_overview_says_what_happened_and_what_got_worse(view, report):
    page = view(report)
    overview = page.locator("#overview").inner_text()
    assert "improved" in overview
    assert "12 episodes = 6 solved + 5 unsolved + 1 errored" in overview
    assert "12 turns = 6 kept + 5 episode failed + 1 episode error" in overview
    assert "15 got better, 2 got worse; pairs left out because of errors: 1" in overview
    page.get_by_role("link", name=f"{100:016x}").click()
    page.get_by_text("2 of 52").wait_for()
    assert page.locator(ROWS).count() == 2


def test_filters_leave_the_episodes_that_they_name(view, report):
    page = view(report)
    assert told(page) == "52 episodes"
    page.select_option("#set", "collected")
    page.select_option("#state", "unsolved")
    assert told(page) == "5 of 52"
    page.select_option("#state", "")
    page.select_option("#reason", "episode_error")
    assert told(page) == "1 of 52"
    assert "KeyError" in page.locator(ROWS).inner_text()
    page.locator(ROWS).click()
    assert "a bug" in page.locator("#episode").inner_text()


def test_search_looks_into_conversations_and_marks_what_it_found(view, report):
    page = view(report)
    page.fill("#search", "REPLY 7")
    page.get_by_text("1 of 52").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert page.locator("mark").inner_text() == "reply 7"


def test_an_address_opens_its_episode_and_its_filter(view, report):
    page = view(report)
    page.select_option("#state", "solved")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.wait_for_selector("#episode .turn")
    shared = "#" + page.url.partition("#")[2]
    again = view(report, shared)
    again.wait_for_selector("#episode .turn")
    assert again.locator("#episode h3").inner_text() == page.locator("#episode h3").inner_text()
    assert told(again) == told(page) != "52 episodes"
    lost = view(report, "#e=collected%2Fffff.0")
    assert "not in this page" in lost.locator("#episode").inner_text()


def test_the_keyboard_walks_through_the_episodes_and_closes_them(view, report):
    page = view(report)
    heads = []
    for key in "jjk":
        page.keyboard.press(key)
        page.wait_for_selector("#episode .turn")
        heads.append(page.locator("#episode h3").inner_text().split(",")[0])
    assert heads == ["Problem 0", "Problem 1", "Problem 0"]
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.locator("#search").input_value() == "jk"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert "Choose an episode" in page.locator("#episode").inner_text()
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\"><svg onload=\"document.title='owned'\">",
    "<!--<script>",
    "\x1b[31mred\x1b[0m and \u202egnp.exe",
    "{{ 7*7 }} ${7*7} &lt;b&gt; ]]>",
    "x" * 300_000,
    "\ufeff\x00\u2028 end",
]


def test_text_of_a_model_never_becomes_markup_or_script(view, tmp_path):
    everywhere = [turn(text, messages=[{"role": text[:50], "content": text}], reasoning=text) for text in HOSTILE]
    turns = [t.model_copy(update={"turn_idx": i}) for i, t in enumerate(everywhere)]
    played = [
        episode(1, turns=turns, metadata={"noted": HOSTILE[0]}),
        episode(2, error=HOSTILE[1], turns=turns[:2], env_name=HOSTILE[0]),
    ]
    write_journal(tmp_path, "c0", played)
    write_data_file(tmp_path, played)
    path = tmp_path / "report.html"
    write_page([tmp_path], path)
    page = view(path)
    title = page.title()
    tags = page.locator("img, #episode script, #episode svg")
    for _ in played:
        page.keyboard.press("j")
        page.wait_for_selector("#episode .turn")
        assert tags.count() == 0
    page.keyboard.press("k")
    page.locator("#episode .turn").nth(6).wait_for()
    words = page.locator("#episode").inner_text()
    assert HOSTILE[0] in words
    assert "\u241b[31mred" in words
    assert "\u27e8U+202E\u27e9gnp.exe" in words
    assert "Show all 300,000 characters" in words
    assert page.locator("#episode").evaluate("pane => pane.scrollWidth <= pane.clientWidth")
    assert page.title() == title


def test_half_a_character_is_shown_as_a_replacement(view, tmp_path):
    """No journal can hold one, as it is UTF-8, but what is read from it is not the only way to a page."""
    write_journal(tmp_path, "c0", [episode(1)])
    run = read_run(tmp_path)
    half = episode(1, metadata={"noted": "before \ud800 after"}, turns=[turn("half \udfff")])
    path = tmp_path / "report.html"
    path.write_text(page_of([replace(run, journals=[replace(run.journals[0], episodes=[half])])]))
    opened = view(path)
    opened.keyboard.press("j")
    opened.wait_for_selector("#episode .turn")
    assert "half" in opened.locator("#episode .reply").inner_text()


def test_the_policy_of_the_page_stops_what_would_be_injected(chromium, report):
    """A script that a hole would let in does not run, and nothing can be asked for."""
    hurt = report.with_name("hurt.html")
    injected = (
        "<script>document.title='owned'</script><img src='http://127.0.0.1:9/x' onerror=\"document.title='owned'\">"
    )
    hurt.write_text(report.read_text().replace("</main>", injected + "</main>"))
    page = chromium.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(hurt.as_uri())
    page.wait_for_selector("html[data-ready]")
    assert page.title() != "owned"
    assert len([text for text in refused if "Content Security Policy" in text]) >= 2
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>x</b>'")
    page.close()


def test_dark_and_light_have_colours_of_their_own_in_charts_too(chromium, report):
    seen = {}
    for scheme in ("light", "dark"):
        page = chromium.new_page(color_scheme=scheme)
        page.goto(report.as_uri())
        seen[scheme] = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, "
            "getComputedStyle(document.querySelector('.chart svg text')).fill]"
        )
        page.close()
    assert seen["light"][0] == "rgb(255, 255, 255)"
    assert all(light != dark for light, dark in zip(seen["light"], seen["dark"], strict=True))


def test_print_leaves_out_the_list_and_shows_the_open_episode_whole(view, report):
    page = view(report)
    page.keyboard.press("j")
    page.wait_for_selector("#episode .turn")
    page.emulate_media(media="print")
    assert not page.locator("#list").is_visible()
    assert page.locator("#episode .turn").is_visible()
    page.emulate_media(media="screen")
    page.keyboard.press("Escape")
    page.emulate_media(media="print")
    assert not page.locator("#episodes").is_visible()


def test_two_folders_stand_side_by_side_and_are_compared_in_pairs(view, data_folder, tmp_path):
    other = tmp_path / "sft_data_other"
    write_journal(other, "c0", [episode(i) for i in range(12)])
    path = tmp_path / "both.html"
    write_page([data_folder, other], path)
    page = view(path)
    assert page.locator("#overview article").count() == 2
    # The one that errored in the first folder is left out of the pairs.
    told_first = page.locator("#overview > p").inner_text()
    assert re.search(r"11 collected episodes.*: 54\.5 % → 100\.0 %", told_first)
    assert "sft_data_other: collected" in page.locator("#set").inner_text()


def test_ten_thousand_episodes_open_in_two_seconds_and_few_rows_exist(view, tmp_path):
    words = " ".join(f"word{i}" for i in range(120))
    twice = [turn(words), turn(words, turn_idx=1)]
    write_journal(tmp_path, "c0", [episode(i, turns=twice) for i in range(10_000)])
    path = tmp_path / "report.html"
    write_page([tmp_path], path)
    took_s = []
    for _ in range(2):  # the better one, as the machine may be busy
        began = time.monotonic()
        page = view(path)
        took_s.append(time.monotonic() - began)
    assert told(page) == "10,000 episodes"
    assert page.locator(ROWS).count() < 40
    page.locator("#list").evaluate("list => { list.scrollTop = list.scrollHeight }")
    page.get_by_role("option", name="#9999").click()
    page.wait_for_selector("#episode .turn")
    assert min(took_s) < 2
