"""The demo without a browser: images in closed form, systems by naive loops, and what it answers to bad input."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import signal
import socket
import struct
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from mutualign.data.datasets.mnistm import blend
from mutualign.data.types import ImageShape
from mutualign.demo import server as demo
from mutualign.demo.images import (
    CUTS,
    MOST_BYTES,
    UNREADABLE,
    from_data_url,
    normalised,
    over,
    photo_patches,
    uploaded,
    uploaded_digit,
    with_channels,
)
from mutualign.demo.systems import Gallery
from mutualign.errors import MutualignError
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from tests.conftest import make_tiny_task
from tests.report.conftest import SHORT


def box(top: int, left: int, height: int, width: int, ink: int = 255, paper: int = 0) -> torch.Tensor:
    drawing = torch.full((280, 280), paper, dtype=torch.uint8)
    drawing[top : top + height, left : left + width] = ink
    return drawing


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def png_header(height: int, width: int) -> bytes:
    """A PNG that says it is of this size, and holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


# Images ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("top", "left"), [(90, 115), (1, 1), (179, 229)])
@pytest.mark.parametrize(("ink", "paper"), [(255, 0), (0, 255), (140, 40), (60, 200)])
def test_a_drawn_box_becomes_twenty_pixels_high_and_central_wherever_and_on_whatever_it_was_drawn(
    top, left, ink, paper
):
    digit = normalised(box(top, left, 100, 50, ink, paper), 28, 28)
    expected = torch.zeros(28, 28, 1, dtype=torch.uint8)
    expected[4:24, 9:19] = 255
    assert torch.equal(digit, expected)


def test_a_wide_drawing_is_limited_by_its_width_and_another_size_has_the_same_share():
    digit = normalised(box(100, 40, 50, 200), 56, 84)
    rows, columns = (digit[..., 0].amax(axis).nonzero().flatten() for axis in (1, 0))
    assert (len(rows), len(columns)) == (15, 60)  # 60 is 20/28 of 84, and 15 a quarter of it


def test_the_centre_of_mass_of_a_drawing_is_put_at_the_centre_of_the_image():
    drawing = box(40, 40, 200, 60) + box(180, 100, 60, 80)  # an L
    digit = normalised(drawing, 28, 28)[..., 0].double()
    for axis in (0, 1):
        centre = sum(position * float(line.sum()) for position, line in enumerate(digit.unbind(axis))) / digit.sum()
        assert abs(float(centre) - 13.5) <= 0.5


def test_faint_paper_texture_is_no_ink():
    paper = box(90, 115, 100, 50, ink=10, paper=220)
    paper[::7, ::5] -= 9
    assert normalised(paper, 28, 28)[:4].max() == 0


@pytest.mark.parametrize("paper", [0, 131, 255])
def test_an_empty_drawing_is_answered_with_what_to_do(paper):
    with pytest.raises(MutualignError, match="draw a digit"):
        normalised(box(0, 0, 0, 0, paper=paper), 28, 28)


def test_the_slider_goes_from_the_plain_digit_to_the_blend_of_mnist_m():
    generator = torch.Generator().manual_seed(0)
    digit = torch.randint(256, (28, 28, 1), generator=generator).to(torch.uint8)
    patches = torch.randint(256, (3, 28, 28, 3), generator=generator).to(torch.uint8)
    assert torch.equal(over(digit, patches, 1.0), blend(patches, digit[None].expand(3, -1, -1, -1)))
    assert torch.equal(over(digit, patches, 0.0), digit[None].expand(3, -1, -1, 3))
    bright = torch.full_like(patches, 200)
    assert torch.equal(over(digit, bright, 0.5)[0, ..., 0], (digit[..., 0].int() - 100).abs().to(torch.uint8))


def test_patches_are_cut_from_the_photos_and_all_differ():
    from sklearn.datasets import load_sample_images

    patches, photos = photo_patches(28, 28), load_sample_images().images
    assert patches.shape == (12, 28, 28, 3)
    exact = [number for number, cut in enumerate(CUTS) if cut.side == 28]
    for number in exact:
        photo, top, left, _ = CUTS[number]
        assert np.array_equal(patches[number].numpy(), photos[photo][top : top + 28, left : left + 28])
    assert len(exact) >= 2
    assert len({patch.numpy().tobytes() for patch in patches}) == 12
    assert all(cut.top + cut.side <= 427 and cut.left + cut.side <= 640 for cut in CUTS)
    assert photo_patches(20, 32).shape == (12, 20, 32, 3)


