"""The demo's page in Gradio: what stands where, and what each click, stroke and upload does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property, wraps
from importlib.resources import files
from typing import Any

import gradio as gr
import jinja2
from jaxtyping import UInt8
from torch import Tensor

from mutualign.demo.images import CUTS, from_data_url, normalised, uploaded, uploaded_digit
from mutualign.demo.systems import Gallery, Square, Verdict
from mutualign.errors import MutualignError
from mutualign.report.pictures import data_uri

FAILED = "That did not work. The terminal in which the demo runs says more."
TEMPLATES = files("mutualign.report") / "templates"
SEEN = "what the systems see"
SAMPLES = 24  # real images of each domain

log = logging.getLogger(__name__)
Answers = tuple[Any, ...]  # a note, the results, and what else the page shows or keeps
Digit = UInt8[Tensor, "height width 1"]
Share = float | int  # of the photo; the slider gives a whole number at its ends


def answering(handler: Callable[..., Answers]) -> Callable[..., Answers]:
    """A handler whose errors become a note on the page; all else there stays as it is."""

    @wraps(handler)
    def guarded(page: Page, *arguments: Any) -> Answers:
        try:
            return handler(page, *arguments)
        except MutualignError as error:
            text = str(error)
        except Exception:
            log.exception("the demo failed")
            text = FAILED
        return str(page.parts.note(text)), *[gr.skip()] * (page.outputs[handler.__name__] - 1)

    return guarded


class Page:
    """The page over a gallery. What a browser sends is checked here, and nothing of it names a file."""

    outputs = {"pick_example": 4, "draw": 4, "pick_patch": 4, "slide": 3, "pick_sample": 2, "upload": 2}  # noqa: RUF012

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        loader = jinja2.PackageLoader("mutualign.report", "templates")
        environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        environment.globals["percent"] = percent
        self.parts: Any = environment.get_template("demo.html").module

    # What is done on the page -----------------------------------------------------------------------------------------

    @answering
    def pick_example(self, patch: int, photo: Share, event: gr.EventData) -> Answers:
        digit = self.gallery.examples[_number(event, "pick", len(self.gallery.examples))]
        return *self.place(digit, patch, photo), digit

    @answering
    def draw(self, patch: int, photo: Share, event: gr.EventData) -> Answers:
        drawing = uploaded_digit(from_data_url(_sent(event, "image")))
        digit = normalised(drawing, self.gallery.shape.height, self.gallery.shape.width)
        return *self.place(digit, patch, photo), digit

    @answering
    def pick_patch(self, digit: Digit, photo: Share, event: gr.EventData) -> Answers:
        patch = _number(event, "pick", len(self.gallery.patches))
        return *self.place(digit, patch, photo), patch

    @answering
    def slide(self, digit: Digit, patch: int, photo: Share) -> Answers:
        return self.place(digit, patch, photo)

    @answering
    def pick_sample(self, event: gr.EventData) -> Answers:
        title, _, images = self.samples[_number(event, "group", len(self.samples))]
        chosen = _number(event, "pick", len(images))
        return "", self.look(images[chosen : chosen + 1], f"{title.lower().removesuffix('s')} {chosen + 1}")

    @answering
    def upload(self, event: gr.EventData) -> Answers:
        return "", self.look(uploaded(from_data_url(_sent(event, "image")), self.gallery.shape), "your image")

    # What the page shows ----------------------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> list[tuple[str, str, UInt8[Tensor, "n height width _"]]]:
        """Real images to pick: their title, what they are, and they."""
        return [
            ("Target images", "what the systems are meant for", self.gallery.target[:SAMPLES]),
            ("Source images", "the kind that all learned from", self.gallery.source[:SAMPLES]),
        ]

    def place(self, digit: Digit, patch: int, photo: Share) -> tuple[str, str, str]:
        """No note, the results, and the patches, for a digit over a patch."""
        verdicts, squares = self.gallery.place(digit, patch, float(photo))
        return "", self.results(squares[patch].pixels, SEEN, verdicts), self.patches(squares, patch)

    def look(self, image: UInt8[Tensor, "1 height width _"], caption: str) -> str:
        """The results for an image as it is."""
        return self.results(image[0], f"{SEEN}: {caption}", self.gallery.look(image))

    def results(self, image: UInt8[Tensor, "height width _"], caption: str, verdicts: Sequence[Verdict]) -> str:
        return str(self.parts.results(data_uri(image.numpy()), caption, verdicts, len(CUTS)))

    def patches(self, squares: Sequence[Square], chosen: int) -> str:
        shown = [(data_uri(square.pixels.numpy()), square.answers) for square in squares]
        return str(self.parts.patches(shown, chosen, [system.name for system in self.gallery.systems]))

    # What stands where ------------------------------------------------------------------------------------------------

    def blocks(self) -> gr.Blocks:
        """The page, ready to be served. It opens with an image in place, and what the systems say of it."""
        blocks = gr.Blocks(title="mutualign demo", analytics_enabled=False, fill_width=True)
        with blocks:
            _html(self.parts.header(self.gallery.of_digits), "masthead")
            with gr.Row(elem_id="bench", equal_height=False):
                with gr.Column(scale=1, min_width=320):
                    bench = gr.Tabs()
                with gr.Column(scale=1, min_width=320):
                    note, results = _html("", "note"), _html("", "results")
            with bench:
                if self.gallery.of_digits:
                    with gr.Tab("Draw a digit") as tab:
                        results.value = self._digit_tab(tab, note, results)
                else:
                    shown = self.gallery.furthest_apart(targets := self.samples[0][2])
                    results.value = self.look(targets[shown : shown + 1], f"target image {shown + 1}")
                with gr.Tab("Real images"):
                    groups = [(title, what, list(map(_uri, images))) for title, what, images in self.samples]
                    samples = _html(self.parts.samples(groups), "samples", acts=True)
                with gr.Tab("Own image"):
                    own = _html(self.parts.upload(*self.gallery.shape[1:]), "own", acts=True)
            _on(samples.select, self.pick_sample, [], [note, results])
            _on(own.input, self.upload, [], [note, results])
        return blocks

    def _digit_tab(self, tab: gr.Tab, note: gr.HTML, results: gr.HTML) -> str:
        """Fill the tab; gives the results that the page opens with."""
        example, chosen = self.gallery.opening()
        first = self.gallery.examples[example]
        _, opening, squares = self.place(first, chosen, 1.0)
        digit, patch = gr.State(first), gr.State(chosen)
        pad = _html(self.parts.pad(list(map(_uri, self.gallery.examples)), example), "pad", acts=True)
        label = "Photo: 0 is the digit on black, 1 the full blend"
        photo = gr.Slider(0, 1, 1, step=0.05, label=label, elem_id="photo", buttons=[])
        patches = _html(squares, "patches", acts=True)
        shown: list[Any] = [note, results, patches]
        _on(pad.select, self.pick_example, [patch, photo], [*shown, digit])
        _on(pad.input, self.draw, [patch, photo], [*shown, digit])
        _on(patches.select, self.pick_patch, [digit, photo], [*shown, patch])
        for event in (photo.input, tab.select):
            _on(event, self.slide, [digit, patch, photo], shown)
        return opening


def percent(share: float) -> str:
    """A probability for people, such as `97 %`."""
    return f"{100 * share:.0f} %"


def _html(value: object, name: str, acts: bool = False) -> gr.HTML:
    """A piece of the page; one that acts tells the server what is done in it."""
    script = (TEMPLATES / "demo.js").read_text(encoding="utf-8") if acts else None
    return gr.HTML(str(value), elem_id=name, apply_default_css=False, js_on_load=script)


def _on(event: Callable[..., Any], handler: Callable[..., Answers], inputs: list[Any], outputs: list[Any]) -> None:
    """Let a handler answer an event, one at a time, so that the last thing done is the last answered.

    Of what is done over and over while an answer is made, only the last is answered. No endpoint is offered to other
    programs.
    """
    event(
        handler,
        inputs,
        outputs,
        trigger_mode="always_last",
        show_progress="hidden",
        api_visibility="private",
        concurrency_id="systems",
        concurrency_limit=1,
    )


def _uri(image: UInt8[Tensor, "height width _"]) -> str:
    return data_uri(image.numpy())


def _sent(event: gr.EventData, name: str) -> object:
    """A field of what a browser sent, or None."""
    return event._data.get(name) if isinstance(event._data, dict) else None


def _number(event: gr.EventData, name: str, length: int) -> int:
    """An index that a browser sent. Raises MutualignError where it is none."""
    number = _sent(event, name)
    if not isinstance(number, int) or not 0 <= number < length:
        raise MutualignError("There is no such image; load the page anew.")
    return number
