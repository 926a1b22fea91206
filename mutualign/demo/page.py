"""The demo's page in Gradio: its parts, and what each click, stroke and upload does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.resources import files
from typing import Any, NamedTuple

import gradio as gr
import jinja2
from jaxtyping import UInt8
from markupsafe import Markup, escape
from torch import Tensor

from mutualign.data.pictures import PIXELATED, to_data_url
from mutualign.demo.digits import DigitBench, Square, normalise_digit
from mutualign.demo.images import LARGEST_UPLOAD, decode_digit, decode_upload, from_data_url
from mutualign.demo.systems import Gallery, Verdict
from mutualign.demo.uploads import Uploads
from mutualign.errors import MutualignError
from mutualign.io.numbers import percent

FAILED = "That did not work. The terminal in which the demo runs says more."
TEMPLATES = files("mutualign.demo") / "templates"
SAMPLES = 24  # real images of each domain on the page
THUMBNAIL, SHOWN = 96, 320  # pixels of the longer side

log = logging.getLogger(__name__)
Answers = tuple[Any, ...]  # the results and what else the page shows or keeps, after a note from `answering`
Share = float | int  # of the photo; the slider sends an integer at its ends


class Drawing(NamedTuple):
    """What the box holds: a digit, or None if it is empty, and its number; the page numbers what it sends."""

    digit: UInt8[Tensor, "height width 1"] | None
    turn: int = 0


def answering(handler: Callable[..., Answers]) -> Callable[..., Answers]:
    """Put a note before what a handler returns: the number of what is answered, and the handler's error if it fails.

    After an error, everything else on the page stays as it is.
    """

    @wraps(handler)
    def guarded(page: Page, *arguments: Any) -> Answers:
        turn = next((_turn(each) for each in arguments if isinstance(each, gr.EventData)), 0)
        try:
            return str(page.parts.note("", turn)), *handler(page, *arguments)
        except MutualignError as error:
            text = str(error)
        except Exception:
            log.exception("the demo failed")
            text = FAILED
        return str(page.parts.note(text, turn)), *[gr.skip()] * (page.outputs[handler.__name__] - 1)

    return guarded


class Page:
    """The page over a gallery. What a browser sends is checked here, and none of it names a file."""

    outputs = {  # noqa: RUF012
        "pick_example": 4, "draw": 4, "pick_patch": 4, "slide": 3,
        "pick_sample": 3, "show_sample": 2, "upload": 3, "name_upload": 3, "show_upload": 2,
    }  # fmt: skip

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self.bench = DigitBench(gallery) if gallery.is_of_digits else None
        loader = jinja2.PackageLoader("mutualign.demo", "templates")
        environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        environment.globals["percent"] = percent
        environment.filters["breakable"] = lambda text: escape(text).replace("_", Markup("_<wbr>"))
        self.parts: Any = environment.get_template("demo.html").module

    # What visitors do -------------------------------------------------------------------------------------------------

    @answering
    def pick_example(self, patch: int, photo: Share, event: gr.EventData) -> Answers:
        digit = self.digits.examples[_number(event, "pick", len(self.digits.examples))]
        drawing = Drawing(digit, _turn(event))
        return *self.place(drawing, patch, photo), drawing

    @answering
    def draw(self, patch: int, photo: Share, event: gr.EventData) -> Answers:
        shown = decode_digit(from_data_url(_sent(event, "image")))
        digit = normalise_digit(shown, self.gallery.shape.height, self.gallery.shape.width)
        drawing = Drawing(digit, _turn(event))
        return *self.place(drawing, patch, photo), drawing

    @answering
    def pick_patch(self, drawing: Drawing, photo: Share, event: gr.EventData) -> Answers:
        patch = _number(event, "pick", len(self.digits.patches))
        return *self.place(drawing, patch, photo), patch

    @answering
    def slide(self, drawing: Drawing, patch: int, photo: Share) -> Answers:
        return self.place(drawing, patch, photo)

    @answering
    def pick_sample(self, event: gr.EventData) -> Answers:
        group = _number(event, "group", len(self.gallery.samples))
        chosen = group, _number(event, "pick", min(SAMPLES, len(self.gallery.samples[group].pixels)))
        return self.look_at_sample(*chosen), chosen

    @answering
    def show_sample(self, chosen: tuple[int, int]) -> Answers:
        return (self.look_at_sample(*chosen),)

    @answering
    def upload(self, uploads: Uploads, event: gr.EventData) -> Answers:
        image = decode_upload(from_data_url(_sent(event, "image")), self.gallery.shape)
        uploads = uploads.add(image, self.gallery, _turn(event))
        return self.look_at_upload(uploads), uploads

    @answering
    def name_upload(self, uploads: Uploads, event: gr.EventData) -> Answers:
        names = (None, *self.gallery.class_names)
        uploads = uploads.name(names[_number(event, "label", len(names))])
        return self.look_at_upload(uploads), uploads

    @answering
    def show_upload(self, uploads: Uploads) -> Answers:
        return (self.look_at_upload(uploads),)

    # What the page shows ----------------------------------------------------------------------------------------------

    @property
    def digits(self) -> DigitBench:
        """The digits, on a page that has them. Raises MutualignError for requests that other pages never send."""
        if self.bench is None:
            raise MutualignError("This page has no digits.")
        return self.bench

    def place(self, drawing: Drawing, patch: int, photo: Share) -> tuple[str, str]:
        """Return the results and the patches for a digit over a patch."""
        digit, turn = drawing
        if digit is None:
            empty = self.parts.empty("Draw a digit in the box, or pick one.", turn)
            return str(empty), self.patches(self.digits.without_digit(float(photo)), patch, turn)
        verdicts, squares = self.digits.place(digit, patch, float(photo))
        shown = self.results(squares[patch].pixels, "the digit over the photo", verdicts, "digit", turn)
        return shown, self.patches(squares, patch, turn)

    def look_at_sample(self, group: int, number: int) -> str:
        """Return the results for a real image."""
        samples = self.gallery.samples[group]
        verdicts = self.gallery.look_at_sample(group, number)
        return self.results(samples.pixels[number], f"{samples.domain} image {number + 1}", verdicts, samples.domain)

    def look_at_upload(self, uploads: Uploads) -> str:
        """Return the results for the visitor's last image."""
        if uploads.pixels is None:
            return str(self.parts.empty("Choose an image of your own, to see what the systems answer."))
        return self.results(uploads.pixels[0], "your image", uploads.verdicts(self.gallery), "of your")

    def results(
        self,
        image: UInt8[Tensor, "height width _"],
        caption: str,
        verdicts: Sequence[Verdict],
        kind: str,
        turn: int | None = None,
    ) -> str:
        """Return the answers for an image: a digit, of the source, of the target, or one of the visitor's.

        `turn` is the number of the drawing that is answered.
        """
        small = max(image.shape[:2]) <= PIXELATED
        return str(self.parts.results(to_data_url(image, SHOWN), caption, verdicts, kind, small, turn))

    def patches(self, squares: Sequence[Square], chosen: int, turn: int) -> str:
        """Return the photo patches with the digit on them, and the systems' answers."""
        shown = [(_thumbnail(square.pixels), square.answers) for square in squares]
        return str(self.parts.patches(shown, chosen, [system.name for system in self.gallery.systems], turn))

    def samples(self, chosen: tuple[int, int]) -> str:
        """Return the real images to pick from, with their classes and which systems are right, if that is known."""
        groups = []
        for number, each in enumerate(self.gallery.samples):
            looks = [self.gallery.look_at_sample(number, row) for row in range(min(SAMPLES, len(each.pixels)))]
            groups.append((each.domain, list(zip(map(_thumbnail, each.pixels[:SAMPLES]), looks, strict=False))))
        return str(self.parts.samples(groups, chosen, max(self.gallery.shape[1:]) <= PIXELATED))

    # How it is laid out -----------------------------------------------------------------------------------------------

    def blocks(self) -> gr.Blocks:
        """Build the page. It opens with an image and the systems' answers in place."""
        blocks = gr.Blocks(title="mutualign demo", analytics_enabled=False, fill_width=True)
        opening = self.gallery.opening(SAMPLES)
        with blocks:
            several = len(self.gallery.systems) > 1
            _html(self.parts.header(self.bench is not None, several), "masthead")
            with gr.Row(elem_id="bench", equal_height=False):
                with gr.Column(scale=1, min_width=320):
                    tabs = gr.Tabs()
                with gr.Column(scale=1, min_width=320):
                    note, results = _html("", "note"), _html("", "results")
            with tabs:
                if self.bench is not None:
                    with gr.Tab("Draw a digit") as tab:
                        results.value = self._digit_tab(tab, note, results)
                else:
                    results.value = self.look_at_sample(*opening)
                with gr.Tab("Real images") as real:
                    chosen = gr.State(opening)
                    samples = _html(self.samples(opening), "samples", acts=True)
                with gr.Tab("Your image") as yours:
                    uploads = gr.State(Uploads())
                    own = _html(self._upload_part(), "own", acts=True)
            _on(samples.select, self.pick_sample, [], [note, results, chosen])
            _on(real.select, self.show_sample, [chosen], [note, results])
            _on(own.input, self.upload, [uploads], [note, results, uploads])
            _on(own.select, self.name_upload, [uploads], [note, results, uploads])
            _on(yours.select, self.show_upload, [uploads], [note, results])
        return blocks

    def _digit_tab(self, tab: gr.Tab, note: gr.HTML, results: gr.HTML) -> str:
        """Fill the tab, and return the results that the page opens with."""
        example, chosen = self.digits.opening()
        first = Drawing(self.digits.examples[example])
        opening, squares = self.place(first, chosen, 1.0)
        drawing, patch = gr.State(first), gr.State(chosen)
        examples = list(map(_thumbnail, self.digits.examples))
        pad = _html(self.parts.pad(examples, example, LARGEST_UPLOAD), "pad", acts=True)
        label = "Photo: 0 is the digit on black, 1 the full blend"
        photo = gr.Slider(0, 1, 1, step=0.05, label=label, elem_id="photo", buttons=[])
        patches = _html(squares, "patches", acts=True)
        shown: list[Any] = [note, results, patches]
        _on(pad.select, self.pick_example, [patch, photo], [*shown, drawing])
        _on(pad.input, self.draw, [patch, photo], [*shown, drawing])
        _on(patches.select, self.pick_patch, [drawing, photo], [*shown, patch])
        for event in (photo.input, tab.select):
            _on(event, self.slide, [drawing, patch, photo], shown)
        return opening

    def _upload_part(self) -> Markup:
        _, height, width = self.gallery.shape
        part: Markup = self.parts.upload(height, width, self.gallery.class_names, LARGEST_UPLOAD)
        return part