def test_colour_becomes_grey_by_luma_and_grey_colour_by_repeating():
    primary = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8).view(1, 1, 3, 3)
    assert with_channels(primary, 1).flatten().tolist() == [76, 150, 29]
    assert with_channels(primary[..., :1], 3)[0, 0, 0].tolist() == [255, 255, 255]


# Uploads --------------------------------------------------------------------------------------------------------------


def test_a_data_url_gives_the_bytes_that_are_in_it():
    content = bytes(range(256))
    assert from_data_url(data_url(content)) == content


@pytest.mark.parametrize(
    "sent",
    [
        None,
        7,
        {"path": "/etc/passwd"},
        "/etc/passwd",
        "data:image/png,abc",
        "data:image/png;base64,a*b",
        "x" * 9_000_000,
    ],
    ids=["nothing", "number", "path", "text", "not base64", "bad base64", "too long"],
)
def test_what_is_no_data_url_is_answered_with_a_sentence(sent):
    with pytest.raises(MutualignError) as caught:
        from_data_url(sent)
    assert str(caught.value) == UNREADABLE


def test_a_file_over_the_limit_is_refused_and_one_at_it_is_not():
    assert len(from_data_url(data_url(b"x" * MOST_BYTES))) == MOST_BYTES
    with pytest.raises(MutualignError, match="5 MB"):
        from_data_url(data_url(b"x" * (MOST_BYTES + 200)))


