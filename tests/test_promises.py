"""The page of promises: every one of them has tests, and they are there."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from tests.promises import PROMISES, Tally

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
NAMED = re.findall(r"^- `([\w/.]+)::(\w+)`$", PAGE, re.MULTILINE)


def test_the_page_has_every_promise_in_order_each_with_its_tests():
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert [heading.lower() for heading in headings] == list(PROMISES)
    for section in PAGE.split("\n## ")[1:]:
        assert section.count("\n- `") >= 2, section.partition("\n")[0]
    assert len(NAMED) == PAGE.count("\n- `")


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_the_page_names_is_there(file, name):
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_committed_table_has_a_fault_or_more_for_each_promise_and_all_were_survived():
    rows = json.loads((ROOT / "results" / "faults.json").read_text(encoding="utf-8"))["rows"]
    assert tuple(row["promise"] for row in rows) == PROMISES
    assert all(row["survived"] == row["injected"] > 0 for row in rows)


def test_the_tally_counts_what_survived_and_what_did_not(tmp_path):
    tally = Tally()
    with tally.injected("not finite", 3):
        pass
    with pytest.raises(AssertionError), tally.injected("not finite"):
        raise AssertionError
    with pytest.raises(ValueError, match="no such promise: always finite"), tally.injected("always finite"):
        pass
    tally.write(tmp_path / "faults.json")
    rows = {row["promise"]: row for row in json.loads((tmp_path / "faults.json").read_text())["rows"]}
    assert tuple(rows) == PROMISES
    assert rows["not finite"] == {"promise": "not finite", "injected": 4, "survived": 3}
    assert rows["exact resume"]["injected"] == 0
    tally.add({"not finite": [2, 1], "exact resume": [1, 1]})
    assert tally.counts == {"not finite": [6, 4], "exact resume": [1, 1]}
