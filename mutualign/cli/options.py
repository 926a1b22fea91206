"""What several commands share: options, and the answer to Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import tyro

from mutualign.data.folders.own_images import FolderTask
from mutualign.errors import MutualignError
from mutualign.training.loop import Stopped

ALARMED = 3  # the exit status of --strict where an alarm was raised
DataOption = Path | None
SetOption = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")]


@dataclass(frozen=True)
class OwnImagesOptions:
    """Your own images instead of a task."""

    source: Path | None = None
    """Your own labelled images: a folder with a folder a class, or a .csv or .parquet table with the
    columns path and label."""
    target: Path | None = None
    """Images without labels: a folder, flat or nested, or a table with the column path."""
    source_test: Path | None = None
    """Labelled source images to measure source accuracy on. Default: a tenth of each class is held out."""
    target_test: Path | None = None
    """Labelled target images, for the evaluation only."""
    image_size: int | None = None
    """Side of the square that your images are brought to. Default: the median shorter side, 224 at most."""
    on_bad_image: Literal["skip", "fail"] = "skip"
    """What to do with images that cannot be read: leave out up to 1 % of them, or stop."""

    def images(self) -> FolderTask | None:
        """What the options name; None if they name nothing. Raises MutualignError for half of it."""
        if self.source is not None and self.target is not None:
            return FolderTask(
                self.source, self.target, self.source_test, self.target_test, self.image_size, self.on_bad_image
            )
        if any((self.source, self.target, self.source_test, self.target_test, self.image_size)):
            raise MutualignError("own images need both --source and --target\n  do       give both, or --task alone")
        return None


OwnOption = Annotated[OwnImagesOptions, tyro.conf.OmitArgPrefixes]


class StopSignal:
    """Ctrl-C and SIGTERM ask the training to stop after the step; the second one stops at once."""

    def __init__(self, first: bool = True) -> None:
        self.first = first  # of several processes, the first one tells how it ended
        self.received: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def __call__(self) -> bool:
        return self.received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = number

    @contextmanager
    def leaving(self, command: str) -> Iterator[None]:
        """Around training: when it was stopped, say how to go on, and exit with 128 + the signal's number."""
        try:
            yield
        except Stopped:
            if not self.first:
                raise SystemExit(0) from None
            print(f"mutualign: stopped, and saved where it was; go on with: {command}", file=sys.stderr)
            raise SystemExit(128 + (self.received or signal.SIGINT)) from None