BROKEN = {
    "text": b"hello",
    "truncated": png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[:3000],
    "bomb": png_header(40_000, 40_000),
    "no pixels": png_header(30, 30),
    "empty": b"",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("read", [uploaded_digit, lambda content: uploaded(content, ImageShape(3, 28, 28))])
def test_a_broken_upload_is_answered_with_one_plain_sentence(read, content):
    with pytest.raises(MutualignError) as caught:
        read(content)
    assert str(caught.value) == UNREADABLE


def test_an_upload_is_cut_to_its_middle_and_a_digit_is_kept_whole():
    wide = np.zeros((100, 300), np.uint8)
    wide[:, 100:200] = 255
    assert uploaded(png(wide), ImageShape(1, 28, 28)).float().mean() > 250
    whole = uploaded_digit(png(np.repeat(wide, 4, axis=0).repeat(4, axis=1)))
    assert whole.shape == (93, 280)
    assert whole.float().mean() == pytest.approx(85, abs=3)


# Systems --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gallery(digit_runs):
    return Gallery.load(digit_runs)


def test_source_only_stands_first_whatever_the_order_of_the_runs(gallery, digit_runs):
    assert [(system.name, system.output_model) for system in gallery.systems] == [
        ("source_only", False),
        ("fast", True),
    ]
    assert [system.predictor.run.path for system in gallery.systems] == digit_runs[::-1]
    assert gallery.of_digits


def test_two_runs_of_one_recipe_are_told_apart_by_their_seeds(tiny_runs):
    run = tiny_runs / "tiny" / "mani" / "seed-0"
    assert [system.name for system in Gallery.load([run, run]).systems] == ["mani, seed 0", "mani, seed 0"]
    assert not Gallery.load([run]).of_digits


def test_runs_that_take_other_images_or_classes_are_refused_with_both_named(digit_runs, tiny_runs, tmp_path):
    other = tiny_runs / "tiny" / "mani" / "seed-0"
    with pytest.raises(MutualignError) as caught:
        Gallery.load([digit_runs[0], other])
    assert all(part in str(caught.value) for part in ("28x28", "12x12", str(digit_runs[0]), str(other)))
    task = make_tiny_task()
    task = type(task)(task.name, task.identity, ("a", "b", "c"), *(getattr(task, name) for name in PARTS))
    Experiment.start(load_recipe("source_only", SHORT[::2]), task, 0, tmp_path / "t" / "r" / "seed-0").run()
    with pytest.raises(MutualignError, match="classes") as caught:
        Gallery.load([other, tmp_path / "t" / "r" / "seed-0"])
    assert all(part in str(caught.value) for part in ("left, middle, right", "a, b, c"))


PARTS = ("source_train", "source_test", "target_train", "target_test")


def test_no_run_and_an_incomplete_run_are_refused(tiny_runs):
    with pytest.raises(MutualignError, match="run folders"):
        Gallery.load([])
    with pytest.raises(MutualignError, match="not complete"):
        Gallery.load([tiny_runs / "tiny" / "dann" / "seed-0"])


def test_a_digit_is_placed_over_every_patch_and_answers_are_those_of_each_image_alone(gallery):
    digit = gallery.examples[0]
    verdicts, squares = gallery.place(digit, 3, 0.7)
    for index, system in enumerate(gallery.systems):
        black = system.probabilities(digit.expand(-1, -1, 3)[None])[0].argmax()
        kept = 0
        for patch, square in zip(gallery.patches, squares, strict=True):
            found = system.probabilities(over(digit, patch[None], 0.7))[0]
            kept += int(found.argmax() == black)
            assert square.answers[index] == (str(int(found.argmax())), bool(found.argmax() == black))
        assert verdicts[index].kept == kept
        assert verdicts[index].on_black == str(int(black))
    alone = gallery.look(over(digit, gallery.patches[3:4], 0.7))
    for verdict, other in zip(verdicts, alone, strict=True):
        assert verdict.answer == other.answer
        assert verdict.probability == pytest.approx(other.probability, abs=0.02)  # bf16
        assert sum(share for _, share in verdict.bars) == pytest.approx(1, abs=1e-4)


def test_the_page_opens_where_the_last_system_keeps_its_answer_most_beyond_the_first(gallery):
    margins = []
    for digit in gallery.examples:
        first, last = gallery.place(digit, 0, 1.0)[0]
        margins.append(last.kept - first.kept)
    example, patch = gallery.opening()
    assert margins[example] == max(margins)
    assert 0 <= patch < 12


def test_the_image_at_which_systems_are_furthest_apart_is_found(gallery):
    first, last = (system.probabilities(gallery.target) for system in gallery.systems)
    distances = [
        sum(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in zip(first.tolist(), last.tolist(), strict=True)
    ]
    assert gallery.furthest_apart(gallery.target) == distances.index(max(distances))


def test_examples_are_of_different_classes_and_at_most_ten(gallery):
    said = torch.stack([system.probabilities(gallery.examples) for system in gallery.systems]).mean(0).argmax(1)
    assert 1 <= len(said) == len(set(said.tolist())) <= 10


def test_of_many_classes_the_likeliest_are_shown(gallery):
    names = tuple(f"class {number}" for number in range(40))
    system = replace(gallery.systems[0], predictor=replace(gallery.systems[0].predictor, class_names=names))
    many = replace(gallery, systems=(system,))
    verdict = many._verdict(many.systems[0], torch.arange(40.0) / 780)
    assert [name for name, _ in verdict.bars] == [f"class {number}" for number in range(39, 29, -1)]


# The page -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def closed_loops(monkeypatch):
    """Gradio makes event loops that it does not close; this does it afterwards."""
    made, make = [], asyncio.new_event_loop
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: made.append(make()) or made[-1])
    yield
    for loop in made:
        loop.close()


@pytest.fixture(scope="module")
def page(gallery):
    pytest.importorskip("gradio")
    from mutualign.demo.page import Page

    return Page(gallery)


def sent(data: object) -> object:
    import gradio as gr

    return gr.EventData(None, data)


@pytest.mark.parametrize(
    "data", [None, 3, {}, {"pick": -1}, {"pick": 99}, {"pick": "0"}, {"pick": 0.0}, {"pick": None}]
)
def test_a_forged_pick_gets_a_sentence_and_changes_nothing_else(page, data):
    digit = page.gallery.examples[0]
    for answer in (
        page.pick_example(0, 1.0, sent(data)),
        page.pick_patch(digit, 1.0, sent(data)),
        page.pick_sample(sent(data)),
    ):
        note, *others = answer
        assert "no such image" in note
        assert all(other == {"__type__": "update"} for other in others)


def test_an_unexpected_error_gets_a_generic_sentence_and_goes_to_the_log(page, monkeypatch, caplog):
    monkeypatch.setattr(type(page), "place", lambda *_: 1 / 0)
    note, *others = page.slide(page.gallery.examples[0], 0, 1.0)
    assert "That did not work" in note
    assert "division" not in note
    assert len(others) == 2
    assert "ZeroDivisionError" in caplog.text


def test_every_handler_gives_as_many_answers_as_the_page_takes(page):
    digit, drawing = page.gallery.examples[0], data_url(png(box(90, 115, 100, 50).numpy()))
    answers = {
        "pick_example": page.pick_example(0, 1.0, sent({"pick": 1})),
        "draw": page.draw(0, 1.0, sent({"image": drawing})),
        "pick_patch": page.pick_patch(digit, 1.0, sent({"pick": 5})),
        "slide": page.slide(digit, 0, 1),  # the slider gives a whole number at its ends
        "pick_sample": page.pick_sample(sent({"group": 1, "pick": 2})),
        "upload": page.upload(sent({"image": drawing})),
    }
    assert {name: len(answer) for name, answer in answers.items()} == page.outputs
    assert all(answer[0] == "" and answer[1].count("<article") == 2 for answer in answers.values())
    assert torch.equal(answers["draw"][3], normalised(box(90, 115, 100, 50), 28, 28))
    assert answers["pick_patch"][3] == 5


def test_the_page_of_digits_has_a_box_to_draw_in_and_that_of_other_classes_has_none(page, tiny_runs, closed_loops):
    other = type(page)(Gallery.load([tiny_runs / "tiny" / "mani" / "seed-0"]))
    pieces = [[block.elem_id for block in one.blocks().blocks.values()] for one in (page, other)]
    assert {"pad", "photo", "patches", "samples", "own"} <= set(pieces[0])
    assert {"samples", "own"} <= set(pieces[1])
    assert not {"pad", "photo", "patches"} & set(pieces[1])


def test_names_of_classes_and_systems_are_escaped(page):
    from mutualign.demo.systems import Verdict

    shown = page.results(page.gallery.patches[0], "seen", [Verdict("<b>", True, "<script>", 1.0, [("<script>", 1.0)])])
    assert "<script>" not in shown
    assert "<b>" not in shown


# The command ----------------------------------------------------------------------------------------------------------


def test_without_gradio_the_extra_is_named(monkeypatch, digit_runs):
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "gradio" else importlib.util.find_spec(name))
    with pytest.raises(MutualignError, match=r"pip install 'mutualign\[demo\]'"):
        demo.start(digit_runs)


