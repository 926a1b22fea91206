"""MaNi against its loss written as a loop over pairs, its teacher and its threshold."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mutualign.methods import mani as module

START = torch.tensor(0.0)


@pytest.fixture
def pairing(monkeypatch):
    """The arguments and results of `sample_pairs`, by call."""
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


@pytest.mark.parametrize(("weight", "n_source", "n_target"), [(1.0, 9, 9), (0.5, 5, 12), (1.0, 12, 5)])
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


def test_class_and_domain_losses_are_danns(build, make_batch):
    dann, mani = build("dann").eval(), build("mani").eval()
    mani.load_state_dict({**mani.state_dict(), **dann.state_dict()})
    batch = make_batch(dann)
    expected, found = dann(batch, START)[0], mani(batch, START)[0]
    assert {name: found[name].item() for name in expected} == {name: loss.item() for name, loss in expected.items()}


def test_a_batch_with_no_confident_target_has_a_loss_of_exactly_zero_and_no_gradient(build, make_batch):
    method = build("mani", threshold=1.0).train()  # no softmax of these logits is 1
    losses, metrics = method(make_batch(method), START)
    assert losses["mi"].item() == 0
    assert metrics["coverage"].item() == metrics["pairs"].item() == 0
    losses["mi"].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), name


def test_the_threshold_is_met_by_the_softmax_of_the_top_class(build, make_batch, pairing):
    """Logits of ln 3 and 0 over two classes are probabilities of 3/4 and 1/4; equal ones are exactly 1/2."""
    for threshold, logit, expected in ((0.74, math.log(3), True), (0.76, math.log(3), False), (0.5, 0.0, True)):
        method = build("mani", classes=2, threshold=threshold)
        with torch.no_grad():
            method.teacher.model.head[3].weight.zero_()
            method.teacher.model.head[3].bias.copy_(torch.tensor([0.0, logit]))
        method(make_batch(method), START)
        assert pairing[-1]["confident"].tolist() == [expected] * 6
        assert pairing[-1]["target"].tolist() == [int(logit > 0)] * 6


def test_pseudo_labels_are_the_teachers_not_the_students(build, make_batch, pairing):
    method = build("mani")
    predict_always(method.classifier, 0)
    predict_always(method.teacher.model, 2)
    batch = make_batch(method)
    method(batch, START)
    assert pairing[0]["target"].tolist() == [2] * 6
    assert torch.equal(pairing[0]["source"], batch.labels)
    assert pairing[0]["confident"].all()


def test_after_a_step_the_teacher_moves_and_within_one_it_does_not(build, make_batch):
    method = build("mani", decay=0.75).train()
    weight = method.teacher.model.head[0].weight
    start = weight.clone()
    assert torch.equal(start, method.classifier.head[0].weight)
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
