"""SHOT, ATDOC, AdaMatch and self-ensembling: what is special to each, beside the contract of all methods."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from mutualign.data.augment import strong_views
from mutualign.data.types import Batch, ImageShape, LabelledImages, UnlabelledImages
from mutualign.methods import METHODS
from mutualign.methods.adamatch import AdaMatchConfig
from mutualign.methods.atdoc import sharpened
from mutualign.methods.neighbour_information import NeighbourInformationConfig, nearest_neighbours
from mutualign.methods.self_ensembling import imbalance
from mutualign.methods.shot import centroid_labels
from mutualign.nn.backbones import MLP, TwoBlockCNN
from mutualign.nn.class_prior import EstimatedPrior
from mutualign.nn.classifier import Classifier, Outputs
from mutualign.nn.losses import information_maximisation
from mutualign.recipes import parse_recipe
from mutualign.training.callbacks import Callbacks
from mutualign.training.distributed import make_fabric
from mutualign.training.loop import train
from tests.training.tiny_runs import MemoryStore

HALFWAY = torch.tensor(0.5)


def look_at(method, batch):
    """What the loop's `look` would return for the target images of the batch."""

    def look():
        with torch.no_grad():
            features = method.classifier.features(batch.target)
            return Outputs(method.classifier.head(features), features)

    return look


def with_rows(batch):
    return batch._replace(target_rows=torch.arange(len(batch.target)))


def test_centroid_labels_are_those_of_a_double_loop():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(20, 3, generator=generator)
    probabilities = torch.randn(20, 4, generator=generator).softmax(1)
    probabilities[:, 3] = 0  # a class that is never predicted gets no image
    rows = [[*row, 1.0] for row in features.tolist()]
    rows = [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows]
    present = set(probabilities.argmax(1).tolist())
    weights = probabilities.tolist()
    for _ in range(2):
        centroids = {
            c: [sum(w[c] * row[k] for w, row in zip(weights, rows, strict=True)) for k in range(4)] for c in present
        }

        def cosine(row, c, centroids=centroids):
            centre = centroids[c]
            return sum(a * b for a, b in zip(row, centre, strict=True)) / math.sqrt(sum(a * a for a in centre))

        labels = [max(sorted(present), key=lambda c, row=row: cosine(row, c)) for row in rows]
        weights = [[float(c == label) for c in range(4)] for label in labels]
    assert centroid_labels(features, probabilities).tolist() == labels
    assert 3 not in labels


def test_shot_trains_the_features_only_and_sees_no_source(build, make_batch):
    method = build("shot")
    assert not method.uses_source
    batch = with_rows(make_batch(method))
    assert batch.n_source == 0
    method.begin_epoch(look_at(method.eval(), batch))
    assert len(method.pseudo_labels) == len(batch.target)
    (group,) = method.parameter_groups()["all"]
    assert {id(weight) for weight in group.parameters} == {
        id(weight) for weight in method.classifier.features.parameters()
    }


