"""The demo in a browser: draw, pick, slide, upload, compare; broken uploads; nothing asked of another host."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.report.test_browser import FLAGS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(digit_runs):
    """Where a demo of both runs is served, by the command in a process of its own."""
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "mutualign", "demo", *map(str, digit_runs), "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        line = running.stdout.readline()
        yield line.split()[0] if line else pytest.fail(running.stderr.read())
        running.terminate()
        errors = running.communicate(timeout=60)[1]
    assert errors == ""  # whatever the tests did, no traceback in the terminal


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: `apt-get install chromium` to open the demo in it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


class Visit:
    """The demo in a tab: what it shows, and what the browser complained of and asked for."""

    def __init__(self, browser, address, **options):
        self.tab = browser.new_page(**options)
        self.complaints, self.hosts = [], set()
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.tab.on("websocket", lambda socket: self.hosts.add(urlsplit(socket.url).netloc))
        self.tab.goto(address)
        self.tab.wait_for_selector(".card")
        self.tab.wait_for_selector("#pad canvas")

    def shown(self) -> list[list[str]]:
        """The probabilities of each system, as text."""
        return [card.locator(".value").all_inner_texts() for card in self.tab.locator(".card").all()]

    def after(self, act) -> list[list[str]]:
        """The probabilities once they have changed because of what is done."""
        before, seen = self.tab.locator(".results").text_content(), self.image()
        act()
        self.tab.wait_for_function(
            "([text, image]) => document.querySelector('.results').textContent !== text"
            " || document.querySelector('.seen img').src !== image",
            arg=[before, seen],
        )
        return self.shown()

    def image(self) -> str:
        return self.tab.locator(".seen img").get_attribute("src")

    def open(self, name: str) -> None:
        self.tab.get_by_role("tab", name=name).click()
        self.tab.wait_for_timeout(100)  # until the panel is laid out

    def draw(self, *corners: tuple[float, float]) -> None:
        """A stroke with the mouse, in shares of the box."""
        box = self.tab.locator("#pad canvas").bounding_box()
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
        self.tab.mouse.move(*at[0])
        self.tab.mouse.down()
        for corner in at[1:]:
            self.tab.mouse.move(*corner, steps=5)
        self.tab.mouse.up()


@pytest.fixture
def visit(browser, address):
    visiting = Visit(browser, address, viewport={"width": 1280, "height": 800})
    yield visiting
    visiting.tab.close()
    assert visiting.complaints == []
    assert visiting.hosts <= {urlsplit(address).netloc, ""}  # a data URI has no host


def image_file(height: int, width: int) -> dict[str, object]:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return {"name": "noise.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


def test_the_page_opens_with_a_digit_a_patch_and_what_both_systems_say(visit):
    assert visit.tab.locator(".card h2").all_inner_texts() == ["source_only", "fast"]
    assert [len(values) for values in visit.shown()] == [10, 10]
    assert visit.tab.locator('#pad [aria-pressed="true"]').count() == 1
    assert visit.tab.locator('#patches [aria-pressed="true"]').count() == 1
    inked = "canvas => canvas.getContext('2d').getImageData(0, 0, 280, 280).data.some(v => v > 100 && v < 255)"
    assert visit.tab.locator("#pad canvas").evaluate(inked)
    unlabelled = "[...document.querySelectorAll('button, input, img, canvas')].filter(e => e.checkVisibility() && !("
    unlabelled += "e.ariaLabel || e.alt || e.innerText || e.labels?.length || e.querySelector?.('img[alt]'))).length"
    assert visit.tab.evaluate(unlabelled) == 0


def test_a_stroke_a_patch_and_the_slider_change_what_the_systems_say(visit):
    drawn = visit.after(lambda: visit.draw((0.5, 0.15), (0.5, 0.85)))
    over_photo = visit.image()
    placed = visit.after(lambda: visit.tab.locator("#patches button").nth(4).click())
    plain = visit.after(lambda: visit.tab.locator('#photo input[type="range"]').fill("0"))
    assert len({str(values) for values in (drawn, placed, plain)}) == 3
    assert visit.image() != over_photo
    assert visit.tab.locator("#patches .lost").count() == 1  # in the legend: over nothing, all answers are kept
    assert visit.tab.locator('#pad [aria-pressed="true"]').count() == 0
    picked = visit.after(lambda: visit.tab.locator("#pad [data-pick]").nth(0).click())
    assert picked != plain


def test_an_answer_that_is_not_that_on_black_is_marked_with_that_on_black(visit):
    visit.tab.locator("#patches button").nth(4).click()
    visit.tab.wait_for_selector('#patches button:nth-child(5)[aria-pressed="true"]')
    lost = [
        each.get_attribute("class") == "lost"
        for each in visit.tab.locator("#patches button >> nth=4 >> span span").all()
    ]
    marked = ["astray" in card.get_attribute("class") for card in visit.tab.locator(".card").all()]
    assert marked == lost
    assert visit.tab.get_by_text("on black:").count() == sum(lost)


def test_on_a_phone_the_answers_stay_in_sight_while_patches_are_picked(browser, address):
    visiting = Visit(browser, address, viewport={"width": 390, "height": 844})
    visiting.tab.locator("#patches button").nth(11).scroll_into_view_if_needed()
    visiting.tab.locator("#patches button").nth(11).click()
    boxes = [card.bounding_box() for card in visiting.tab.locator(".card").all()]
    visiting.tab.close()
    assert all(box["y"] >= 0 and box["y"] + box["height"] < 844 / 3 for box in boxes)


def test_an_empty_box_is_answered_with_what_to_do_until_something_is_drawn(visit):
    visit.tab.get_by_text("Clear", exact=True).click()
    assert "draw a digit" in visit.tab.locator("#note").get_by_role("alert").inner_text()
    visit.after(lambda: visit.draw((0.3, 0.2), (0.7, 0.2), (0.5, 0.8)))
    visit.tab.wait_for_selector(".note", state="detached")


def test_a_digit_is_uploaded_to_be_dropped_on_a_photo_and_an_image_as_it_is(visit):
    digit = np.full((120, 90, 3), 255, np.uint8)
    digit[20:100, 40:50] = 0
    buffer = io.BytesIO()
    Image.fromarray(digit).save(buffer, "PNG")
    file = {"name": "one.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    visit.after(lambda: visit.tab.locator("#pad input[type=file]").set_input_files(file))
    visit.open("Own image")
    visit.after(lambda: visit.tab.locator("#own input[type=file]").set_input_files(image_file(60, 90)))
    assert "your image" in visit.tab.locator(".seen").inner_text()
    visit.open("Draw a digit")
    visit.tab.wait_for_function("!document.querySelector('.seen').innerText.includes('your image')")


def test_real_images_are_shown_to_both_systems(visit):
    visit.open("Real images")
    first = visit.after(lambda: visit.tab.locator("#samples button").nth(3).click())
    assert "target image 4" in visit.tab.locator(".seen").inner_text()
    assert visit.after(lambda: visit.tab.locator('#samples [data-group="1"]').nth(2).click()) != first


BROKEN = {
    "text": {"name": "text.png", "mimeType": "image/png", "buffer": b"no image at all"},
    "truncated": {**image_file(64, 64), "buffer": image_file(64, 64)["buffer"][:3000]},
    "too large": {"name": "large.png", "mimeType": "image/png", "buffer": b"\x89PNG" + bytes(6_000_000)},
}


@pytest.mark.parametrize("file", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("place", ["#pad", "#own"])
def test_a_broken_upload_gets_a_sentence_and_leaves_the_page_as_it_was(visit, file, place):
    if place == "#own":
        visit.open("Own image")
    shown = visit.shown()
    visit.tab.locator(f"{place} input[type=file]").set_input_files(file)
    sentence = visit.tab.get_by_role("alert").inner_text()
    assert sentence.startswith("This file could not be read as an image.")
    assert "Traceback" not in visit.tab.content()
    assert visit.shown() == shown
    visit.tab.locator("#own input[type=file], #pad input[type=file]").first.set_input_files(image_file(40, 40))
    visit.tab.wait_for_selector(".note", state="detached")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_the_page_fits_its_window_and_follows_the_colour_scheme(browser, address, scheme, width):
    visiting = Visit(browser, address, viewport={"width": width, "height": 844}, color_scheme=scheme)
    overflow = visiting.tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    ink = visiting.tab.evaluate("getComputedStyle(document.querySelector('.card h2')).color")
    tabs = visiting.tab.get_by_role("tab").all()
    visible = [tab.is_visible() for tab in tabs]
    visiting.tab.close()
    assert overflow <= 0
    assert (sum(map(int, ink[4:-1].split(","))) < 380) == (scheme == "light")
    assert visible.count(True) == 3
    assert visiting.complaints == []
