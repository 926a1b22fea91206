"""The demo in a browser: draw, pick, slide, upload, compare; broken uploads; phones; nothing asked of another host."""

from __future__ import annotations

import io
import logging
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from mutualign.data.pictures import to_data_url
from mutualign.demo.digits import DigitBench, normalise_digit, over
from mutualign.demo.images import LARGEST_UPLOAD, decode_digit, from_data_url
from mutualign.demo.server import DemoServer

# Gradio uses deprecated parts of pandas; as errors, these warnings would end its tasks.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def serve(gradio):
    """Serve a gallery until the end of the module, during which nothing may be logged as an error."""
    records, serving = [], []
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append
    logging.getLogger().addHandler(handler)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
            patch.setenv(name, "")
        yield lambda gallery: serving.append(DemoServer(gallery)) or serving[-1].url
        for each in serving:
            each.close()
    logging.getLogger().removeHandler(handler)
    assert [record.getMessage() for record in records] == []


@pytest.fixture(scope="module")
def address(serve, digits):
    return serve(digits)


class Visit:
    """The demo in a tab: what it shows, and what the browser complained of and asked for."""

    def __init__(self, browser, address, width=1280, height=800, **options):
        self.tab = browser.new_page(viewport={"width": width, "height": height}, **options)
        self.complaints, self.hosts, self.answers_while_drawing = [], set(), 0
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.tab.on("websocket", lambda websocket: self.hosts.add(urlsplit(websocket.url).netloc))
        self.tab.set_default_timeout(10_000)
        self.tab.goto(address)
        self.tab.wait_for_selector(".card")
        self.tab.wait_for_selector("#pad canvas, #samples button")
        self.tab.wait_for_selector("#bench [aria-busy]", state="detached")

    def shown(self) -> str:
        return self.tab.locator(".results").inner_html()

    def after(self, act) -> str:
        """The results once an action has changed them."""
        before = self.shown()
        act()
        self.tab.wait_for_function("before => document.querySelector('.results').innerHTML !== before", arg=before)
        return self.shown()

    def image(self) -> str:
        return self.tab.locator(".seen img").get_attribute("src")

    def open(self, name: str) -> None:
        self.tab.get_by_role("tab", name=name).click()
        self.tab.wait_for_timeout(100)  # until the panel is laid out

    def draw(self, *corners: tuple[float, float]) -> None:
        """A stroke with the mouse, in shares of the box."""
        canvas = self.tab.locator("#pad canvas")
        canvas.hover()  # waits until it does not move any more
        box = canvas.bounding_box()
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
        self.tab.mouse.move(*at[0])
        self.tab.mouse.down()
        for corner in at[1:]:
            self.tab.mouse.move(*corner, steps=3)
        self.answers_while_drawing += self.tab.evaluate(
            "[...document.querySelectorAll('.card, #patches .answers')].filter(one => "
            "one.checkVisibility({visibilityProperty: true})).length"
        )
        self.tab.mouse.up()


@pytest.fixture
def visit(browser, address):
    visiting = Visit(browser, address)
    yield visiting
    visiting.tab.close()
    assert visiting.complaints == []
    assert visiting.hosts <= {urlsplit(address).netloc, ""}  # a data URL has no host


def image_file(height: int, width: int, name: str = "noise.png") -> dict[str, object]:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": buffer.getvalue()}


def test_the_page_opens_with_a_digit_a_patch_and_the_answers_of_both_systems(visit):
    assert [card.locator(".value").count() for card in visit.tab.locator(".card").all()] == [10, 10]
    assert visit.tab.locator('#pad [aria-pressed="true"]').count() == 1
    assert visit.tab.locator('#patches [aria-pressed="true"]').count() == 1
    inked = "canvas => canvas.getContext('2d').getImageData(0, 0, 280, 280).data.some(v => v > 100 && v < 255)"
    assert visit.tab.locator("#pad canvas").evaluate(inked)
    unlabelled = "[...document.querySelectorAll('button, input, img, canvas')].filter(e => e.checkVisibility() && !("
    unlabelled += "e.ariaLabel || e.alt || e.innerText || e.labels?.length || e.querySelector?.('img[alt]'))).length"
    assert visit.tab.evaluate(unlabelled) == 0


