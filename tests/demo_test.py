"""The web page, used through a client and, in slow tests, through a browser.

Install the browser with `apt-get install chromium chromium-driver`, then run `pytest --slow tests/demo_test.py`.
"""

from __future__ import annotations

import dataclasses
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio_client
import httpx
import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.helpers.made_up_plans import latents_of
from tests.helpers.small_loaded import small_generator
from uno_jax.demo import MAX_UPLOAD, main, make_page, serve
from uno_jax.inference.generate import Generator
from uno_jax.inference.picture_settings import PictureSettings
from uno_jax.sampling.text import TextConfig

pytestmark = pytest.mark.usefixtures("quick_compiles")

# Quick values of the picture controls, in their order.
CONTROLS = {
    "seed": 3,
    "timesteps": 3,
    "size": "",
    "aspect": "",
    "negative": "",
    "think": False,
    "text_scale": 4.0,
    "image_scale": 1.0,
    "low": 0.0,
    "high": 1.0,
    "rescale": "global",
    "rescale_min": 0.0,
    "time_shift": 1.0,
    "solver_order": 1,
    "refresh_every": 1,
    "feature_order": 1,
}
SETTINGS = PictureSettings(seed=3, timesteps=3, image_scale=1.0, interval=(0.0, 1.0), time_shift=1.0)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    page = make_page(small_generator())
    _, url, _ = serve(page, prevent_thread_lock=True, quiet=True, server_port=None)
    yield url
    page.close()


@pytest.fixture(scope="module")
def client(address) -> gradio_client.Client:
    return gradio_client.Client(address, verbose=False)


def drawn(result: Any) -> list[tuple[np.ndarray, str]]:
    return [(np.asarray(Image.open(item["image"])), item["caption"]) for item in result[0]]


def test_draw_gives_the_pictures_of_the_python_api_with_consecutive_seeds(client):
    made = drawn(client.predict(None, "thing", 2, *CONTROLS.values(), api_name="/draw"))
    assert [caption for _, caption in made] == ["seed 3", "seed 4"]
    expected = small_generator().generate_images(["thing"] * 2, SETTINGS, seeds=[3, 4])
    for (picture, _), drawing in zip(made, expected, strict=True):
        assert np.abs(picture.astype(int) - np.asarray(drawing.image)).max() <= 1


def test_edit_reads_the_given_pictures(client, tmp_path):
    source = latents_of(1, 2, seed=3)
    Image.fromarray(source).save(tmp_path / "source.png")
    gallery = [{"image": gradio_client.handle_file(tmp_path / "source.png"), "caption": None}]
    [(picture, _)] = drawn(client.predict(gallery, "thing", 1, *CONTROLS.values(), api_name="/edit"))
    [expected] = small_generator().edit_images([source], ["thing"], SETTINGS)
    assert np.abs(picture.astype(int) - np.asarray(expected.image)).max() <= 1


def test_ask_streams_the_answer_of_the_python_api(client):
    [whole] = small_generator().answer([()], ["thing"], TextConfig(max_length=20))
    job = client.submit(None, "thing", False, 20, 0.0, 1.0, 0, "", api_name="/ask")
    assert job.result()[0] == whole.text
    *pieces, _ = (output[0] for output in job.outputs())
    assert len(pieces) == 5  # 19 tokens, four at once
    # A character may be several tokens. An incomplete one is held back.
    assert all(whole.text.startswith(piece) and not piece.endswith("\ufffd") for piece in pieces)


def test_further_stop_tokens_end_an_answer(client):
    [first] = small_generator().answer([()], ["thing"], TextConfig(max_length=2))
    assert client.predict(None, "thing", False, 20, 0.0, 1.0, 0, first.text, api_name="/ask")[0] == ""
    with pytest.raises(gradio_client.exceptions.AppError, match="stop 'thing number' is not one token"):
        client.predict(None, "thing", False, 20, 0.0, 1.0, 0, "thing number", api_name="/ask")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timesteps": 10**7}, "greater than maximum value"),
        ({"timesteps": -1}, "less than minimum value"),
        ({"text_scale": 1e30}, "greater than maximum value"),
        ({"seed": 2**40}, "greater than maximum value"),
        ({"solver_order": 9}, "greater than maximum value"),
        ({"rescale": "much"}, "not in the list of choices"),
        ({"size": "9" * 5000 + "x8"}, "expected a value such as 96x64"),
        ({"negative": "thing " * 20_000}, "more than the context length of 2,048 of this model"),
    ],
)
def test_the_interface_for_programs_has_the_same_bounds(client, changes, message):
    with pytest.raises(gradio_client.exceptions.AppError, match=message):
        client.predict(None, "thing", 1, *(CONTROLS | changes).values(), api_name="/draw")


