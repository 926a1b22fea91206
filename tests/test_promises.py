"""The page of promises names tests for every promise, and they exist; links within the docs lead somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
TEST = re.compile(r"^- \[`([\w/.]+)::(\w+)`\]\(\.\./tests/([\w/.]+)\)$", re.MULTILINE)


def test_every_promise_names_two_tests_or_more_each_on_a_line_with_its_link():
    for section in PAGE.split("\n## ")[1:]:
        assert len(TEST.findall(section)) == section.count("\n- ") >= 2, section.partition("\n")[0]


def test_every_named_test_exists_in_the_linked_file():
    missing = []
    for file, name, link in TEST.findall(PAGE):
        path = ROOT / "tests" / file
        tree = ast.parse(path.read_text(encoding="utf-8") if path.is_file() else "")
        if file != link or name not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{file}::{name}")
    assert missing == []


FOLDERS = [ROOT / name for name in ("docs", "examples", "benchmarks")]
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in folder.rglob("*.md"))])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_files_and_headings_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, heading = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            names = re.findall(r"^::: (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)  # of the API reference
            found = {re.sub(r"[^\w\- ]", "", found.lower()).replace(" ", "-") for found in headings}
            assert heading in found | set(names), link
