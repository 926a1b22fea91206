"""Figures hold what went into them."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from mutualign.report.class_plots import STRIP, class_shares, confidence_histograms, shares_by_class
from mutualign.report.comparison_plots import recipe_curves, score_against_accuracy
from mutualign.report.embedding import embed
from mutualign.report.epoch_plots import Stages, accuracy_curves, gradient_norms, score_curve, shares_by_epoch
from mutualign.report.figure_style import BLUE, NAMED, ORANGE, PALETTE, TEXT, shorten, to_png, to_svg
from mutualign.report.output_plots import (
    STRONGEST,
    confusion_matrix,
    embedding_by_class,
    embedding_by_domain,
    reliability_diagram,
)
from mutualign.report.output_sections import calibration_error
from mutualign.report.page import Gallery, Page, Section
from tests.report.test_browser import contrast

STAGES = Stages([2, 1], ["1: dann", "2: mani"], selected=2)


def lines(figure, axis=0) -> dict[str, tuple[list, list]]:
    return {line.get_label(): tuple(map(list, line.get_data())) for line in figure.axes[axis].lines}


def vertical(figure, axis=0) -> list[float]:
    return [x[0] for x, y in lines(figure, axis).values() if list(x) == [x[0], x[0]] and list(y) == [0, 1]]


def test_curves_hold_accuracies_score_the_border_of_stages_and_the_selected_epoch():
    accuracy = accuracy_curves({"target": [0.5, 0.7, 0.6], "source": [0.9, 0.95, 0.97]}, STAGES)
    score = score_curve([1.0, 3.0, 2.0], "some score", STAGES)
    assert lines(accuracy)["target accuracy"] == ([1, 2, 3], [0.5, 0.7, 0.6])
    assert lines(accuracy)["source accuracy"] == ([1, 2, 3], [0.9, 0.95, 0.97])
    assert lines(score)["some score"] == ([1, 2, 3], [1.0, 3.0, 2.0])
    assert lines(score)["selected epoch"] == ([2], [3.0])
    assert vertical(accuracy) == vertical(score) == [2.5, 2]


def test_a_curve_has_a_gap_where_nothing_was_measured():
    drawn = lines(shares_by_epoch({"coverage": [None, 0.5, 0.7]}, STAGES))["coverage"][1]
    assert np.isnan(drawn[0])
    assert drawn[1:] == [0.5, 0.7]


def test_a_dead_gradient_lies_on_the_lower_edge_and_below_all_others():
    figure = gradient_norms({"class": [1e-1, 1e-2, 1e-3], "mi": [0.0, 0.0, None]}, STAGES)
    axis, floor = figure.axes[0], lines(figure)["mi"][1][0]
    assert axis.get_yscale() == "log"
    assert floor == axis.get_ylim()[0] == pytest.approx(1e-4)
    assert lines(figure)["class"][1] == [1e-1, 1e-2, 1e-3]


def test_class_shares_are_bars_and_marks_of_named_classes():
    figure = class_shares({"source": [0.1, 0.2, 0.7], "predicted": [0.3, 0.3, 0.4]}, ["a", "b", "c"])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.1, 0.2, 0.7]
    assert lines(figure)["predicted"] == ([0.3, 0.3, 0.4], [0, 1, 2])
    assert rows(figure) == ["a", "b", "c"]


def test_of_many_classes_those_that_differ_most_are_shown_by_name():
    names, prior, predicted = [f"name{k}" for k in range(40)], [1 / 40] * 40, [1 / 40] * 40
    predicted[37], predicted[3] = 0.04, 0.01
    shares = class_shares({"source": prior, "predicted": predicted}, names)
    heatmap = shares_by_class([prior, predicted], prior, names, STAGES)
    expected = [*names[: NAMED - 1], "name37"]
    assert rows(shares) == rows(heatmap) == expected


def rows(figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_a_strip_rises_in_orange_above_the_prior_sinks_in_blue_below_it_and_is_flat_at_it():
    figure = shares_by_class([[0.5, 0.5, 0.0], [0.75, 0.125, 0.125]], [0.5, 0.25, 0.25], ["a", "b", "c"], STAGES)
    strips = figure.axes[0].patches
    assert [to_hex(strip.get_facecolor()) for strip in strips] == [ORANGE, BLUE] * 3
    heights = [(strip.get_data().baseline - strip.get_data().values) / STRIP for strip in strips]  # y points down
    expected = [[0, 0.5], [0, 0], [1, 0], [0, -0.5], [0, 0], [-1, -0.5]]
    assert np.allclose(heights, expected)
    assert [strip.get_data().baseline for strip in strips] == [0, 0, 1, 1, 2, 2]


def test_a_confidence_histogram_has_a_bar_a_bin():
    figure = confidence_histograms({"selected": [0.25, 0.75], "first": [0.5, 0.5]})
    assert [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in figure.axes[0].patches[:2]] == [
        (0, 0.5, 0.25),
        (0.5, 0.5, 0.75),
    ]


def test_the_confusion_matrix_counts_in_its_cells_and_is_coloured_by_shares_of_rows():
    figure = confusion_matrix(np.array([[8, 2], [0, 5]]), ["a", "b"])
    axis = figure.axes[0]
    assert {tuple(text.get_position()): text.get_text() for text in axis.texts} == {
        (0, 0): "8",
        (1, 0): "2",
        (1, 1): "5",
    }
    cells = np.asarray(axis.collections[0].get_array())
    assert cells[..., 3].ravel() == pytest.approx(STRONGEST * np.array([0.8, 0.2, 0.0, 1.0]))
    assert [to_hex(cell) for cell in cells.reshape(4, 4)] == [BLUE, ORANGE, ORANGE, BLUE]
    assert axis.yaxis_inverted()


def test_of_many_classes_the_area_of_a_square_is_the_share_of_its_row():
    counts = 4 * np.eye(25, dtype=int)
    counts[3, 3], counts[3, 7] = 3, 1
    axis = confusion_matrix(counts, [f"name{k}" for k in range(25)]).axes[0]
    right, wrong = axis.collections
    assert (to_hex(right.get_facecolor()[0]), to_hex(wrong.get_facecolor()[0])) == (BLUE, ORANGE)
    boxes = [[path.get_extents() for path in part.get_paths()] for part in (right, wrong)]
    assert [box.width * box.height for box in boxes[0]] == pytest.approx([1, 1, 1, 0.75, *[1] * 21])
    (error,) = boxes[1]
    assert (error.width, error.height) == pytest.approx((0.5, 0.5))
    assert ((error.x0 + error.x1) / 2, (error.y0 + error.y1) / 2) == pytest.approx((7, 3))
    assert rows(axis.figure)[24] == "name24"
    assert [label.get_text() for label in axis.get_xticklabels()] == []  # they would overlap


def test_the_reliability_diagram_leaves_out_empty_bins():
    reliability = np.array([[0.0, 0.0, 0.0], [4.0, 0.7, 0.5]])
    figure = reliability_diagram(reliability)
    assert lines(figure)["accuracy"] == ([0.7], [0.5])
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0, 4]


def test_embeddings_show_every_point_once_by_domain_and_by_class():
    points = np.arange(12.0).reshape(6, 2)
    points[4] = 0, 11
    is_source, labels = np.array([True] * 3 + [False] * 3), np.array([0, 1, 0, 1, 0, 1])
    source, target = figure_points(embedding_by_domain(points, is_source))
    assert source.tolist() == points[:3].tolist()
    assert target.tolist() == points[3:].tolist()
    figure = embedding_by_class(points, is_source, labels, ["a", "b"])
    drawn = [part.tolist() for part in figure_points(figure)]
    assert drawn == [points[[0, 2]].tolist(), points[[4]].tolist(), points[[1]].tolist(), points[[3, 5]].tolist()]
    names = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert names == {"a": (0, 11), "b": (8, 9)}  # b is between the two target images of its class


def figure_points(figure) -> list[np.ndarray]:
    return [np.asarray(part.get_offsets()) for part in figure.axes[0].collections]


def test_recipes_have_a_colour_and_a_line_a_seed():
    figure = recipe_curves({"one": [[(1.0, 0.5), (2.0, 0.6)], [(1.0, 0.4), (2.0, 0.7)]], "two": [[(0.0, 0.9)]]}, "y")
    drawn = figure.axes[0].lines
    assert [line.get_ydata().tolist() for line in drawn] == [[0.5, 0.6], [0.4, 0.7], [0.9]]
    assert drawn[2].get_xdata()[0] > 0  # the axis is logarithmic
    assert drawn[0].get_color() == drawn[1].get_color() != drawn[2].get_color()


def test_a_score_lies_against_the_accuracy_of_its_epoch():
    figure = score_against_accuracy({"one": [(1.0, 0.5), (2.0, 0.6)], "two": [(3.0, 0.9)]}, "some score")
    assert lines(figure) == {"one": ([1, 2], [0.5, 0.6]), "two": ([3], [0.9])}
    assert figure.axes[0].get_xlabel() == "some score"


def test_t_sne_keeps_two_far_clusters_apart_and_gives_the_same_twice():
    generator = np.random.default_rng(0)
    features = np.concatenate([generator.normal(size=(30, 8)), generator.normal(size=(30, 8)) + 20]).astype(np.float32)
    points = embed(features)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert ((distances.argmin(1) < 30) == (np.arange(60) < 30)).all()
    assert (embed(features) == points).all()


@pytest.mark.parametrize("features", [np.ones((20, 4)), np.full((20, 4), np.nan), np.eye(5)])
def test_there_is_no_picture_of_features_that_are_alike_not_finite_or_few(features):
    assert embed(features.astype(np.float32)) is None


def test_an_svg_has_the_inks_of_the_page_its_own_ids_and_escaped_words():
    figure = class_shares({"<b>": [0.5, 0.5]}, ["<i>", "文字"])
    svg = to_svg(figure, "one", 'a "label"')
    assert 'aria-label="a &quot;label&quot;"' in svg
    assert TEXT not in svg
    assert "currentColor" in svg
    assert "http" not in svg.replace("http://www.w3.org/", "")
    assert "<i>" not in svg
    assert "<b>" not in svg
    assert all(part.startswith("one-") for part in svg.split(' id="')[1:])
    assert svg == to_svg(figure, "one", 'a "label"')
    assert to_png(figure)[:4] == b"\x89PNG"


def test_a_long_name_is_cut_and_what_cannot_be_printed_is_replaced():
    assert shorten("a" * 30, 5) == "aaaa…"
    assert shorten("a\nb") == "a\N{REPLACEMENT CHARACTER}b"


def test_every_colour_of_a_figure_has_a_contrast_of_three_to_one_to_both_pages():
    css = (files("mutualign.report") / "templates" / "style.css").read_text(encoding="utf-8")
    papers = re.findall(r"--page: (#\w{6})", css)
    assert len(papers) == 2
    for colour in PALETTE:
        for paper in papers:
            assert contrast(*(str([round(255 * x) for x in to_rgb(one)]) for one in (colour, paper))) >= 3


def test_names_of_classes_do_not_cover_each_other_in_an_embedding():
    points, labels = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 6
    figure = embedding_by_class(points, np.arange(60) < 0, labels, ["some class"] * 6)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_galleries_of_large_noisy_photos_stay_small_and_smooth():
    photos = np.random.default_rng(0).integers(256, size=(120, 224, 224, 3)).astype(np.uint8)
    gallery = Gallery("g", "G", "c", photos)
    assert len(Page("t", "w", "s", [], [Section("samples", "Samples", [gallery])], False).html()) < 5e6
    assert not gallery.pixelated
    assert Gallery("g", "G", "c", photos[:, :28, :28]).pixelated


def test_the_calibration_error_is_the_mean_gap_weighted_by_images():
    reliability = np.array([[0.0, 0.0, 0.0], [30.0, 0.6, 0.5], [10.0, 0.9, 0.6]])
    assert calibration_error(reliability) == pytest.approx((30 * 0.1 + 10 * 0.3) / 40)