def test_a_question_above_the_context_length_is_refused(client):
    with pytest.raises(gradio_client.exceptions.AppError, match="more than the context length of 2,048 of this model"):
        client.predict(None, "thing " * 20_000, False, 20, 0.0, 1.0, 0, "", api_name="/ask")


def test_an_upload_is_refused_by_its_size_and_by_its_content(client, tmp_path):
    (tmp_path / "huge.png").write_bytes(b"x" * (MAX_UPLOAD + 1))
    with pytest.raises(ValueError, match="exceeds the maximum file size of 67108864 bytes"):
        client.predict(
            gradio_client.handle_file(tmp_path / "huge.png"), "thing", False, 20, 0.0, 1.0, 0, "", api_name="/ask"
        )
    (tmp_path / "text.png").write_bytes(b"not a picture")
    with pytest.raises(gradio_client.exceptions.AppError, match=r"text\.png: not a picture"):
        client.predict(
            gradio_client.handle_file(tmp_path / "text.png"), "thing", False, 20, 0.0, 1.0, 0, "", api_name="/ask"
        )


def test_an_empty_field_takes_its_default(client):
    with_default, empty = (
        drawn(client.predict(None, "thing", 1, *(CONTROLS | {"text_scale": scale}).values(), api_name="/draw"))
        for scale in (PictureSettings.text_scale, None)
    )
    np.testing.assert_array_equal(empty[0][0], with_default[0][0])


@dataclasses.dataclass(frozen=True)
class Watched(Generator):
    """Records events, and blocks generation until `proceed` is set."""

    noted: list[str] = dataclasses.field(default_factory=list)
    proceed: threading.Event = dataclasses.field(default_factory=threading.Event)

    def generate(self, requests, batch_size=1):
        self.noted.append("generates")
        self.proceed.wait(60)
        yield from super().generate(requests, batch_size)
        self.noted.append("has generated")

    def answering_plan(self, context, *, think=False, text=None):
        self.noted.append("reads a question")
        return super().answering_plan(context, think=think, text=text)


def test_a_request_stops_after_its_client_has_left():
    @dataclasses.dataclass(frozen=True)
    class Slow(Generator):
        """Notes the pictures that it has generated, one per batch."""

        noted: list[int] = dataclasses.field(default_factory=list)

        def generate(self, requests, batch_size=1):
            for number, drawing in super().generate(requests, 1):
                self.noted.append(number)
                time.sleep(0.5)
                yield number, drawing

    generator = Slow(small_generator().reader)
    page = make_page(generator)
    _, url, _ = serve(page, prevent_thread_lock=True, quiet=True, server_port=None)
    session = {"session_hash": "leaving"}
    values = [None, "thing", 16, *CONTROLS.values()]
    fn = next(number for number, fn in page.fns.items() if fn.api_name == "draw")
    body = {"data": values, "fn_index": fn, "trigger_id": None, "event_data": None, **session}
    httpx.post(f"{url}gradio_api/queue/join", json=body).raise_for_status()
    with httpx.stream("GET", f"{url}gradio_api/queue/data", params=session, timeout=60) as stream:
        next(stream.iter_text())
        wait_for(lambda: generator.noted)
    time.sleep(1.5)  # the absence of an event can only be observed by waiting
    after_leaving = len(generator.noted)
    time.sleep(1.5)
    page.close()
    assert len(generator.noted) == after_leaving < 16


def test_a_question_waits_until_a_picture_is_generated():
    generator = Watched(small_generator().reader)
    page = make_page(generator)
    _, url, _ = serve(page, prevent_thread_lock=True, quiet=True, server_port=None)
    client = gradio_client.Client(url, verbose=False)
    drawing = client.submit(None, "thing", 1, *CONTROLS.values(), api_name="/draw")
    wait_for(lambda: generator.noted)
    answering = client.submit(None, "thing", False, 20, 0.0, 1.0, 0, "", api_name="/ask")
    wait_for(lambda: answering.status().code is not gradio_client.utils.Status.STARTING)
    time.sleep(0.5)  # the absence of an event can only be observed by waiting
    generator.proceed.set()
    drawing.result()
    answering.result()
    page.close()
    assert generator.noted == ["generates", "has generated", "reads a question"]


