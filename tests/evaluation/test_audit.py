"""Facts of an epoch, counted by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import sklearn.ensemble
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mutualign.evaluation import measure
from mutualign.evaluation.alarms import identical_domains
from mutualign.evaluation.audit import Teacher, audit_predictions, class_shares, domain_accuracy
from mutualign.evaluation.measure import Evaluator
from mutualign.training.distributed import make_fabric
from tests.tiny_task import make_tiny_task


def of_two_classes(*chances):
    """Logits of two classes with these probabilities of class 1."""
    return torch.tensor([[0.0, math.log(p / (1 - p))] for p in chances])


def test_predictions_of_student_and_teacher_are_counted_by_hand():
    logits = of_two_classes(0.05, 0.45, 0.62, 0.99)  # tops 0.95, 0.55, 0.62, 0.99
    teacher = Teacher(of_two_classes(0.05, 0.55, 0.19, 0.9), logits, threshold=0.8)
    found = audit_predictions(logits, torch.tensor([0, 1, 1, 1]), teacher)
    assert found.predicted_shares == [0.5, 0.5]
    assert found.confidence_histogram == [0, 0, 0, 0, 0, 0.25, 0.25, 0, 0, 0.5]
    assert found.drift == 0.25
    assert found.coverage == 0.75  # 0.95, 0.81 and 0.9
    assert found.pseudo_label_shares == pytest.approx([2 / 3, 1 / 3])
    assert found.teacher_agreement == 0.5


def test_facts_about_teacher_and_earlier_epoch_are_none_without_them():
    found = audit_predictions(of_two_classes(0.5))
    assert (found.drift, found.coverage, found.pseudo_label_shares, found.teacher_agreement) == (None,) * 4


def test_no_confident_image_gives_shares_of_zero_and_not_nan():
    logits = of_two_classes(0.5, 0.6)
    assert audit_predictions(logits, None, Teacher(logits, logits, 0.9)).pseudo_label_shares == [0, 0]


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), st.integers(1, 5))
def test_facts_are_finite_and_shares_sum_to_one_on_extreme_logits(row, n):
    logits = torch.tensor([row] * n)
    found = audit_predictions(logits, torch.zeros(n, dtype=torch.int64), Teacher(logits, -logits, 0.9))
    assert sum(found.predicted_shares) == pytest.approx(1)
    assert sum(found.confidence_histogram) == pytest.approx(1)
    assert all(0 <= value <= 1 for value in (found.drift, found.coverage, found.teacher_agreement))


def test_class_shares_include_classes_that_do_not_occur():
    assert class_shares(torch.tensor([0, 0, 3]), 4) == pytest.approx([2 / 3, 0, 0, 1 / 3])


def test_domains_that_differ_in_brightness_or_texture_are_separated_and_equal_ones_are_not():
    rng = torch.Generator().manual_seed(0)
    dark, more, bright = (
        torch.randint(low, low + 100, (900, 9, 9, 1), generator=rng).to(torch.uint8) for low in (0, 0, 60)
    )
    flat = torch.full_like(dark, 50)
    for other in (bright, flat):
        assert domain_accuracy(dark, other) > 0.95
        assert identical_domains(domain_accuracy(dark, other), 1800) is None
    for same in (more, dark):  # other images of the same kind, and the very same images
        accuracy = domain_accuracy(dark, same)
        assert accuracy < 0.56
        assert identical_domains(accuracy, 1800).name == "identical domains"
    image = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    assert identical_domains(domain_accuracy(image, image), 2) is None  # one image shows nothing


class Sizes(TorchDispatchMode):
    """The size of the largest tensor that is computed, in bytes."""

    largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        self.largest = max(self.largest, *(one.nbytes for one in tree_leaves(found) if isinstance(one, torch.Tensor)))
        return found


class Forest:
    """Remembers the data that it is fitted to."""

    oob_score_ = 0.5

    def __init__(self, *about, **settings):
        pass

    def fit(self, cells, is_source):
        Forest.cells, Forest.is_source = cells, is_source
        return self


def test_domains_are_compared_by_mean_and_deviation_of_cells_few_images_at_a_time(monkeypatch):
    rng = torch.Generator().manual_seed(0)
    source, target = (torch.randint(256, (40, 140, 133, 3), generator=rng).to(torch.uint8) for _ in range(2))
    monkeypatch.setattr(sklearn.ensemble, "RandomForestClassifier", Forest)
    with Sizes() as sizes:
        domain_accuracy(source, target)
    assert sizes.largest < 10 << 20  # of all images of a domain at once, float64: 18 MB
    images = torch.cat([source, target]).double() / 255
    cells = images.view(80, 7, 20, 7, 19, 3).permute(0, 5, 1, 3, 2, 4).flatten(4)
    naive = torch.cat([cells.mean(4).flatten(1), cells.std(4, correction=0).flatten(1)], dim=1)
    torch.testing.assert_close(torch.from_numpy(Forest.cells), naive, rtol=1e-6, atol=1e-6)
    assert Forest.is_source.tolist() == [True] * 40 + [False] * 40


@pytest.mark.parametrize(("accuracy", "images", "raised"), [(0.5, 100, False), (0.45, 100, False), (0.5, 2000, True)])
def test_few_images_cannot_show_that_domains_are_identical(accuracy, images, raised):
    assert (identical_domains(accuracy, images) is not None) == raised


def test_domains_of_a_task_are_separated_once_whatever_the_run(monkeypatch):
    seen, tiny_task = [], make_tiny_task()
    monkeypatch.setattr(measure.audit, "domain_accuracy", lambda *parts: seen.append(parts) or 0.7)
    fabric = make_fabric("float32", "cpu")
    found = [Evaluator(tiny_task, seed, fabric).domain_accuracy() for seed in (0, 1)]
    assert found == [(0.7, 2 * len(tiny_task.source_train))] * 2
    assert len(seen) == 1
    Evaluator(dataclasses.replace(tiny_task), 0, fabric).domain_accuracy()  # other images, for all that is known
    assert len(seen) == 2
