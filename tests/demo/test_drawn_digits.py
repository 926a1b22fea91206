"""Digits over photos: normalisation in closed form, and answers compared with those for each image alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mutualign.data.datasets.mnistm import blend
from mutualign.demo.digits import CUTS, DigitBench, normalise_digit, over, photo_patches


def box(top: int, left: int, height: int, width: int, ink: int = 255, paper: int = 0) -> torch.Tensor:
    drawing = torch.full((280, 280), paper, dtype=torch.uint8)
    drawing[top : top + height, left : left + width] = ink
    return drawing


@pytest.fixture(scope="module")
def bench(digits):
    return DigitBench(digits)


@pytest.mark.parametrize(
    ("top", "left", "ink", "paper"), [(90, 115, 255, 0), (1, 1, 0, 255), (179, 229, 140, 40), (90, 115, 60, 200)]
)
def test_a_drawn_box_becomes_twenty_pixels_high_and_central_wherever_it_was_drawn(top, left, ink, paper):
    digit = normalise_digit(box(top, left, 100, 50, ink, paper), 28, 28)
    expected = torch.zeros(28, 28, 1, dtype=torch.uint8)
    expected[4:24, 9:19] = 255
    assert torch.equal(digit, expected)


def test_a_wide_drawing_is_limited_by_its_width_and_other_sizes_have_the_same_share():
    digit = normalise_digit(box(100, 40, 50, 200), 56, 84)
    rows, columns = (digit[..., 0].amax(axis).nonzero().flatten() for axis in (1, 0))
    assert (len(rows), len(columns)) == (15, 60)  # 60 is 20/28 of 84, and 15 a quarter of it


def test_the_centre_of_mass_of_a_drawing_becomes_the_centre_of_the_image():
    digit = normalise_digit(box(40, 40, 200, 60) + box(180, 100, 60, 80), 28, 28)[..., 0].double()  # an L
    for axis in (0, 1):
        centre = sum(position * float(line.sum()) for position, line in enumerate(digit.unbind(axis))) / digit.sum()
        assert abs(float(centre) - 13.5) <= 0.5


def test_faint_texture_of_paper_is_not_ink_and_an_empty_drawing_is_no_digit():
    paper = box(90, 115, 100, 50, ink=10, paper=220)
    paper[::7, ::5] -= 9
    assert normalise_digit(paper, 28, 28)[:4].max() == 0
    assert normalise_digit(box(0, 0, 0, 0, paper=131), 28, 28) is None


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
    exact = [number for number, cut in enumerate(CUTS) if cut.side == 28]
    assert len(exact) >= 2
    for number in exact:
        photo, top, left, _ = CUTS[number]
        assert np.array_equal(patches[number].numpy(), photos[photo][top : top + 28, left : left + 28])
    assert len({patch.numpy().tobytes() for patch in patches}) == 12
    assert all(cut.top + cut.side <= 427 and cut.left + cut.side <= 640 for cut in CUTS)


def test_a_digit_is_placed_over_every_patch_and_answers_are_those_of_each_image_alone(bench):
    digit = bench.examples[0]
    verdicts, squares = bench.place(digit, 3, 0.7)
    for index, system in enumerate(bench.gallery.systems):
        black = system.probabilities(digit.expand(-1, -1, 3)[None])[0].argmax()
        kept = 0
        for patch, square in zip(bench.patches, squares, strict=True):
            found = system.probabilities(over(digit, patch[None], 0.7))[0]
            kept += int(found.argmax() == black)
            assert square.answers[index] == (str(int(found.argmax())), bool(found.argmax() == black))
        assert (verdicts[index].right, verdicts[index].of) == (kept, 12)
        assert verdicts[index].expected == str(int(black))
    for verdict, alone in zip(verdicts, bench.gallery.look(over(digit, bench.patches[3:4], 0.7)), strict=True):
        assert verdict.answer == alone.answer
        assert verdict.probability == pytest.approx(alone.probability, abs=0.02)  # bf16


def test_the_page_opens_where_the_last_system_keeps_its_answer_most_beyond_the_first(bench):
    margins = []
    for digit in bench.examples:
        first, last = bench.place(digit, 0, 1.0)[0]
        margins.append(last.right - first.right)
    example, patch = bench.opening()
    assert margins[example] == max(margins)
    assert 0 <= patch < 12


def test_examples_are_of_different_predicted_classes(bench):
    found = torch.stack([system.probabilities(bench.examples) for system in bench.gallery.systems]).mean(0).argmax(1)
    assert 1 <= len(found) == len(set(found.tolist())) <= 10
