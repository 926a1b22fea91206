"""What a page holds, read back from its HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Reader(HTMLParser):
    """A page's tags, ids, addresses, text, sections, and tables as rows of cells."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.ids, self.addresses, self.sections, self.tables, self.parts = [], [], [], [], [], []
        self.in_cell = False
        self.feed(text)
        self.tables = [[[cell.strip() for cell in row] for row in table] for table in self.tables]
        self.text = re.sub(r"\s+", " ", "".join(self.parts))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[name] for name in ("src", "href", "xlink:href") if name in found]
        if tag == "section":
            self.sections.append(found["id"])
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("th", "td")

    def handle_data(self, data):
        self.parts.append(data)
        if self.in_cell:
            self.tables[-1][-1][-1] += data

    def column(self, table: int, head: str) -> dict[str, str]:
        """A column of a table by the first one."""
        first, *rows = self.tables[table]
        return {row[0]: row[first.index(head)] for row in rows}

    def table_with(self, head: str) -> int:
        """The number of the first table with a column."""
        return next(number for number, (first, *_) in enumerate(self.tables) if head in first)
