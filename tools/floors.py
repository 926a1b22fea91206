"""Draw the floors of the package as docs/images/floors.svg from the list in tests/test_architecture.py.

Run it from the root of the repository: `python -m tools.floors`.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from tests.test_architecture import FLOORS

PATH = Path(__file__).parents[1] / "docs" / "images" / "floors.svg"
WIDTH, HEIGHT, GAP, MARGIN = 760, 40, 6, 10
STYLE = """\
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .name { font: bold 14px ui-monospace, monospace }
  rect { fill: #ddeeff; stroke: #6699cc }
  path { stroke: #57606a; stroke-width: 1.5; fill: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    rect { fill: #16324f; stroke: #4477aa }
    path { stroke: #9198a1 }
  }"""


def drawing() -> str:
    """Return the picture: one row per floor, the highest first, and an arrow in the direction of imports."""
    rows = []
    top = MARGIN
    for rooms in reversed(FLOORS):
        height = HEIGHT if len(rooms) == 1 else HEIGHT + 16
        width = (WIDTH - GAP * (len(rooms) - 1)) / len(rooms)
        for number, (room, content) in enumerate(rooms.items()):
            left = MARGIN + number * (width + GAP)
            name = f'<text class="name" x="{left + 12:g}" y="{top + 25}">{escape(room)}</text>'
            across = left + 12 if len(rooms) > 1 else left + 130
            down = top + 45 if len(rooms) > 1 else top + 25
            rows += [
                f'<rect x="{left:g}" y="{top}" width="{width:g}" height="{height}" rx="5"/>',
                name,
                f'<text x="{across:g}" y="{down}">{escape(content)}</text>',
            ]
        top += height + GAP
    x, bottom = WIDTH + MARGIN + 24, top - GAP
    rows += [
        f'<path d="M{x} {MARGIN + 4} V{bottom - 4} m-6 -9 l6 9 l6 -9"/>',
        f'<text x="{x + 18}" y="{(MARGIN + bottom) / 2:g}" writing-mode="tb" text-anchor="middle">imports</text>',
    ]
    size = f"0 0 {WIDTH + 2 * MARGIN + 50} {bottom + MARGIN}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" role="img">',
        "<title>The floors of mutualign: a folder imports only from its own floor or below</title>",
        f"<style>\n{STYLE}\n</style>",
        *rows,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the picture."""
    PATH.write_text(drawing(), encoding="utf-8")


if __name__ == "__main__":
    main()
