"""Figures hold what went into them."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from mutualign.report.drawing import BLUE, ORANGE, TEXT, shorten, to_png, to_svg
from mutualign.report.embedding import embed
from mutualign.report.evaluation_plots import (
    confusion_matrix,
    embedding_by_class,
    embedding_by_domain,
    reliability_diagram,
)
from mutualign.report.plots import (
    Stages,
    class_shares,
    confidence_histograms,
    gradient_norms,
    learning_curves,
    recipe_curves,
    score_against_accuracy,
    shares_by_epoch,
    shares_heatmap,
)

STAGES = Stages([2, 1], ["1: dann", "2: mani"], chosen=2)


def lines(figure, axis=0) -> dict[str, tuple[list, list]]:
    return {line.get_label(): tuple(map(list, line.get_data())) for line in figure.axes[axis].lines}


def vertical(figure, axis=0) -> list[float]:
    return [x[0] for x, y in lines(figure, axis).values() if list(x) == [x[0], x[0]] and list(y) == [0, 1]]


def test_learning_curves_hold_the_accuracies_the_score_the_border_and_the_chosen_epoch():
    accuracies = {"target": [0.5, 0.7, 0.6], "source": [0.9, 0.95, 0.97]}
    figure = learning_curves(accuracies, [1.0, 3.0, 2.0], "some score", 2, STAGES)
    above, below = lines(figure), lines(figure, 1)
    assert above["target accuracy"] == ([1, 2, 3], [0.5, 0.7, 0.6])
    assert above["source accuracy"] == ([1, 2, 3], [0.9, 0.95, 0.97])
    assert below["some score"] == ([1, 2, 3], [1.0, 3.0, 2.0])
    assert below["epoch chosen by it: 2"] == ([2], [3.0])
    assert vertical(figure) == vertical(figure, 1) == [2.5, 2]


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


@pytest.mark.parametrize("n", [3, 40])
def test_class_shares_are_bars_and_marks(n):
    prior, predicted = list(np.linspace(0.1, 0.2, n)), list(np.linspace(0.2, 0.1, n))
    figure = class_shares({"source": prior, "predicted": predicted}, [str(k) for k in range(n)])
    bars = figure.axes[0].patches
    assert [bar.get_width() if n == 3 else bar.get_height() for bar in bars] == prior
    x, y = lines(figure)["predicted"]
    assert (x if n == 3 else y) == predicted


def test_the_heatmap_is_orange_above_the_prior_blue_below_and_clear_at_it():
    figure = shares_heatmap([[0.5, 0.5, 0.0], [0.75, 0.125, 0.125]], [0.5, 0.25, 0.25], ["a", "b", "c"], STAGES)
    cells = np.asarray(figure.axes[0].collections[0].get_array())
    assert cells[..., 3] == pytest.approx(np.array([[0, 0.5], [1, 0.5], [1, 0.5]]))
    assert [to_hex(cells[k]) for k in ((0, 1), (1, 0), (1, 1), (2, 0))] == [ORANGE, ORANGE, BLUE, BLUE]


def test_a_confidence_histogram_has_a_bar_a_bin():
    figure = confidence_histograms({"chosen": [0.25, 0.75], "first": [0.5, 0.5]})
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
    assert axis.collections[0].get_array()[..., 3].ravel().tolist() == [0.8, 0.2, 0.0, 1.0]
    assert axis.yaxis_inverted()


def test_the_reliability_diagram_leaves_out_empty_bins():
    reliability = np.array([[0.0, 0.0, 0.0], [4.0, 0.7, 0.5]])
    figure = reliability_diagram(reliability)
    assert lines(figure)["accuracy"] == ([0.7], [0.5])
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0, 4]


def test_embeddings_show_every_point_once_by_domain_and_by_class():
    points = np.arange(12.0).reshape(6, 2)
    is_source, labels = np.array([True] * 3 + [False] * 3), np.array([0, 1, 0, 1, 0, 1])
    source, target = figure_points(embedding_by_domain(points, is_source))
    assert source.tolist() == points[:3].tolist()
    assert target.tolist() == points[3:].tolist()
    figure = embedding_by_class(points, is_source, labels, ["a", "b"])
    drawn = [part.tolist() for part in figure_points(figure)]
    assert drawn == [points[[0, 2]].tolist(), points[[4]].tolist(), points[[1]].tolist(), points[[3, 5]].tolist()]
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]
    assert figure.axes[0].texts[1].get_position() == (8.0, 9.0)  # between the two target images of class b


def figure_points(figure) -> list[np.ndarray]:
    return [np.asarray(part.get_offsets()) for part in figure.axes[0].collections]


def test_recipes_have_a_colour_and_a_line_a_seed():
    figure = recipe_curves({"one": [[(1.0, 0.5), (2.0, 0.6)], [(1.0, 0.4), (2.0, 0.7)]], "two": [[(3.0, 0.9)]]})
    drawn = figure.axes[0].lines
    assert [line.get_ydata().tolist() for line in drawn] == [[0.5, 0.6], [0.4, 0.7], [0.9]]
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