def test_shots_losses_are_information_and_the_cross_entropy_with_pseudo_labels_times_its_weight(build, make_batch):
    method = build("shot", pseudo_label_weight=0.7).eval()
    batch = with_rows(make_batch(method))
    method.begin_epoch(look_at(method, batch))
    method.pseudo_labels = torch.arange(len(batch.target)) % 3
    logits = method.classifier(batch.target)
    losses, _ = method(batch, HALFWAY)
    assert losses["information"].item() == pytest.approx(information_maximisation(logits).item(), rel=1e-4)
    expected = 0.7 * F.cross_entropy(logits, method.pseudo_labels)
    assert losses["pseudo_labels"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_sharpened_predictions_are_squares_over_class_totals():
    rows = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    squares = [[0.25 / 1.4, 0.25 / 0.6], [0.81 / 1.4, 0.01 / 0.6]]
    expected = [[value / sum(row) for value in row] for row in squares]
    assert torch.allclose(sharpened(rows), torch.tensor(expected))


def test_atdoc_labels_an_image_by_its_nearest_neighbours_and_never_by_itself(build, make_batch):
    method = build("atdoc", neighbours=2, weight=3.0).eval()
    method.classifier.head[3].weight.data *= 30  # predictions that differ
    batch = with_rows(make_batch(method, 8, 5))
    look = look_at(method, batch)
    method.begin_epoch(look)
    outputs = look()
    features, bank = F.normalize(outputs.features, dim=1), sharpened(outputs.logits.softmax(1))
    total, weights = 0.0, 0.0
    for i in range(5):
        order = sorted((j for j in range(5) if j != i), key=lambda j, i=i: -float(features[i] @ features[j]))
        confidence, label = bank[order[:2]].mean(0).max(0)
        total += float(confidence * F.cross_entropy(outputs.logits[i : i + 1], label[None]))
        weights += float(confidence)
    for progress in (0.0, 0.25, 1.0):  # the weight grows with it
        losses, _ = method(batch, torch.tensor(progress))
        assert losses["neighbours"].item() == pytest.approx(3 * progress * total / weights, rel=1e-4)
    before = method.bank_features.clone()
    method.bank_features.zero_()
    method.after_step()  # the rows of the batch are replaced by what the network gave
    assert torch.allclose(method.bank_features, before, atol=1e-6)


def test_atdocs_bank_is_of_evaluation_mode_while_the_network_trains(build, make_batch):
    method = build("atdoc")
    batch = with_rows(make_batch(method, 8, 5))
    look = look_at(method.eval(), batch)
    method.begin_epoch(look)
    expected = method.bank_features.clone(), method.bank_predictions.clone()
    method.train()(batch, HALFWAY)
    assert not torch.allclose(method.classifier.features(batch.target), look().features, atol=1e-3)  # dropout
    method.bank_features.zero_()
    method.after_step()
    assert method.classifier.training
    for found, bank in zip((method.bank_features, method.bank_predictions), expected, strict=True):
        assert torch.allclose(found, bank, atol=1e-6)


def test_adamatchs_target_loss_starts_at_0_and_is_whole_from_halfway(build, make_batch):
    method = build("adamatch", threshold=0.0).eval()
    batch = make_batch(method)

    def loss(progress):
        torch.manual_seed(0)
        return method(batch, torch.tensor(progress))[0]["self_training"].item()

    whole = loss(0.5)
    assert loss(0.0) == 0
    assert loss(0.25) == pytest.approx(whole / 2, rel=1e-5)
    assert loss(1.0) == pytest.approx(whole, rel=1e-6)


def test_running_statistics_of_adamatch_are_those_of_both_domains_together(make_batch):
    torch.manual_seed(0)
    method = METHODS["adamatch"].build(Classifier(TwoBlockCNN(3, 12, 12), 3), AdaMatchConfig()).train()
    batch, alone = make_batch(method), copy.deepcopy(method.classifier)
    torch.manual_seed(1)
    method(batch, HALFWAY)
    torch.manual_seed(1)
    alone.features(torch.cat([batch.images, strong_views(batch.images, method.config.views)]))
    found, expected = method.classifier.state_dict(), alone.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected if "running" in name)


def test_adamatch_aligns_target_predictions_with_the_sources(build, make_batch):
    """A head that always says class 0 on the target, and is balanced on the source, gives balanced pseudo-labels."""
    method = build("adamatch", classes=2, threshold=0.0).eval()
    batch = make_batch(method, 4, 4)
    logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]] * 2)  # weak and strong source
    target = torch.tensor([[2.0, 0.0], [1.9, 0.0], [1.0, 0.0], [0.9, 0.0]])
    outputs = iter([torch.cat([logits, target, logits, target]), torch.cat([logits, logits])])
    method.features = lambda images: images.flatten(1)
    method.classifier.head = torch.nn.Identity()
    method.classifier.head.forward = lambda features: next(outputs)
    losses, metrics = method(batch, torch.tensor(1.0))
    aligned = target.softmax(1) * 0.5 / target.softmax(1).mean(0)
    labels = aligned.argmax(1)
    assert labels.tolist() == [0, 0, 1, 1]
    assert losses["self_training"].item() == pytest.approx(F.cross_entropy(target, labels).item(), rel=1e-5)
    assert metrics["coverage"].item() == 1


