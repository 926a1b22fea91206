"""The documentation site in a browser: no request to another host, no error, and nothing wider than a phone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACTS = """async () => {
const shown = [...document.images].filter(image => image.offsetParent);
shown.forEach(image => { image.loading = 'eager'; });
await Promise.all(shown.map(image => image.decode().catch(() => {})));
return {
    title: document.querySelector('.md-content h1')?.innerText ?? '',
    overflow: document.documentElement.scrollWidth - innerWidth,
    broken: shown.filter(image => !image.naturalWidth).map(image => image.src),
    missing: [...document.images].filter(image => !image.alt).map(image => image.src),
    paper: getComputedStyle(document.body).backgroundColor,
    scrolling: [...document.querySelectorAll('pre > code')]
        .filter(code => code.scrollWidth > code.clientWidth).map(code => code.innerText.slice(0, 80)),
    raw: /\\$\\$|\\\\\\(|<!-- table/.test(document.querySelector('.md-content').innerText),
}; }"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strict: a link or an anchor that leads nowhere fails."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pages(site):
    """Pages that people wrote; those of single source files are alike."""
    found = [path for path in site.rglob("*.html") if not path.is_relative_to(site / "repository")]
    return sorted(path for path in found if path.name != "404.html")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_every_page_is_complete_on_a_wide_screen_and_on_a_phone_and_asks_no_other_host(site, browser, scheme, width):
    tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    complaints, requests = [], []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("request", lambda request: requests.append(request.url))
    for page in pages(site):
        tab.goto(page.as_uri())
        facts = tab.evaluate(FACTS)
        name = page.relative_to(site).as_posix()
        assert facts["title"], name
        assert facts["overflow"] <= 0, name
        assert facts["broken"] == facts["missing"] == [], name
        assert not facts["raw"], name
        assert scheme == "dark" or not facts["scrolling"], name
        assert (sum(map(int, facts["paper"][4:-1].split(","))) > 400) == (scheme == "light"), name
    tab.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_search_finds_a_public_function_from_disk(site, browser):
    tab = browser.new_page()
    tab.goto((site / "start.html").as_uri())
    tab.keyboard.press("/")
    tab.keyboard.type("reverse_gradient")
    found = tab.wait_for_selector(".md-search-result__link", timeout=20_000)
    assert "losses.html" in found.get_attribute("href")
    tab.close()


def test_a_long_name_in_a_wide_table_continues_after_an_underscore(site):
    assert "<code>self_<wbr/>ensembling</code>" in (site / "methods.html").read_text(encoding="utf-8")


def test_equations_are_mathml(site):
    text = (site / "concepts" / "mutual-information.html").read_text(encoding="utf-8")
    assert text.count("<math") > 5
    assert "arithmatex" not in text
