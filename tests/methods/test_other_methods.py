"""MCD, AdaBN, VADA, DIRT-T, rotation, FDA and methods of one loss: what is special to each, beside the contract."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from mutualign.data.augment import fourier_swap
from mutualign.methods import METHODS, vada
from mutualign.nn import losses as functions
from mutualign.nn.backbones import TwoBlockCNN
from mutualign.nn.classifier import Classifier
from mutualign.nn.schedules import ramp

HALFWAY = torch.tensor(0.5)


def test_an_update_of_mcd_moves_only_the_player_whose_turn_it_is(build, make_batch):
    method = build("mcd", feature_updates=2).train()
    batch = make_batch(method)
    groups = method.parameter_groups()
    optimisers = {player: torch.optim.SGD(group[0].parameters, lr=0.1) for player, group in groups.items()}
    parts = {"features": method.classifier.features, "head": method.classifier.head, "second": method.second_head}
    moved = []
    torch.manual_seed(0)
    for update in method.updates(batch, HALFWAY):
        before = copy.deepcopy({name: list(part.parameters()) for name, part in parts.items()})
        method.zero_grad()
        update.total.backward()
        for player in update.players:
            optimisers[player].step()
        after = {name: list(part.parameters()) for name, part in parts.items()}
        moved.append(
            {
                name
                for name in parts
                if any(not torch.equal(*pair) for pair in zip(before[name], after[name], strict=True))
            }
        )
    assert moved == [{"features", "head", "second"}, {"head", "second"}, {"features"}, {"features"}]


def test_mcds_heads_raise_the_discrepancy_and_its_features_lower_it(build, make_batch):
    method = build("mcd", feature_updates=1).eval()
    batch = make_batch(method)
    updates = list(method.updates(batch, HALFWAY))
    discrepancy = updates[2].losses["discrepancy_1"].item()
    first, second = method.both(batch.target)
    assert discrepancy == pytest.approx((first.softmax(1) - second.softmax(1)).abs().mean().item(), rel=1e-5)
    source = updates[0].losses["class"].item()
    assert updates[1].losses["heads"].item() == pytest.approx(source - discrepancy, rel=1e-4)


def test_adabn_averages_the_statistics_of_the_target_and_changes_no_weight(make_batch):
    torch.manual_seed(0)
    method = METHODS["adabn"].build(Classifier(TwoBlockCNN(3, 12, 12), 3), None).train()
    weights = {name: weight.clone() for name, weight in method.named_parameters()}
    means = []
    method.classifier.features.norm1.register_forward_pre_hook(
        lambda module, inputs: means.append(inputs[0].mean((0, 2, 3)))
    )
    for seed in (1, 2, 3):
        batch = make_batch(method, 0, 6, seed=seed)
        assert list(method.updates(batch, HALFWAY)) == []
    assert torch.allclose(method.classifier.features.norm1.running_mean, torch.stack(means).mean(0), atol=1e-6)
    assert method.classifier.features.norm1.momentum == 0.1  # as a later stage needs it
    assert method.parameter_groups() == {}
    assert all(torch.equal(weight, weights[name]) for name, weight in method.named_parameters())


def test_vada_is_dann_with_entropy_and_virtual_adversarial_losses(build, make_batch):
    method, dann = build("vada").eval(), build("dann", weight=0.01).eval()
    dann.load_state_dict(method.state_dict())
    batch = make_batch(method)
    (found, _), (expected, _) = method(batch, HALFWAY), dann(batch, HALFWAY)
    assert {name: found[name].item() for name in expected} == {name: loss.item() for name, loss in expected.items()}
    probabilities = method.classifier(batch.target).softmax(1)
    entropy = -(probabilities * probabilities.log()).sum(1).mean().item()
    assert found["entropy"].item() == pytest.approx(0.01 * entropy, rel=1e-4)
    assert found["source_vat"].item() > 0 < found["target_vat"].item()


def test_vada_weighs_the_adversarial_loss_of_each_domain(build, make_batch, monkeypatch):
    monkeypatch.setattr(vada, "virtual_adversarial_loss", lambda network, images, radius: radius * images.mean())
    method = build("vada", source_weight=0.3, target_weight=0.2, radius=0.5).eval()
    batch = make_batch(method)
    losses, _ = method(batch, HALFWAY)
    assert losses["source_vat"].item() == pytest.approx(0.3 * 0.5 * batch.images[:8].mean().item(), rel=1e-5)
    assert losses["target_vat"].item() == pytest.approx(0.2 * 0.5 * batch.target.mean().item(), rel=1e-5)


def test_the_reversal_of_mdd_grows_from_nothing(build, make_batch):
    method = build("mdd").eval()
    batch, weight = make_batch(method), next(method.classifier.features.parameters())
    first, half, last = (
        torch.autograd.grad(method(batch, torch.tensor(progress))[0]["disparity"], weight)[0]
        for progress in (0.0, 0.5, 1.0)
    )
    assert not first.any()
    assert torch.allclose(half, last * ramp(torch.tensor(0.5)) / ramp(torch.tensor(1.0)), rtol=1e-4, atol=1e-9)
    assert last.any()


def test_the_threshold_of_adamatch_is_relative_to_the_confidence_on_the_source(build, make_batch):
    method = build("adamatch", threshold=0.9).eval()
    batch = make_batch(method)
    assert method.classifier(batch.images).softmax(1).max() < 0.8  # no image would reach 0.9 itself
    _, metrics = method(batch, HALFWAY)
    assert metrics["coverage"].item() > 0
    assert build("adamatch", threshold=1.5).eval()(batch, HALFWAY)[1]["coverage"].item() == 0


@pytest.mark.parametrize("name", ["vada", "dirt_t"])
def test_adversarial_images_do_not_enter_running_statistics(make_batch, name):
    torch.manual_seed(0)
    entry = METHODS[name]
    method = entry.build(Classifier(TwoBlockCNN(3, 12, 12), 3), entry.config()).train()
    batch, alone = make_batch(method), copy.deepcopy(method.classifier)
    for forward in (lambda: method(batch, HALFWAY), lambda: alone.features(batch.images)):
        torch.manual_seed(1)
        forward()
    found, expected = method.classifier.state_dict(), alone.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected if "running" in name)
    assert method.classifier.features.norm1.momentum == 0.1  # as the next step needs it


def test_dirt_t_starts_at_its_teacher_and_sees_no_source(build, make_batch):
    method = build("dirt_t").eval()
    batch = make_batch(method)
    assert batch.n_source == 0
    losses, _ = method(batch, HALFWAY)
    assert losses["teacher"].item() == pytest.approx(0, abs=1e-7)
    assert method.output_model is method.teacher.model


def test_dirt_t_measures_entropy_and_the_distance_from_a_teacher_that_differs(build, make_batch):
    method = build("dirt_t", weight=0.5, teacher_weight=0.25).eval()
    with torch.no_grad():
        method.teacher.model.head[3].bias += torch.tensor([1.0, 0.0, -1.0])
    batch = make_batch(method)
    student, teacher = method.classifier(batch.images).softmax(1), method.teacher(batch.images).softmax(1)
    losses, _ = method(batch, HALFWAY)
    entropy = sum(-p * math.log(p) for row in student.tolist() for p in row) / len(student)
    pairs = zip(teacher.flatten().tolist(), student.flatten().tolist(), strict=True)
    assert losses["entropy"].item() == pytest.approx(0.5 * entropy, rel=1e-4)
    assert losses["teacher"].item() == pytest.approx(
        0.25 * sum(p * math.log(p / q) for p, q in pairs) / len(student), rel=1e-4
    )
    assert losses["target_vat"].item() > 0


@pytest.mark.parametrize(
    ("name", "loss", "function", "of"),
    [
        ("mmd", "mmd", functions.mmd, "features"),
        ("coral", "coral", functions.coral, "features"),
        ("entropy", "entropy", functions.entropy_minimisation, "target logits"),
        ("bnm", "nuclear_norm", functions.batch_nuclear_norm, "target logits"),
        ("mcc", "confusion", lambda logits: functions.class_confusion(logits, 2.5), "target logits"),
        ("information_maximisation", "information", functions.information_maximisation, "target logits"),
    ],
)
def test_a_method_is_cross_entropy_and_a_weighted_loss_of_the_features_or_the_target(
    build, make_batch, name, loss, function, of
):
    """The functions themselves are proved in tests/nn/losses."""
    method = build(name, weight=0.7).eval()
    batch = make_batch(method)
    features = method.classifier.features(batch.images)
    logits = method.classifier.head(features)
    parts = (features[:8], features[8:]) if of == "features" else (logits[8:],)
    found, _ = method(batch, HALFWAY)
    assert set(found) == {"class", loss}
    assert found["class"].item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits[:8], batch.labels).item(), rel=1e-5
    )
    assert found[loss].item() == pytest.approx(0.7 * function(*parts).item(), rel=1e-4)


COST = {"feature_weight": 0.2, "label_weight": 0.7}


def halves(rows):
    """The rows of the source and of the target."""
    return rows[:8], rows[8:]


@pytest.mark.parametrize(
    ("name", "loss", "settings", "function"),
    [
        (
            "jan",
            "joint_mmd",
            {},
            lambda f, z, y: functions.joint_mmd(*zip(halves(f), halves(z.softmax(1)), strict=True)),
        ),
        (
            "afn",
            "norm",
            {"step": 0.5},
            lambda f, z, y: sum(functions.stepwise_feature_norm(part, 0.5) for part in halves(f)),
        ),
        (
            "deepjdot",
            "transport",
            COST,
            lambda f, z, y: functions.transport_cost(f[:8], y, f[8:], z[8:], *COST.values()),
        ),
    ],
)
def test_a_method_is_cross_entropy_and_a_weighted_loss_of_features_and_predictions(
    build, make_batch, name, loss, settings, function
):
    method = build(name, weight=0.7, **settings).eval()
    batch = make_batch(method)
    features = method.classifier.features(batch.images)
    logits = method.classifier.head(features)
    found, _ = method(batch, HALFWAY)
    expected = torch.nn.functional.cross_entropy(logits[:8], batch.labels)
    assert found["class"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found[loss].item() == pytest.approx(0.7 * function(features, logits, batch.labels).item(), rel=1e-4)


def test_rotation_asks_for_the_quarter_turns_that_were_made(build, make_batch):
    method = build("rotation").eval()
    batch = make_batch(method)
    seen = []
    method.classifier.features.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.manual_seed(3)
    losses, _ = method(batch, HALFWAY)
    torch.manual_seed(3)
    turns = torch.randint(4, (len(batch.images),))
    turned = seen[0][8:]
    for image, original, quarter in zip(turned, batch.images, turns.tolist(), strict=True):
        expected = original
        for _ in range(quarter):
            expected = expected.transpose(1, 2).flip(1)  # counter-clockwise
        assert torch.equal(image, expected)
    rotations = method.rotation_head(method.classifier.features(turned))
    assert losses["rotation"].item() == pytest.approx(
        torch.nn.functional.cross_entropy(rotations, turns).item(), rel=1e-5
    )


@pytest.mark.parametrize("size", [(8, 8), (9, 12)])
def test_the_fourier_swap_is_that_of_the_whole_spectrum(size):
    generator = torch.Generator().manual_seed(0)
    source, target = torch.rand(2, 3, 2, *size, generator=generator)
    reach = int(0.2 * min(size))
    spectra = [torch.fft.fftshift(torch.fft.fft2(images), dim=(2, 3)) for images in (source, target)]
    amplitude, (rows, columns) = spectra[0].abs(), (side // 2 for side in size)
    square = (..., slice(rows - reach, rows + reach + 1), slice(columns - reach, columns + reach + 1))
    amplitude[square] = spectra[1].abs()[square]
    shifted = torch.fft.ifftshift(torch.polar(amplitude, spectra[0].angle()), dim=(2, 3))
    assert torch.allclose(fourier_swap(source, target, 0.2), torch.fft.ifft2(shifted).real, atol=1e-5)
    assert torch.allclose(fourier_swap(source, source, 0.2), source, atol=1e-6)


def test_fda_has_the_papers_robust_entropy_on_target_images_as_they_are(build, make_batch):
    method = build("fda", entropy_weight=0.5, power=1.5).eval()
    batch = make_batch(method)
    probabilities = method.classifier(batch.target).softmax(1).tolist()
    entropies = [sum(-p * math.log(p) for p in row) / math.log(3) for row in probabilities]
    expected = 0.5 * sum((entropy**2 + 0.001**2) ** 1.5 for entropy in entropies) / len(entropies)
    assert method(batch, HALFWAY)[0]["entropy"].item() == pytest.approx(expected, rel=1e-4)


def test_the_smallest_fourier_swap_gives_each_image_the_mean_of_the_target():
    source, target = torch.rand(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(fourier_swap(source, target, 0.0).mean((2, 3)), target.mean((2, 3)), atol=1e-6)
