"""What holds for every method; an entry of METHODS that is not in the table below fails."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from mutualign.data.types import Batch
from mutualign.methods import METHODS

HALFWAY = torch.tensor(0.5)
BACKBONE, HEAD = "classifier.features", "classifier.head"
PARTS = (BACKBONE, HEAD, "discriminator", "projection", "critic", "teacher")

# For each method: the settings that let every loss take part, and what each of its losses trains; nothing else.
REACHES = {
    "source_only": ({}, {"class": {BACKBONE, HEAD}}),
    "dann": ({}, {"class": {BACKBONE, HEAD}, "domain": {BACKBONE, "discriminator"}}),
    "mani": (
        {"threshold": 0.0},  # every target image is confident
        {
            "class": {BACKBONE, HEAD},
            "domain": {BACKBONE, "discriminator"},
            "mi": {BACKBONE, "projection", "critic"},
        },
    ),
    "mutual_align": (
        {"threshold": 0.0},
        {
            "class": {BACKBONE, HEAD},
            "domain": {BACKBONE, "discriminator"},
            "mi": {BACKBONE, "critic"},
            "self_training": {BACKBONE, HEAD},
        },
    ),
}
EVERY_LOSS = [(name, loss) for name, (_, losses) in REACHES.items() for loss in losses]
EVERY_DOMAIN_LOSS = [(name, loss) for name, loss in EVERY_LOSS if loss == "domain"]


def losses_of(method, batch, seed=3, progress=HALFWAY):
    torch.manual_seed(seed)
    losses, _ = method(batch, progress)
    return losses


def spread_pseudo_labels(method, batch):
    """Shift a teacher's logits so that none of its classes is the top one of all target images: there are pairs."""
    if method.teacher is not None:
        method.teacher.model.head[3].bias.data -= method.teacher(batch.target).mean(0)


def assert_finite(losses):
    for name, loss in losses.items():
        assert math.isfinite(loss.item()), name


def test_the_table_has_every_method():
    assert set(REACHES) == set(METHODS)


@pytest.mark.parametrize(("name", "loss"), EVERY_LOSS)
def test_a_loss_reaches_the_parameters_that_it_should_and_no_others(build, make_batch, name, loss):
    config, reaches = REACHES[name]
    method = build(name, **config).train()
    batch = make_batch(method, 24, 24)
    spread_pseudo_labels(method, batch)
    losses = losses_of(method, batch)
    assert set(losses) == set(reaches)
    losses[loss].backward()

    for key, parameter in method.named_parameters():
        part = next(part for part in PARTS if key.startswith(part + "."))
        gradient = 0.0 if parameter.grad is None else parameter.grad.abs().max().item()
        assert (gradient > 0) == (part in reaches[loss]), key


@pytest.mark.parametrize("name", METHODS)
def test_all_that_requires_a_gradient_gets_one_and_a_teacher_never_does(build, make_batch, name):
    method = build(name, **REACHES[name][0]).train()
    batch = make_batch(method, 24, 24)
    spread_pseudo_labels(method, batch)
    sum(losses_of(method, batch).values()).backward()
    for key, parameter in method.named_parameters():
        assert parameter.requires_grad != key.startswith("teacher."), key
        assert (parameter.grad is not None) == parameter.requires_grad, key


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_metrics_are_scalars_and_metrics_carry_no_gradient(build, make_batch, name):
    method = build(name).train()
    losses, metrics = method(make_batch(method), HALFWAY)
    assert all(value.shape == () and value.requires_grad for value in losses.values())
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