def test_patches_the_slider_and_examples_change_the_answers_and_lost_ones_are_marked(visit):
    visit.after(lambda: visit.tab.locator("#patches button").nth(4).click())
    answers = visit.tab.locator("#patches button >> nth=4 >> span span").all()
    lost = [each.get_attribute("class") == "lost" for each in answers]
    assert ["wrong" in card.get_attribute("class") for card in visit.tab.locator(".card").all()] == lost
    assert visit.tab.get_by_text("on black:").count() == sum(lost)
    over_photo = visit.image()
    visit.after(lambda: visit.tab.locator('#photo input[type="range"]').fill("0"))
    assert visit.image() != over_photo
    assert visit.tab.locator("#patches .lost").count() == 1  # in the legend: on black, all answers are kept
    visit.after(lambda: visit.tab.locator('#pad [aria-pressed="false"]').nth(0).click())


def test_quick_strokes_are_answered_about_the_whole_drawing_and_clear_empties_the_answers(visit, digits):
    bench = DigitBench(digits)
    patch = visit.tab.locator("#patches [aria-pressed]").evaluate_all(
        "all => all.findIndex(one => one.ariaPressed === 'true')"
    )
    for corner in range(6):
        visit.draw((0.2 + 0.1 * corner, 0.2), (0.8 - 0.1 * corner, 0.5), (0.3, 0.8))
        visit.tab.wait_for_timeout(160 * corner)  # some strokes come while the answer to the last ones is on its way
    assert visit.answers_while_drawing == 0
    drawing = visit.tab.locator("#pad canvas").evaluate("canvas => canvas.toDataURL('image/png')")
    digit = normalise_digit(decode_digit(from_data_url(drawing)), 28, 28)
    expected = to_data_url(over(digit, bench.patches[patch : patch + 1], 1.0)[0], 320)
    visit.tab.wait_for_function("src => document.querySelector('.seen img').src === src", arg=expected)
    visit.tab.wait_for_timeout(500)
    assert visit.image() == expected
    assert visit.tab.locator(".card").first.is_visible()
    visit.tab.get_by_text("Clear", exact=True).click()
    assert not visit.tab.locator(".card").first.is_visible()  # at once
    visit.tab.wait_for_selector(".results .waiting")
    assert visit.tab.locator(".card").count() == 0
    assert visit.tab.locator("#patches img").count() == 12
    assert visit.tab.get_by_role("alert").count() == 0
    visit.after(lambda: visit.draw((0.3, 0.2), (0.7, 0.2), (0.5, 0.8)))
    assert visit.tab.locator(".card").count() == 2


def test_a_digit_is_uploaded_to_be_placed_on_a_photo_and_an_image_as_it_is(visit):
    visit.after(lambda: visit.tab.locator("#pad input[type=file]").set_input_files(image_file(120, 90)))
    visit.open("Your image")
    visit.after(lambda: visit.tab.locator("#own input[type=file]").set_input_files(image_file(60, 90)))
    assert "your image" in visit.tab.locator(".seen").inner_text().lower()
    visit.after(lambda: visit.tab.locator("#own select").select_option(index=4))
    assert "true class: 3" in visit.tab.locator(".seen").inner_text()
    assert visit.tab.get_by_text("of your images that you named").count() == 2
    visit.open("Draw a digit")
    visit.tab.wait_for_function("!document.querySelector('.seen').innerText.includes('Your image')")


def test_real_images_are_shown_with_their_true_class_as_soon_as_their_tab_opens(visit, digits):
    visit.after(lambda: visit.open("Real images"))
    assert "Target image" in visit.tab.locator(".seen").inner_text()
    visit.after(lambda: visit.tab.locator('#samples [data-group="1"]').nth(2).click())
    label = digits.class_names[digits.samples[1].labels[2]]
    assert visit.tab.locator(".seen").inner_text().split() == ["Source", "image", "3", "true", "class:", label]


BROKEN = {
    "text": {"name": "text.png", "mimeType": "image/png", "buffer": b"no image at all"},
    "too large": {"name": "large.png", "mimeType": "image/png", "buffer": b"\x89PNG" + bytes(30_000)},
}


