"""A report in a browser: nothing on the console, every image loaded, every section shown, light, dark and narrow."""

from __future__ import annotations

import shutil

import pytest

from mutualign.report.html import write_report

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium: `apt-get install chromium` to open reports in it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tiny_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("browser")
    run = tiny_runs / "tiny" / "mani" / "seed-0"
    return {"run": write_report(run, out / "run.html"), "comparison": write_report(tiny_runs, out / "all.html")}


@pytest.mark.parametrize("kind", ["run", "comparison"])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_a_report_opens_without_an_error_with_every_image_and_section(browser, pages, kind, scheme, width):
    tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    complaints, requests = [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(pages[kind].as_uri())
    images = tab.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
    heights = tab.evaluate("[...document.querySelectorAll('section, svg')].map(e => e.getBoundingClientRect().height)")
    linked = tab.evaluate("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    overflow = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    paper = tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    tab.close()
    assert complaints == []
    assert all(images)
    assert len(images) >= (40 if kind == "run" else 0)
    assert min(heights) > 20
    assert linked
    assert overflow <= 0
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert (sum(map(int, paper[4:-1].split(","))) > 380) == (scheme == "light")


def test_in_print_the_page_is_light_and_what_is_folded_is_open(browser, pages):
    tab = browser.new_page(color_scheme="dark")
    tab.goto(pages["run"].as_uri())
    tab.emulate_media(media="print", color_scheme="dark")
    paper = tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    config = tab.evaluate("document.querySelector('#config pre').getBoundingClientRect().height")
    tab.close()
    assert paper == "rgb(255, 255, 255)"
    assert config > 50
