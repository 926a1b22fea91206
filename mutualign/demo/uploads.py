"""A visitor's own images: the one that is looked at, and a score over those whose class the visitor has named."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import UInt8
from torch import Tensor

from mutualign.demo.systems import Gallery, Verdict


@dataclass(frozen=True)
class Uploads:
    """The last image, its true class if it was named, and the earlier named ones: (true class, answers of systems)."""

    pixels: UInt8[Tensor, "1 height width stored"] | None = None
    expected: str | None = None
    answers: tuple[str, ...] = ()
    earlier: tuple[tuple[str, tuple[str, ...]], ...] = ()
    turn: int = 0  # the page's number of the last image

    def add(self, pixels: UInt8[Tensor, "1 height width stored"], gallery: Gallery, turn: int) -> Uploads:
        """Return the uploads with a new image, whose class is not named yet; the same ones if they have its number."""
        if turn == self.turn != 0:
            return self  # sent again, as its answer was late
        answers = tuple(verdict.answer for verdict in gallery.look(pixels))
        return Uploads(pixels, None, answers, self._named(), turn)

    def name(self, expected: str | None) -> Uploads:
        """Return the uploads with the true class of the last image, or with none."""
        return replace(self, expected=expected)

    def verdicts(self, gallery: Gallery) -> list[Verdict]:
        """Return what each system answers for the last image, and how many of the named ones it got right."""
        assert self.pixels is not None  # noqa: S101
        named, verdicts = self._named(), []
        for number, verdict in enumerate(gallery.look(self.pixels)):
            right = sum(answers[number] == expected for expected, answers in named)
            verdicts.append(verdict._replace(expected=self.expected, right=right, of=len(named)))
        return verdicts

    def _named(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        if self.pixels is None or self.expected is None:
            return self.earlier
        return (*self.earlier, (self.expected, self.answers))
