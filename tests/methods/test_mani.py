"""MaNi against its loss written as a loop over pairs, its teacher and its threshold."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from mutualign.methods import mani as module

START = torch.tensor(0.0)


@pytest.fixture
def pairing(monkeypatch):
    """Whatever `sample_pairs` is asked and answers, in the order of the calls."""
    calls = []
    real = module.sample_pairs

    def recorded(source_labels, target_labels, confident, classes):
        pairs = real(source_labels, target_labels, confident, classes)
        calls.append({"source": source_labels, "target": target_labels, "confident": confident, "pairs": pairs})
        return pairs

    monkeypatch.setattr(module, "sample_pairs", recorded)
    return calls


def predict_always(classifier, label):
    """Make a classifier sure of one class, whatever it sees."""
    with torch.no_grad():
        classifier.head[3].weight.zero_()
        classifier.head[3].bias.zero_()
        classifier.head[3].bias[label] = 20.0


def balance(method, batch):
    """Shift the teacher's logits so that its pseudo-labels of the batch are of several classes."""
    method.teacher.model.head[3].bias.data -= method.teacher(batch.target).mean(0)


def naive_score(critic, a, b):
    first, second, third = critic.layers[0], critic.layers[2], critic.layers[4]
    hidden = F.relu(first.weight @ torch.cat([a, b]) + first.bias)
    return (third.weight @ F.relu(second.weight @ hidden + second.bias) + third.bias).item()


@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize(("n_source", "n_target"), [(9, 9), (5, 12), (12, 5)])
def test_the_loss_is_that_of_the_paper_pair_by_pair_in_both_directions(
    build, make_batch, pairing, weight, n_source, n_target
):
    method = build("mani", weight=weight, threshold=0.0).train()
    batch = make_batch(method, n_source, n_target)
    balance(method, batch)
    seen = []
    method.classifier.features.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    losses, metrics = method(batch, START)

    project = method.projection[0]
    z = [F.relu(project.weight @ row + project.bias).detach() for row in seen[0]]
    z_source, z_target = z[:n_source], z[n_source:]
    total, count = 0.0, 0
    for s, t, other_s, other_t, valid in zip(*(rows.tolist() for rows in pairing[0]["pairs"]), strict=True):
        if not valid:
            continue
        count += 1
        for anchor, same, other in (
            (z_target[t], z_source[s], z_source[other_s]),
            (z_source[s], z_target[t], z_target[other_t]),
        ):
            total += math.log(1 + math.exp(-naive_score(method.critic, anchor, same)))
            total += math.log(1 + math.exp(naive_score(method.critic, anchor, other)))
    assert count > 0
    assert metrics["pairs"].item() == count
    assert losses["mi"].item() == pytest.approx(weight * total / count, rel=1e-5)


def test_a_critic_that_knows_nothing_has_a_loss_of_four_ln_two(build, make_batch):
    method = build("mani", threshold=0.0).train()
    batch = make_batch(method)
    balance(method, batch)
    with torch.no_grad():
        method.critic.layers[4].weight.zero_()
        method.critic.layers[4].bias.zero_()
    losses, _ = method(batch, START)
    assert losses["mi"].item() == pytest.approx(4 * math.log(2), rel=1e-6)  # 2 ln 2 a direction


def test_class_and_domain_losses_are_danns(build, make_batch):
    dann, mani = build("dann").eval(), build("mani").eval()
    mani.load_state_dict({**mani.state_dict(), **dann.state_dict()})
    batch = make_batch(dann)
    expected, found = dann(batch, START)[0], mani(batch, START)[0]
    for name in ("class", "domain"):
        assert found[name].item() == expected[name].item()


def test_a_batch_with_no_confident_target_has_a_loss_of_exactly_zero_and_no_gradient(build, make_batch):
    method = build("mani", threshold=1.0).train()  # no softmax of these logits is 1
    losses, metrics = method(make_batch(method), START)
    assert losses["mi"].item() == 0
    assert metrics["coverage"].item() == metrics["pairs"].item() == 0
    losses["mi"].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), name