def test_self_ensembling_is_the_mean_squared_distance_to_a_confident_teacher(build, make_batch):
    plain = {"solarise": 0.0, "geometry": 0.0, "colour": 0.0, "inversion": 0.0}
    method = build("self_ensembling", threshold=0.0, weight=2.0, balance_weight=0.5, views=plain).eval()
    with torch.no_grad():
        method.teacher.model.head[3].bias += torch.tensor([1.0, 0.0, -1.0])
    batch = make_batch(method)
    student = method.classifier(batch.target).softmax(1)
    teacher = method.teacher(batch.target).softmax(1)
    losses, _ = method(batch, HALFWAY)
    assert losses["consistency"].item() == pytest.approx(
        2 * (student - teacher).square().mean().item(),
        rel=1e-4,  # over images and classes
    )
    mean = student.mean(0).tolist()
    balance = sum(-(math.log(p) / 3 + 2 / 3 * math.log(1 - p)) for p in mean)
    assert losses["balance"].item() == pytest.approx(2 * 0.5 * balance, rel=1e-4)
    method.config = type(method.config)(threshold=1.1)
    losses, metrics = method(batch, HALFWAY)
    assert losses["consistency"].item() == losses["balance"].item() == metrics["coverage"].item() == 0


def test_the_class_balance_is_least_for_even_predictions_and_finite_for_certain_ones():
    even, certain = torch.full((4, 5), 0.2), torch.eye(5)[[0, 0]].requires_grad_()
    assert imbalance(even).item() == pytest.approx(-(math.log(0.2) + 4 * math.log(0.8)), rel=1e-5)
    loss = imbalance(certain)
    loss.backward()
    assert loss.item() > imbalance(even).item()
    assert certain.grad.isfinite().all()


@pytest.mark.parametrize("at_once", [1 << 25, 61, 1])  # all rows, two and one
def test_neighbours_are_the_nearest_in_cosine_distance_and_never_the_row_itself(monkeypatch, at_once):
    monkeypatch.setattr("mutualign.methods.neighbour_information.MOST_SIMILARITIES", at_once)
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    found = nearest_neighbours(rows, 3)
    for i in range(30):
        others = [j for j in range(30) if j != i]
        expected = sorted(others, key=lambda j, i=i: -float(F.cosine_similarity(rows[i], rows[j], dim=0)))[:3]
        assert found[i].tolist() == expected
    assert nearest_neighbours(rows[:2], 3).tolist() == [[1, 1, 1], [0, 0, 0]]


def test_neighbour_information_follows_the_predictions_of_neighbours_in_the_input(build, make_batch):
    method = build("neighbour_information", neighbours=2, neighbour_weight=1.0, label_smoothing=0.3).eval()
    batch = with_rows(make_batch(method, 8, 5))
    vectors = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    method.begin_epoch(lambda: look_at(method, batch)()._replace(vectors=vectors))
    assert torch.equal(method.neighbours, nearest_neighbours(vectors, 2))
    assert torch.allclose(method.predictions, torch.full((5, 3), 1 / 3))
    early, _ = method(batch, torch.tensor(0.2))
    assert early["neighbours"].item() == 0
    smooth = F.cross_entropy(method.classifier(batch.images[:8]), batch.labels, label_smoothing=0.3)
    assert early["class"].item() == pytest.approx(smooth.item(), rel=1e-5)
    method.after_step()  # the bank has the teacher's predictions now
    expected = method.teacher(batch.target).softmax(1)
    assert torch.allclose(method.predictions, expected, atol=1e-6)
    losses, _ = method(batch, torch.tensor(1.0))
    student = method.classifier(batch.target).log_softmax(1)
    agreed = torch.stack([expected[neighbours].mean(0) for neighbours in method.neighbours])
    assert losses["neighbours"].item() == pytest.approx(-(agreed * student).sum(1).mean().item(), rel=1e-4)


def test_the_teacher_of_neighbour_information_sees_the_first_two_views_of_features_and_an_image_once():
    for shape, views in (((3, 12, 12), [None]), ((5, 4, 1), [0, 1]), ((5, 1, 1), [None])):
        method = METHODS["neighbour_information"].build(Classifier(MLP(*shape), 3), NeighbourInformationConfig())
        batch = with_rows(Batch(torch.rand(8, *shape), torch.arange(3)))
        method.begin_epoch(look_at(method, batch))
        seen = []
        method.teacher.model.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        method(batch, HALFWAY)
        expected = [batch.target if view is None else batch.target.roll(-view, dims=2) for view in views]
        assert len(seen) == len(expected)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(seen, expected, strict=True))


