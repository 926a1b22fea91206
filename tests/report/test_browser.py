"""Reports in a browser: complete, readable in light, dark and print, and on a phone."""

from __future__ import annotations

import re

import pytest

FACTS = """() => ({
    images: [...document.images].every(image => image.complete && image.naturalWidth > 0),
    heights: [...document.querySelectorAll('section, svg')].map(one => one.getBoundingClientRect().height),
    linked: [...document.querySelectorAll('nav a')].every(link => document.querySelector(link.hash)),
    overflow: document.documentElement.scrollWidth - innerWidth,
    text: [...document.querySelectorAll('svg')].map(
        svg => Math.min(...[...svg.querySelectorAll('text')].map(
            text => svg.getScreenCTM().a * parseFloat(text.style.fontSize || text.style.font.match(/[\\d.]+px/)[0])))),
    paper: getComputedStyle(document.documentElement).backgroundColor,
    inside: [...document.querySelectorAll('td, th, figcaption, p, li, dd, dt, svg')].filter(
        one => one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 1).length,
})"""
COLOURS = """() => {
    const rgba = colour => {
        const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
        return [r, g, b, a];
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((value, k) => a * value + (1 - a) * below[k]);
    const paper = element => {  // what is seen behind an element
        const own = rgba(getComputedStyle(element).backgroundColor);
        const parent = element.parentElement;
        return own[3] === 1 || !parent ? own.slice(0, 3) : over(own, paper(parent));
    };
    const line = rgba(getComputedStyle(document.documentElement).getPropertyValue('--line')
        .replace(/^#(..)(..)(..)$/, (_, ...parts) => parts.slice(0, 3).map(part => parseInt(part, 16)).join(',')));
    const texts = [], marks = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('svg, style')) continue;
        texts.push([over(rgba(getComputedStyle(element).color), paper(element)), paper(element), element.className]);
    }
    for (const svg of document.querySelectorAll('svg')) {
        const back = paper(svg);
        for (const part of svg.querySelectorAll('text, path, use')) {
            if (part.closest('defs, clipPath, [id$="cells"]')) continue;
            const style = getComputedStyle(part);
            for (const kind of ['fill', 'stroke']) {
                if (style[kind] === 'none') continue;
                const ink = over(rgba(style[kind]), back);
                const opacity = Number(style[kind + 'Opacity']) * Number(style.opacity);
                const seen = over([...ink, opacity], back);
                const equals = other => ink.every((value, k) => Math.abs(value - other[k]) < 1);
                if (equals(back) || equals(line)) continue;  // an edge that sets marks apart, and the grid
                (part.tagName === 'text' ? texts : marks).push([seen, back, svg.ariaLabel]);
            }
        }
    }
    return {texts, marks};
}"""


@pytest.mark.parametrize("kind", ["run", "comparison", "unlabelled run", "unlabelled comparison"])
def test_a_report_is_complete_and_readable_on_a_wide_screen_and_on_a_phone_in_light_and_dark(browser, pages, kind):
    for scheme, width in (("light", 1280), ("dark", 390)):
        tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        complaints, requests = [], []
        tab.on("console", lambda message, found=complaints: found.append(message.text))
        tab.on("pageerror", lambda error, found=complaints: found.append(str(error)))
        tab.on("request", lambda request, found=requests: found.append(request.url))
        tab.goto(pages[kind].as_uri())
        facts, colours = tab.evaluate(FACTS), tab.evaluate(COLOURS)
        tab.close()
        assert complaints == []
        assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
        assert facts["images"]
        assert facts["linked"]
        assert min(facts["heights"]) > 20
        assert facts["overflow"] <= 0
        assert min(size for size in facts["text"] if size is not None) >= 11
        assert (luminance(facts["paper"]) > 0.5) == (scheme == "light")
        assert facts["inside"] == 0
        assert len(colours["texts"]) > 50
        assert len(colours["marks"]) > 20
        assert faint(colours["texts"], 4.5) == []
        assert faint(colours["marks"], 3.0) == []


def faint(pairs, least: float) -> list[tuple[str, float]]:
    """What stands out less than it should."""
    found = [(where, contrast(*(str([round(value) for value in one]) for one in pair))) for *pair, where in pairs]
    return [one for one in found if one[1] < least]


def test_in_print_the_page_is_light_and_what_is_folded_is_open(browser, pages):
    tab = browser.new_page(color_scheme="dark")
    tab.goto(pages["run"].as_uri())
    tab.emulate_media(media="print", color_scheme="dark")
    paper = tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    config = tab.evaluate("document.querySelector('#config pre').getBoundingClientRect().height")
    tab.close()
    assert paper == "rgb(255, 255, 255)"
    assert config > 50


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2)."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two colours (WCAG 2)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
