"""The page of promises: every one of them has tests, and they are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.promises import PROMISES, Tally

ROOT = Path(__file__).parents[1]


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
