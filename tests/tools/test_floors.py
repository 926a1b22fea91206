"""The picture of the package's floors is that of the list which the architecture test enforces."""

from __future__ import annotations

from tools.floors import PATH, drawing


def test_the_committed_picture_of_the_floors_is_that_of_the_list():
    assert PATH.read_text(encoding="utf-8") == drawing()
