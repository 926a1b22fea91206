"""The look of the docs' pictures: for light and dark pages, readable on a phone and by colour-blind readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mutualign.report.figure_style import BLUE, GREEN, GREY, ORANGE, STYLE, VERMILLION
from mutualign.report.figure_style import GRID as LIGHT_GRID
from mutualign.report.figure_style import MUTED as LIGHT_MUTED
from mutualign.report.figure_style import TEXT as LIGHT_TEXT

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH = 4.8  # inches; text of 10 points then has 10 pixels on a phone
DPI = 220
COLOURS = {"source_only": GREY, "dann": ORANGE, "mani": BLUE, "fast": GREEN, "best": VERMILLION, "photos": GREEN}
# Text, axes, grid and paper. A dark picture has no paper of its own: it lies on the page.
LIGHT, DARK = (LIGHT_TEXT, LIGHT_MUTED, LIGHT_GRID, "#ffffff"), ("#e8eaef", "#b3bac5", "#3d434f", "none")
SCHEMES = {"": LIGHT, "-dark": DARK}  # by the end of the file's name

PICTURES: dict[str, Callable[[], Figure]] = {}


def picture(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    """Register a function `draw_NAME` whose figure becomes docs/images/NAME.png and NAME-dark.png."""
    PICTURES[draw.__name__.removeprefix("draw_").replace("_", "-")] = draw
    return draw


def style(scheme: str) -> dict[str, Any]:
    """Return matplotlib's settings for a scheme."""
    text, muted, grid, paper = SCHEMES[scheme]
    colours = {"text.color": text, "axes.titlecolor": text, "legend.labelcolor": text, "grid.color": grid}
    colours |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), muted)
    sizes = dict.fromkeys(("axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), 10)
    return {**STYLE, **colours, **sizes, "figure.facecolor": paper, "savefig.facecolor": paper}


def save_picture(name: str, folder: Path | None = None) -> None:
    """Draw a registered picture for both schemes and save both files."""
    folder = folder or IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        with mpl.rc_context(style(scheme)):
            figure = PICTURES[name]()
            path = folder / f"{name}{scheme}.png"
            figure.savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.06, pil_kwargs={"optimize": True})
            plt.close(figure)


def new_figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of the common width, and its axes."""
    return plt.subplots(rows, columns, figsize=(WIDTH, height), layout="constrained", **options)


def bare(axis: Axes) -> None:
    """Remove an axis's frame, ticks and grid."""
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
