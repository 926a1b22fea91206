"""MutualAlign against its losses as loops; its views, its teacher and its output model."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mutualign.data.augment import AugmentConfig
from mutualign.methods import mutual_align as module
from mutualign.methods.dann import DANNConfig
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from mutualign.runs.folder import RunFolder

LATE = torch.tensor(0.7)
PLAIN = AugmentConfig(geometry=0.0, solarise=0.0, colour=0.0, inversion=0.0, texture=0.0, noise=0.0)


@pytest.fixture
def labelled(build, make_batch):
    """The method over unchanged views, in evaluation mode; its teacher predicts several classes."""

    def make(n_source=9, n_target=8, **config):
        method = build("mutual_align", **{"views": PLAIN, "threshold": 0.0, **config}).eval()
        batch = make_batch(method, n_source, n_target)
        head = method.teacher.model.head[3]
        with torch.no_grad():  # a teacher that is sure of some images and not of others
            head.weight.mul_(400)
            head.bias.sub_(method.teacher(batch.target).mean(0))
        return method, batch

    return make


def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@pytest.mark.parametrize(("threshold", "weight"), [(0.0, 1.0), (0.8, 0.4)])
def test_mi_and_self_training_are_their_formulas_pair_by_pair_and_image_by_image(labelled, threshold, weight):
    method, batch = labelled(threshold=threshold, mi_weight=weight, self_training_weight=weight)
    losses, metrics = method(batch, LATE)
    n = batch.n_source
    features = method.classifier.features(batch.images)
    probabilities = method.teacher.model(batch.target).softmax(1)
    confidence, pseudo_labels = (values.tolist() for values in probabilities.max(1))
    logs = method.classifier.head(features[n:]).log_softmax(1)

    joint, marginal, entropy, taken = [], [], 0.0, 0
    for j, label in enumerate(pseudo_labels):
        if confidence[j] < threshold:
            continue
        taken += 1
        entropy -= logs[j, label].item()
        for i in range(n):
            score = method.critic(features[i : i + 1], features[n + j : n + j + 1]).item()
            (joint if batch.labels[i] == label else marginal).append(score)
    assert 0 < taken == round(metrics["coverage"].item() * 8)
    assert joint
    assert marginal
    mi = sum(softplus(-s) for s in joint) / len(joint) + sum(softplus(s) for s in marginal) / len(marginal)
    assert losses["mi"].item() == pytest.approx(weight * mi, rel=1e-4)
    assert losses["self_training"].item() == pytest.approx(weight * entropy / 8, rel=1e-4)


def test_the_information_of_images_and_labels_is_its_formula_and_grows_over_the_stage(labelled):
    method, batch = labelled(information_weight=0.5)
    method.classifier.head.load_state_dict(method.teacher.model.head.state_dict())  # predicts several classes
    rows = method.classifier(batch.target).softmax(1).tolist()
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    entropy = sum(-p * math.log(p) for row in rows for p in row) / len(rows)
    information = sum(-p * math.log(p) for p in means) - entropy
    assert information > 0.1
    for progress in (0.0, 0.7):
        losses, _ = method(batch, torch.tensor(progress))
        assert losses["information"].item() == pytest.approx(-0.5 * progress * information, rel=1e-4)
    assert "information" not in labelled()[0](batch, LATE)[0]


def test_class_and_domain_losses_are_danns_on_the_same_views(labelled, build):
    method, batch = labelled(domain=DANNConfig(weight=0.5, reversal="ramp"))
    dann = build("dann", weight=0.5, reversal="ramp").eval()
    dann.load_state_dict({key: method.state_dict()[key] for key in dann.state_dict()})
    expected, found = dann(batch, LATE)[0], method(batch, LATE)[0]
    for name in ("class", "domain"):
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-6)


def test_without_a_confident_target_only_dann_is_left(labelled):
    method, batch = labelled(threshold=1.1)
    losses, metrics = method(batch, LATE)
    assert losses["mi"].item() == losses["self_training"].item() == metrics["coverage"].item() == 0
    (losses["mi"] + losses["self_training"]).backward()
    assert all(p.grad is None or not p.grad.any() for p in method.parameters())


def test_the_teacher_sees_the_target_as_it_is_and_the_student_strong_views_of_both(labelled, monkeypatch):
    method, batch = labelled(views=AugmentConfig())
    batch.images[: batch.n_source] = (batch.images[: batch.n_source] > 0.9).float().round()  # less cluttered
    seen = {"teacher": [], "student": []}
    method.teacher.register_forward_hook(lambda m, inputs, out: seen["teacher"].append(inputs[0]))
    method.classifier.features.register_forward_hook(lambda m, inputs, out: seen["student"].append(inputs[0]))
    made, real = [], module.strong_views
    monkeypatch.setattr(module, "strong_views", lambda *a: made.append((a, real(*a))) or made[-1][1])
    method(batch, LATE)

    assert torch.equal(seen["teacher"][0], batch.target)
    (((images, views), strong),) = made
    assert views == AugmentConfig()
    assert torch.equal(images[batch.n_source :], batch.target)
    assert not torch.equal(images[: batch.n_source], batch.images[: batch.n_source])  # texture is added
    assert len(seen["student"]) == 1
    assert torch.equal(seen["student"][0], strong)


def test_pseudo_labels_are_the_teachers_and_carry_no_gradient_to_it(labelled):
    method, batch = labelled()
    with torch.no_grad():
        method.teacher.model.head[3].weight.zero_()
        method.teacher.model.head[3].bias.copy_(torch.tensor([0.0, 20.0, 0.0]))
    losses, _ = method(batch, LATE)
    logits = method.classifier(batch.target)
    assert losses["self_training"].item() == pytest.approx(F.cross_entropy(logits, torch.full((8,), 1)).item())
    sum(losses.values()).backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())


def test_the_output_model_is_the_teacher_which_follows_the_student(build, make_batch):
    method = build("mutual_align", decay=0.5)
    assert method.output_model is method.teacher.model
    weights = method.output_model.head[0].weight
    for _ in range(2):
        with torch.no_grad():
            method.classifier.head[0].weight.add_(1.0)
        before = weights.clone()
        method.after_step()
    middle = (before + method.classifier.head[0].weight) / 2
    assert torch.allclose(weights, middle)
    assert set(method.output_model.state_dict()) == set(method.classifier.state_dict())


def test_a_run_saves_the_weights_of_the_teacher_and_not_of_the_student(tmp_path, tiny_task):
    short = ["stages.0.epochs=2", "stages.0.epoch_steps=0", "stages.0.batch_size=20"]
    Experiment.start(load_recipe("fast", short), tiny_task, 0, tmp_path / "run").run()
    checkpoints = RunFolder.open(tmp_path / "run").checkpoints
    (kept, _), (state, _) = checkpoints.load_weights(0, "last"), checkpoints.load("last")
    assert {f"method.classifier.{key}" for key in kept} == {key for key in state if ".classifier." in key}
    for key, value in kept.items():
        assert torch.equal(value, state[f"method.teacher.model.{key}"]), key
    for key in ("features.conv1.weight", "features.norm1.running_mean", "head.weight"):
        assert not torch.equal(kept[key], state[f"method.classifier.{key}"]), key