@pytest.mark.parametrize("name", ["information_maximisation", "neighbour_information"])
def test_the_prior_is_estimated_before_an_epoch_if_the_setting_says_so_and_is_that_of_the_loss(build, make_batch, name):
    for setting in ("uniform", "estimated"):
        method = build(name, prior=setting).eval()
        batch = with_rows(make_batch(method, 8, 5))
        look, expected = look_at(method, batch), EstimatedPrior(3)
        method.begin_epoch(look)  # neighbours are looked for
        if name == "neighbour_information":
            method.neighbours, method.predictions = torch.arange(5)[:, None], torch.eye(3)[[0, 0, 0, 1, 0]]
            expected.update(method.predictions, method.neighbours)
            assert expected.shares.tolist() == pytest.approx([4.5 / 6.5, 1.5 / 6.5, 0.5 / 6.5])
        else:
            method.classifier.head[3].weight.data *= 30  # certain predictions
            expected.update(look().logits.softmax(1))
            assert expected.from_uniform > 0.1
        method.begin_epoch(look)
        found, shares = method.prior.shares, expected.shares if setting == "estimated" else torch.full((3,), 1 / 3)
        assert torch.allclose(found, shares)
        losses, _ = method(batch, torch.tensor(1.0))
        logits = method.classifier(batch.target)
        assert losses["information"].item() == pytest.approx(information_maximisation(logits, shares).item(), rel=1e-4)


@pytest.mark.parametrize("name", ["information_maximisation", "neighbour_information"])
@pytest.mark.parametrize("earlier", ["information_maximisation", "neighbour_information"])
def test_a_stage_with_the_uniform_prior_does_not_start_from_the_estimate_of_an_earlier_stage(
    build, make_batch, name, earlier
):
    previous = build(earlier, prior="estimated")
    previous.prior.update(torch.eye(3)[[0] * 8 + [1] * 4])
    method = build(name, prior="uniform").eval().warm_start_from(previous)
    batch = with_rows(make_batch(method, 8, 5))
    method.begin_epoch(look_at(method, batch))
    losses, _ = method(batch, torch.tensor(1.0))
    expected = information_maximisation(method.classifier(batch.target))
    assert losses["information"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.equal(build(name, prior="estimated").warm_start_from(previous).prior.shares, previous.prior.shares)


@pytest.fixture
def half_of_the_classes():
    """Features of six classes, and of a target that has three of them: the source, the target, and its labels."""

    def draw(labels, shift):
        vectors = 1.6 * torch.eye(6, 16)[labels] + 0.45 * torch.randn(len(labels), 16, generator=generator)
        vectors[:, 6:] += shift
        return UnlabelledImages(vectors[:, None, None])

    generator = torch.Generator().manual_seed(11)
    labels, truth = torch.arange(240) % 6, torch.arange(180) % 3
    return LabelledImages(draw(labels, 0.0), labels), draw(truth, 0.5), truth


def test_with_the_estimated_prior_predictions_are_not_spread_over_classes_that_the_target_lacks(half_of_the_classes):
    source, target, truth = half_of_the_classes
    found = {}
    for prior in ("uniform", "estimated"):
        stage = {"method": "neighbour_information", "epochs": 6, "batch_size": 60, "epoch_steps": 15}
        stage |= {"optim": {"lr": 3e-3}, "options": {"prior": prior}}
        recipe = parse_recipe({"name": "t", "precision": "float32", "backbone": "mlp", "stages": [stage]}, "test")
        fabric, shape = make_fabric("float32", "cpu"), ImageShape(16, 1, 1)
        classifier = train(recipe, source, target, shape, 6, 1, MemoryStore(), fabric, Callbacks()).eval()
        predicted = classifier(target.pixels.permute(0, 3, 1, 2)).argmax(1)
        found[prior] = float((predicted == truth).float().mean())
    assert found["uniform"] < 0.8
    assert found["estimated"] > 0.9