@pytest.mark.parametrize(("name", "loss"), EVERY_DOMAIN_LOSS)
def test_the_domain_gradient_is_reversed_at_the_features_and_not_at_the_discriminator(build, make_batch, name, loss):
    method = build(name).train()
    batch = make_batch(method)
    seen = []
    method.classifier.features.register_forward_hook(lambda module, inputs, output: seen.append(output))
    torch.manual_seed(0)
    losses, _ = method(batch, HALFWAY)
    weights = list(method.discriminator.parameters())
    reversed_, *at_discriminator = torch.autograd.grad(losses[loss], [seen[0], *weights])

    features = seen[0].detach().requires_grad_()  # the same without reversal
    is_source = torch.tensor([1.0] * 8 + [0.0] * 6)
    plain_loss = method.weight * F.binary_cross_entropy_with_logits(method.discriminator(features), is_source)
    plain, *plain_at_discriminator = torch.autograd.grad(plain_loss, [features, *weights])
    assert plain.abs().max().item() > 0
    strength = method.strength(HALFWAY).item()
    assert torch.allclose(reversed_, -strength * plain, rtol=1e-5, atol=1e-9)
    for mine, theirs in zip(at_discriminator, plain_at_discriminator, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_finite_on_extreme_logits(build, make_batch, name, precision):
    method = build(name, **REACHES[name][0]).train()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.mul_(1000)
    batch = make_batch(method)
    assert method.classifier(batch.images).abs().max().item() > 1e6
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        losses = losses_of(method, batch)
    assert_finite(losses)
    assert max(loss.item() for loss in losses.values()) > 1e3
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", METHODS)
def test_a_loaded_state_gives_identical_losses_before_and_after_a_step(build, make_batch, name):
    method = build(name, **REACHES[name][0]).train()
    batch = make_batch(method)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    method.after_step()
    loaded = build(name, seed=99, **REACHES[name][0]).train()
    loaded.load_state_dict(copy.deepcopy(method.state_dict()))
    for seed in (3, 4):
        mine, theirs = losses_of(method, batch, seed), losses_of(loaded, batch, seed)
        assert {key: loss.item() for key, loss in mine.items()} == {key: loss.item() for key, loss in theirs.items()}
        for each in (method, loaded):
            with torch.no_grad():
                for parameter in each.classifier.parameters():
                    parameter.mul_(1.01)
            each.after_step()


@pytest.mark.parametrize("name", METHODS)
def test_the_same_torch_seed_gives_the_same_losses_and_another_gives_others(build, make_batch, name):
    method = build(name).train()
    batch = make_batch(method)
    first, again, other = (losses_of(method, batch, seed)["class"].item() for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("labels", [[0] * 8, [2] * 8, [0, 0, 0, 0, 2, 2, 2, 2]])
@pytest.mark.parametrize("name", METHODS)
def test_a_class_may_be_missing_from_a_batch(build, make_batch, name, labels):
    method = build(name, **REACHES[name][0]).train()
    losses = losses_of(method, make_batch(method, labels=torch.tensor(labels)))
    assert_finite(losses)
    sum(losses.values()).backward()
    assert method.classifier.head[0].weight.grad.isfinite().all()


@pytest.mark.parametrize(("n_source", "n_target"), [(1, 7), (7, 1), (1, 1), (5, 3)])
@pytest.mark.parametrize("name", METHODS)
def test_source_and_target_may_differ_in_size_down_to_a_single_image(build, make_batch, name, n_source, n_target):
    method = build(name, **REACHES[name][0]).train()
    assert_finite(losses_of(method, make_batch(method, n_source, n_target)))


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 10, 15), (4, 12, 12)])
@pytest.mark.parametrize("classes", [2, 37])
@pytest.mark.parametrize("name", METHODS)
def test_channels_sizes_and_class_counts_are_the_tasks(build, make_batch, name, shape, classes):
    method = build(name, shape, classes, **REACHES[name][0]).train()
    batch = make_batch(method, shape=shape)
    assert_finite(losses_of(method, batch))
    assert method.classifier(batch.images).shape == (len(batch.images), classes)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's compiler does
@pytest.mark.parametrize("name", METHODS)
def test_the_step_compiles_to_one_graph_with_the_same_losses(build, make_batch, name):
    from jaxtyping import config

    method = build(name, **REACHES[name][0]).train()
    batch = make_batch(method)
    config.update("jaxtyping_disable", True)
    try:
        compiled = torch.compile(method, fullgraph=True, backend="eager")
        for progress in (0.0, 0.5):
            expected = losses_of(method, batch, progress=torch.tensor(progress))
            found = losses_of(compiled, batch, progress=torch.tensor(progress))
            for key, loss in expected.items():
                assert found[key].item() == pytest.approx(loss.item(), rel=1e-5), key
            method.after_step()
    finally:
        config.update("jaxtyping_disable", False)
        torch._dynamo.reset()


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_may_be_in_either_memory_layout(build, make_batch, name):
    method = build(name, **REACHES[name][0]).train()
    batch = make_batch(method)
    channels_last = Batch(batch.images.contiguous(memory_format=torch.channels_last), batch.labels)
    expected, found = losses_of(method, batch), losses_of(method, channels_last)
    for key, loss in expected.items():
        assert found[key].item() == pytest.approx(loss.item(), rel=1e-4), key