def test_the_threshold_is_inclusive(build, make_batch):
    for threshold, coverage in ((0.25, 1.0), (math.nextafter(0.25, 1) + 1e-7, 0.0)):
        method = build("mani", classes=4, threshold=threshold)
        with torch.no_grad():  # equal logits: every probability is exactly 1/4
            method.teacher.model.head[3].weight.zero_()
            method.teacher.model.head[3].bias.zero_()
        _, metrics = method(make_batch(method), START)
        assert metrics["coverage"].item() == coverage


def test_the_published_threshold_and_decay_are_the_defaults(build):
    method = build("mani")
    assert method.threshold == 0.9
    assert method.teacher.decay == 0.99
    assert method.mi_weight == method.weight == 1.0


def test_the_threshold_is_met_by_the_softmax_of_the_top_class(build, make_batch, pairing):
    """Logits of ln 3 and 0 over two classes are probabilities of 3/4 and 1/4."""
    for threshold, expected in ((0.74, True), (0.76, False)):
        method = build("mani", classes=2, threshold=threshold)
        with torch.no_grad():
            method.teacher.model.head[3].weight.zero_()
            method.teacher.model.head[3].bias.copy_(torch.tensor([0.0, math.log(3)]))
        method(make_batch(method), START)
        assert pairing[-1]["confident"].tolist() == [expected] * 6
        assert pairing[-1]["target"].tolist() == [1] * 6


def test_pseudo_labels_are_the_teachers_not_the_students(build, make_batch, pairing):
    method = build("mani")
    predict_always(method.classifier, 0)
    predict_always(method.teacher.model, 2)
    batch = make_batch(method)
    method(batch, START)
    assert pairing[0]["target"].tolist() == [2] * 6
    assert torch.equal(pairing[0]["source"], batch.labels)
    assert pairing[0]["confident"].all()


def test_pseudo_labels_are_free_of_dropout(build, make_batch, pairing):
    method = build("mani").train()
    batch = make_batch(method)
    expected = copy.deepcopy(method.teacher.model).eval()(batch.target).argmax(1)
    for _ in range(5):
        method(batch, START)
    assert all(torch.equal(call["target"], expected) for call in pairing)


def test_after_a_step_the_teacher_moves_and_within_one_it_does_not(build, make_batch):
    method = build("mani", decay=0.75).train()
    weight = method.teacher.model.head[0].weight
    start = weight.clone()
    method(make_batch(method), START)
    assert torch.equal(weight, start)

    expected = start.double()
    for t in range(6):
        with torch.no_grad():
            method.classifier.head[0].weight.add_(0.1)
        method.after_step()
        d = min(1 - 1 / (t + 1), 0.75)
        expected = d * expected + (1 - d) * method.classifier.head[0].weight.detach().double()
        assert torch.allclose(weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert method.teacher.updates.item() == 6


def test_the_teacher_begins_as_the_classifier_that_the_stage_begins_with(build):
    method = build("mani")
    mine, theirs = method.teacher.model.state_dict(), method.classifier.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_mani_inherits_danns_discriminator(build):
    dann, mani = build("dann", seed=1), build("mani", seed=2)
    assert not torch.equal(mani.discriminator.layers[0].weight, dann.discriminator.layers[0].weight)
    mani.warm_start_from(dann)
    assert torch.equal(mani.discriminator.layers[0].weight, dann.discriminator.layers[0].weight)


def test_a_second_mani_inherits_projection_and_critic_and_begins_with_a_new_teacher(build):
    first, second = build("mani", seed=1), build("mani", seed=2)
    first.after_step()
    own_teacher = copy.deepcopy(second.teacher.state_dict())
    second.warm_start_from(first)
    assert torch.equal(second.projection[0].weight, first.projection[0].weight)
    assert torch.equal(second.critic.layers[0].weight, first.critic.layers[0].weight)
    assert all(torch.equal(value, own_teacher[key]) for key, value in second.teacher.state_dict().items())
    assert second.teacher.updates.item() == 0