def test_a_taken_port_is_named(digit_runs):
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind((demo.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MutualignError, match=f"port {port} is taken"):
            demo.start(digit_runs, port)


def test_the_page_is_served_to_this_computer_alone_and_gives_no_file_away(digit_runs, monkeypatch, closed_loops):
    pytest.importorskip("gradio")
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # put back afterwards
    asked, look_up = [], socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **named: asked.append(host) or look_up(host, *rest, **named)
    )
    with socket.socket() as probe:  # Gradio does not close those with which it looks for a free port
        probe.bind((demo.HOST, 0))
        port = probe.getsockname()[1]
    blocks = demo.start(digit_runs, port)
    try:
        assert blocks.server.config.host == "127.0.0.1"
        assert blocks.share_url is None
        assert not blocks.analytics_enabled
        assert "mutualign demo" in requests.get(blocks.local_url, timeout=30).text
        config = digit_runs[0] / "config.toml"
        for place in (f"gradio_api/file={config}", "docs", "openapi.json", "monitoring"):
            assert requests.get(blocks.local_url + place, timeout=30).status_code in (403, 404)
    finally:
        blocks.close(verbose=False)
    assert set(asked) <= {"127.0.0.1", "localhost", b"127.0.0.1"}


@pytest.mark.slow
def test_the_command_says_where_the_page_is_and_ctrl_c_ends_it_cleanly(digit_runs):
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "mutualign", "demo", *map(str, digit_runs), "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        line = running.stdout.readline()
        running.send_signal(signal.SIGINT)
        rest, errors = running.communicate(timeout=60)
    assert line.startswith("http://127.0.0.1:")
    assert (running.returncode, rest, errors) == (0, "", "")