@pytest.mark.parametrize(
    ("prompt", "changes", "message"),
    [
        ("", {}, "Enter a prompt"),
        ("thing", {"size": "12x16"}, "size is 12x16: expected multiples of 8"),
        ("thing", {"aspect": "wide"}, "aspect is 'wide': expected a value such as 4:3"),
        ("thing", {"low": 0.9, "high": 0.1}, "expected times 0 <= low <= high <= 1"),
    ],
)
def test_an_invalid_request_is_reported_on_the_page(client, prompt, changes, message):
    with pytest.raises(gradio_client.exceptions.AppError, match=message):
        client.predict(None, prompt, 1, *(CONTROLS | changes).values(), api_name="/draw")


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.fail("no chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    profile = tmp_path_factory.mktemp("browser")
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-background-networking", "disable-component-update", f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1200,1600")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def wait_for(found: Callable[[], Any], seconds: float = 60) -> Any:
    """Waits until `found` returns something, and returns it."""
    end = time.monotonic() + seconds
    while True:
        result = found()
        if result or time.monotonic() > end:
            assert result, f"not there after {seconds} s"
            return result
        time.sleep(0.2)


def one(browser: webdriver.Chrome, selector: str) -> Any:
    """Returns the first visible element of a selector."""
    return wait_for(
        lambda: next((e for e in browser.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None)
    )


def open_tab(browser: webdriver.Chrome, name: str) -> None:
    wait_for(lambda: [e for e in browser.find_elements(By.CSS_SELECTOR, "button[role=tab]") if e.text == name])[
        0
    ].click()


def shown_pictures(browser: webdriver.Chrome, gallery: str) -> list[Any]:
    images = browser.find_elements(By.CSS_SELECTOR, f"{gallery} img")
    return [i for i in images if browser.execute_script("return arguments[0].naturalWidth", i)]


@pytest.mark.slow
def test_draw_edit_and_ask_in_a_browser(browser, address, tmp_path):
    Image.fromarray(latents_of(2, 2)).save(tmp_path / "source.png")
    browser.get(address)

    open_tab(browser, "Draw")
    one(browser, "#draw-prompt textarea, #draw-prompt input").send_keys("thing")
    one(browser, "#draw-go").click()
    [picture] = wait_for(lambda: shown_pictures(browser, "#draw-drawn"))[:1]
    assert browser.execute_script("return arguments[0].naturalWidth", picture) == 16

    open_tab(browser, "Edit")
    browser.find_element(By.CSS_SELECTOR, "#edit-pictures input[type=file]").send_keys(str(tmp_path / "source.png"))
    wait_for(lambda: shown_pictures(browser, "#edit-pictures"))
    one(browser, "#edit-prompt textarea, #edit-prompt input").send_keys("thing")
    one(browser, "#edit-go").click()
    wait_for(lambda: shown_pictures(browser, "#edit-drawn"))

    open_tab(browser, "Ask")
    browser.find_element(By.CSS_SELECTOR, "#ask-picture input[type=file]").send_keys(str(tmp_path / "source.png"))
    wait_for(lambda: shown_pictures(browser, "#ask-picture"))
    one(browser, "#ask-question textarea, #ask-question input").send_keys("number")
    one(browser, "#ask-go").click()
    [expected] = small_generator().answer([latents_of(2, 2)], ["number"], TextConfig())
    wait_for(lambda: one(browser, "#ask-answer textarea").get_property("value").strip() == expected.text)


@pytest.mark.slow
def test_a_browser_shows_a_user_error(browser, address):
    browser.get(address)
    open_tab(browser, "Edit")
    one(browser, "#edit-go").click()
    wait_for(lambda: "Give at least one picture" in browser.find_element(By.TAG_NAME, "body").text)


@pytest.mark.slow
def test_the_page_contacts_no_other_server(browser, address):
    browser.get(address)
    open_tab(browser, "Draw")
    names = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert names
    assert [name for name in names if not name.startswith(address)] == []


def test_a_missing_checkpoint_is_reported_in_a_message(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SystemExit, match=str(tmp_path / "nothing")):
        main([f"--checkpoint={tmp_path / 'nothing'}", f"--port={port}"])
