"""The gallery in a browser. Install it with `apt-get install chromium chromium-driver`, then run with --slow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.helpers.evaluate_command import succeed
from tests.helpers.evaluated import write_evaluated

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    """The gallery of two models, opened from disk."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.fail("no chromium here: apt-get install chromium chromium-driver")
    folder: Path = tmp_path_factory.mktemp("gallery")
    items = {"00000": "single_object", "00001": "counting", "00002": "counting"}
    one = write_evaluated(folder / "1", "geneval", items)
    two = write_evaluated(folder / "2", "geneval", items, name="uno", colour=(30, 30, 200))
    three = write_evaluated(folder / "3", "gedit_en", {"style/a": "style"}, source="sources/style/a.png")
    write_score(one, "detector", {"00000": 0.25, "00001": 1.0})
    write_score(three, "model", {"style/a": 7.5}, {"style/a": "A good edit."})
    succeed("report", f"--run={one}", f"--run={two}", f"--run={three}", f"--out={folder / 'report'}")
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    browser.get((folder / "report/gallery.html").as_uri())
    yield browser
    browser.quit()


def write_score(out: Path, judge: str, items: dict[str, float], words: dict[str, str] | None = None) -> None:
    head = json.loads((out / "record.json").read_text())
    about = {"benchmark": head["benchmark"], "checkpoint": head["checkpoint"]["sha256"], "judge": judge}
    counts = {"items_scored": len(items), "items_expected": 3}
    content = {**about, **counts, "averages": {"mean": 0.5}, "categories": {}, "items": items, "words": words or {}}
    (out / "score.json").write_text(json.dumps(content))


def shown(page: webdriver.Chrome) -> tuple[str, str, int]:
    """Number and prompt of the entry, and how many pictures it shows."""
    loaded = [
        image for image in page.find_elements(By.CSS_SELECTOR, "#pictures img") if image.get_property("naturalWidth")
    ]
    return page.find_element(By.ID, "count").text, page.find_element(By.ID, "prompt").text, len(loaded)


def press(page: webdriver.Chrome, key: str) -> None:
    page.find_element(By.TAG_NAME, "body").send_keys(key)


def choose(page: webdriver.Chrome, field: str, value: str) -> None:
    Select(page.find_element(By.ID, field)).select_by_value(value)


def test_the_keyboard_steps_through_the_prompts(page):
    press(page, Keys.HOME)
    assert shown(page) == ("1 of 4", "prompt of 00000", 2)
    press(page, Keys.ARROW_RIGHT)
    assert shown(page) == ("2 of 4", "prompt of 00001", 2)
    press(page, Keys.ARROW_LEFT)
    press(page, Keys.ARROW_LEFT)
    assert shown(page) == ("1 of 4", "prompt of 00000", 2)
    press(page, Keys.END)
    assert shown(page) == ("4 of 4", "prompt of style/a", 2)  # the source and one edit


def test_prompts_are_chosen_by_benchmark_category_and_words(page):
    choose(page, "benchmark", "gedit_en")
    assert shown(page)[0] == "1 of 1"
    choose(page, "benchmark", "geneval")
    choose(page, "category", "counting")
    assert shown(page) == ("1 of 2", "prompt of 00001", 2)
    press(page, "/")
    page.switch_to.active_element.send_keys("2")
    assert shown(page) == ("1 of 1", "prompt of 00002", 2)


def test_prompts_are_chosen_by_score(page):
    page.refresh()
    assert "detector: 0.250" in page.find_element(By.ID, "pictures").text
    page.find_element(By.ID, "least").send_keys("0.5")
    assert shown(page)[:2] == ("1 of 2", "prompt of 00001")
    choose(page, "judge", "model")
    assert shown(page)[:2] == ("1 of 1", "prompt of style/a")
    page.find_element(By.ID, "most").send_keys("7")
    assert shown(page) == ("no prompts", "", 0)


def test_the_words_of_a_judge_are_shown_on_demand(page):
    page.refresh()
    press(page, Keys.END)
    words = page.find_element(By.CSS_SELECTOR, "#pictures details")
    assert not words.get_property("open")
    words.find_element(By.TAG_NAME, "summary").click()
    assert words.get_property("open")
    assert words.text == "words of model\nA good edit."


def test_the_browser_reports_no_error(page):
    assert page.get_log("browser") == []