def test_a_broken_upload_gets_a_sentence_and_leaves_the_page_as_it_was(visit):
    def refused(place, file):
        shown = visit.shown()
        visit.tab.locator(f"{place} input[type=file]").set_input_files(BROKEN[file])
        sentence = visit.tab.get_by_role("alert").inner_text()
        assert sentence.startswith("This file could not be read as an image.")
        assert visit.shown() == shown
        visit.tab.locator(f"{place} input[type=file]").set_input_files(image_file(40, 40))
        visit.tab.wait_for_selector(".note", state="detached")

    refused("#pad", "text")
    visit.open("Your image")
    limit = visit.tab.locator("#own [data-most-bytes]")
    assert int(limit.get_attribute("data-most-bytes")) == LARGEST_UPLOAD
    limit.evaluate("part => part.dataset.mostBytes = 20000")  # so that no large file has to be sent
    label = visit.tab.locator("#own select")
    assert label.is_disabled()  # there is no image to name
    visit.tab.locator("#own input[type=file]").set_input_files(BROKEN["text"])
    visit.tab.wait_for_selector(".note")
    assert label.is_disabled()
    visit.after(lambda: visit.tab.locator("#own input[type=file]").set_input_files(image_file(60, 90)))
    assert label.is_enabled()
    refused("#own", "text")
    refused("#own", "too large")
    assert label.is_enabled()


def test_what_got_no_answer_is_sent_again(browser, address):
    visiting, refusals = Visit(browser, address), []

    def refuse(route):
        refusals.append(route.request.url)
        route.fulfill(status=503, json={"detail": "The demo is busy."})

    def after_a_refusal(act):
        visiting.tab.route("**/queue/join*", refuse, times=1)
        visiting.after(act)
        assert visiting.tab.locator(".card:not(.old *)").first.is_visible()

    after_a_refusal(lambda: visiting.draw((0.3, 0.2), (0.7, 0.2), (0.5, 0.8)))
    after_a_refusal(lambda: visiting.tab.locator("#patches button").nth(4).click())
    visiting.after(lambda: visiting.open("Your image"))
    after_a_refusal(lambda: visiting.tab.locator("#own input[type=file]").set_input_files(image_file(60, 90)))
    after_a_refusal(lambda: visiting.tab.locator("#own select").select_option(index=4))
    visiting.tab.close()
    assert len(refusals) == 4


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_the_page_fits_its_window_and_follows_the_colour_scheme(browser, address, scheme, width):
    visiting = Visit(browser, address, width, 844, color_scheme=scheme)
    overflow = visiting.tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    ink = visiting.tab.evaluate("getComputedStyle(document.querySelector('.card h2')).color")
    tabs = [tab.is_visible() for tab in visiting.tab.get_by_role("tab").all()]
    visiting.tab.locator("#patches button").nth(11).scroll_into_view_if_needed()
    boxes = [card.bounding_box() for card in visiting.tab.locator(".card").all()]
    visiting.tab.close()
    assert overflow <= 0
    assert (sum(map(int, ink[4:-1].split(","))) < 380) == (scheme == "light")
    assert tabs.count(True) == 3
    if width == 390:  # the answers stay in sight while patches are picked
        assert all(box["y"] >= 0 and box["y"] + box["height"] < 844 / 3 for box in boxes)


def test_images_with_named_classes_have_a_page_without_digits(browser, serve, images):
    visiting = Visit(browser, serve(images), 390, 844)
    assert [tab.inner_text() for tab in visiting.tab.get_by_role("tab").all() if tab.is_visible()] == [
        "Real images",
        "Your image",
    ]
    assert visiting.tab.locator("#samples img").count() == 40
    visiting.after(lambda: visiting.tab.locator("#samples button").nth(7).click())
    assert visiting.tab.locator(".answer strong").inner_text() in images.class_names
    visiting.open("Your image")
    visiting.after(lambda: visiting.tab.locator("#own input[type=file]").set_input_files(image_file(300, 200)))
    overflow = visiting.tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    visiting.tab.close()
    assert overflow <= 0
    assert visiting.complaints == []
