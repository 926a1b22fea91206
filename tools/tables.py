"""Generate the tables of README.md and docs/ from results/*.json: `python -m tools.tables [--check]`."""

from __future__ import annotations

import os
import re
import sys

import tools.accuracy_tables
import tools.blind_tables
import tools.gain_tables
import tools.method_tables
import tools.score_tables
import tools.speed_tables
import tools.task_tables  # noqa: F401 - each registers its tables
from tools.markdown import TABLES
from tools.results import ROOT, load

BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def with_origin(name: str, folder: str = "") -> str:
    """Return a table and the origin of its numbers: command, hardware, commit, and a link from the given folder."""
    source, formatted = TABLES[name]
    if not source:
        return "\n".join([*formatted({}), ""])
    path = f"results/{source}.json"
    if not (ROOT / path).is_file():
        return f"Not measured yet: {path} does not exist.\n"
    results = load(source)
    commits = ", ".join(part.strip()[:7] for part in results["commit"].split(","))
    link = f"[{path}]({os.path.relpath(path, folder or '.')})"
    origin = f"`{results['command']}`; {results['hardware']}; commit {commits}; {link}"
    return "\n".join([*formatted(results), "", f"<sub>{origin}</sub>", ""])


def filled(text: str, folder: str = "") -> str:
    """Return a document of a folder with all its tables regenerated."""
    return BLOCK.sub(lambda match: match[1] + with_origin(match[2], folder) + match[3], text)


def main() -> int:
    """Write the tables into the documents, or with --check report whether they are up to date."""
    old = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = path.read_text(encoding="utf-8")
        new = filled(text, path.relative_to(ROOT).parent.as_posix())
        if new != text and "--check" in sys.argv[1:]:
            print(f"{path.name}: tables differ from results/; run `make tables`", file=sys.stderr)
        elif new != text:
            path.write_text(new, encoding="utf-8")
        old.append(new != text)
    return int("--check" in sys.argv[1:] and any(old))


if __name__ == "__main__":
    raise SystemExit(main())