def _html(value: object, name: str, acts: bool = False) -> gr.HTML:
    """Make a part of the page; with `acts`, it reports what visitors do in it."""
    script = (TEMPLATES / "demo.js").read_text(encoding="utf-8") if acts else None
    return gr.HTML(str(value), elem_id=name, apply_default_css=False, js_on_load=script)


def _on(event: Callable[..., Any], handler: Callable[..., Answers], inputs: list[Any], outputs: list[Any]) -> None:
    """Let a handler answer an event, one at a time and the last one always; it is no endpoint for other programs."""
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


def _thumbnail(image: UInt8[Tensor, "height width _"]) -> str:
    return to_data_url(image, THUMBNAIL)


def _sent(event: gr.EventData, name: str) -> object:
    """Return a field of what a browser sent, or None."""
    return event._data.get(name) if isinstance(event._data, dict) else None


def _number(event: gr.EventData, name: str, length: int) -> int:
    """Return an index that a browser sent. Raises MutualignError for anything else."""
    number = _sent(event, name)
    if not isinstance(number, int) or not 0 <= number < length:
        raise MutualignError("There is no such image; reload the page.")
    return number


def _turn(event: gr.EventData) -> int:
    """Return the page's number of what a visitor did; 0 if there is none."""
    turn = _sent(event, "turn")
    return turn if type(turn) is int and 0 <= turn < 2**53 else 0
