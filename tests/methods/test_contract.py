"""What holds for every registered method; one that is not in the table below fails."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from jaxtyping import config as jaxtyping_config
from torch.utils._python_dispatch import TorchDispatchMode

from mutualign.data.types import Batch
from mutualign.methods import METHODS
from mutualign.methods.dann import DANN
from mutualign.nn.classifier import Outputs
from mutualign.training.diagnosis import FiniteCheck
from tests.training.tiny_runs import assert_resumes_after_every_step, has_own_forward, make_recipe, make_trainer

HALFWAY = torch.tensor(0.5)
BACKBONE, HEAD = "classifier.features", "classifier.head"

# For each method: settings with which every loss takes part, and the parts that each of its losses trains; no others.
# With several players, a loss is named "player+player: loss", and the parts are those of the players that it moves.
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
        {"threshold": 0.0, "information_weight": 1.0},
        {
            "class": {BACKBONE, HEAD},
            "domain": {BACKBONE, "discriminator"},
            "mi": {BACKBONE, "critic"},
            "information": {BACKBONE, HEAD},
            "self_training": {BACKBONE, HEAD},
        },
    ),
    "mmd": ({}, {"class": {BACKBONE, HEAD}, "mmd": {BACKBONE}}),
    "jan": ({}, {"class": {BACKBONE, HEAD}, "joint_mmd": {BACKBONE, HEAD}}),
    "coral": ({}, {"class": {BACKBONE, HEAD}, "coral": {BACKBONE}}),
    "cdan": ({}, {"class": {BACKBONE, HEAD}, "domain": {BACKBONE, "discriminator"}}),
    "deepjdot": ({}, {"class": {BACKBONE, HEAD}, "transport": {BACKBONE, HEAD}}),
    "bsp": ({}, {"class": {BACKBONE, HEAD}, "domain": {BACKBONE, "discriminator"}, "spectral": {BACKBONE}}),
    "afn": ({}, {"class": {BACKBONE, HEAD}, "norm": {BACKBONE}}),
    "mcd": (
        {"feature_updates": 1},
        {
            "features+heads: class": {BACKBONE, HEAD, "second_head"},
            "heads: heads": {HEAD, "second_head"},
            "features: discrepancy_1": {BACKBONE},
        },
    ),
    "mdd": ({}, {"class": {BACKBONE, HEAD}, "disparity": {BACKBONE, "opponent"}}),
    "daln": ({}, {"class": {BACKBONE, HEAD}, "discrepancy": {BACKBONE, HEAD}}),
    "entropy": ({}, {"class": {BACKBONE, HEAD}, "entropy": {BACKBONE, HEAD}}),
    "information_maximisation": ({}, {"class": {BACKBONE, HEAD}, "information": {BACKBONE, HEAD}}),
    "bnm": ({}, {"class": {BACKBONE, HEAD}, "nuclear_norm": {BACKBONE, HEAD}}),
    "mcc": ({}, {"class": {BACKBONE, HEAD}, "confusion": {BACKBONE, HEAD}}),
    "adabn": ({}, {}),
    "adamatch": ({"threshold": 0.0}, {"class": {BACKBONE, HEAD}, "self_training": {BACKBONE, HEAD}}),
    "self_ensembling": (
        {"threshold": 0.0},
        {"class": {BACKBONE, HEAD}, "consistency": {BACKBONE, HEAD}, "balance": {BACKBONE, HEAD}},
    ),
    "atdoc": ({}, {"class": {BACKBONE, HEAD}, "neighbours": {BACKBONE, HEAD}}),
    "shot": ({}, {"information": {BACKBONE}, "pseudo_labels": {BACKBONE}}),
    "vada": (
        {},
        {
            "class": {BACKBONE, HEAD},
            "domain": {BACKBONE, "discriminator"},
            "entropy": {BACKBONE, HEAD},
            "target_vat": {BACKBONE, HEAD},
            "source_vat": {BACKBONE, HEAD},
        },
    ),
    "dirt_t": ({}, {"entropy": {BACKBONE, HEAD}, "target_vat": {BACKBONE, HEAD}, "teacher": {BACKBONE, HEAD}}),
    "rotation": ({}, {"class": {BACKBONE, HEAD}, "rotation": {BACKBONE, "rotation_head"}}),
    "neighbour_information": (
        {"neighbour_start": 0.0},
        {"class": {BACKBONE, HEAD}, "information": {BACKBONE, HEAD}, "neighbours": {BACKBONE, HEAD}},
    ),
    "fda": ({}, {"class": {BACKBONE, HEAD}, "entropy": {BACKBONE, HEAD}}),
}
EVERY_LOSS = [(name, loss) for name, (_, losses) in REACHES.items() for loss in losses]


def compiles(name):
    """Whether the step should compile to one graph; other methods say why not."""
    return has_own_forward(name) and not METHODS[name].method.graph_break


def part_of(key):
    """The part of a method that a parameter belongs to."""
    return next((part for part in (BACKBONE, HEAD) if key.startswith(part + ".")), key.partition(".")[0])


def updates_of(method, batch, seed=3, progress=HALFWAY):
    """The updates of one step, none of which is applied."""

    @torch.no_grad()
    def look():
        mode = method.training
        features = method.eval().classifier.features(batch.target)
        logits = method.classifier.head(features)
        method.train(mode)
        return Outputs(logits.float(), features.float())

    torch.manual_seed(seed)
    method.begin_epoch(look)
    return list(method.updates(batch, progress))


def losses_of(method, batch, seed=3, progress=HALFWAY):
    several = len(method.parameter_groups()) > 1
    return {
        f"{'+'.join(update.players)}: {name}" if several else name: loss
        for update in updates_of(method, batch, seed, progress)
        for name, loss in update.losses.items()
    }


def spread_pseudo_labels(method, batch):
    """Shift the labeller's logits so that no class is the top one of all target images: then there are pairs."""
    labeller = method.pseudo_labeller
    if labeller is not None and labeller.model is not method.classifier:
        labeller.model.head[3].bias.data -= labeller.model(batch.target).mean(0)


def assert_finite(method, batch):
    losses = losses_of(method, batch)
    for name, loss in losses.items():
        assert math.isfinite(loss.item()), name
    for loss in losses.values():
        loss.backward(retain_graph=True)
    assert all(weight.grad.isfinite().all() for weight in method.parameters() if weight.grad is not None)


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

    player = loss.partition(": ")[0] if ": " in loss else "all"
    groups = [group for one in player.split("+") for group in method.parameter_groups()[one]]
    moved = {id(weight) for group in groups for weight in group.parameters}
    for key, parameter in method.named_parameters():
        gradient = 0.0 if parameter.grad is None else parameter.grad.abs().max().item()
        if id(parameter) in moved:
            assert (gradient > 0) == (part_of(key) in reaches[loss]), key
        assert not key.startswith("teacher.") or (parameter.grad is None and not parameter.requires_grad), key


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_metrics_are_scalars_and_metrics_carry_no_gradient(build, make_batch, name):
    method = build(name).train()
    for update in updates_of(method, make_batch(method)):
        assert all(value.shape == () and value.requires_grad for value in update.losses.values())
        assert all(value.shape == () and not value.requires_grad for value in update.metrics.values())


@pytest.mark.parametrize("name", [name for name in METHODS if issubclass(METHODS[name].method, DANN)])
def test_the_domain_gradient_is_reversed_at_the_features_and_not_at_the_discriminator(build, make_batch, name):
    method = build(name).train()
    features, inputs = [], []
    method.classifier.features.register_forward_hook(lambda module, _, output: features.append(output))
    method.discriminator.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    loss = losses_of(method, make_batch(method))["domain"]
    before, after = torch.autograd.grad(loss, [features[0], inputs[0]], retain_graph=True)
    assert after.abs().max().item() > 0
    assert torch.allclose(before, -method.strength(HALFWAY) * after, rtol=1e-5, atol=1e-9)

    weights = list(method.discriminator.parameters())
    found = torch.autograd.grad(loss, weights)
    is_source = torch.tensor([1.0] * 8 + [0.0] * 6)
    logits = method.discriminator(inputs[0].detach())
    plain = -(is_source * logits.sigmoid().log() + (1 - is_source) * (1 - logits.sigmoid()).log()).mean()
    for mine, theirs in zip(found, torch.autograd.grad(method.weight * plain, weights), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-7)


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
        assert_finite(method, batch)


@pytest.mark.parametrize("name", METHODS)
def test_a_class_may_be_missing_and_either_domain_may_have_a_single_image(build, make_batch, name):
    method = build(name, **REACHES[name][0]).train()
    for labels in ([0] * 8, [2] * 8, [0, 0, 0, 0, 2, 2, 2, 2]):
        assert_finite(method, make_batch(method, labels=torch.tensor(labels)))
    for n_source, n_target in ((1, 7), (7, 1), (1, 1)):
        method = build(name, **REACHES[name][0]).train()  # another size is another training set
        assert_finite(method, make_batch(method, n_source, n_target))


@pytest.mark.parametrize("name", [name for name in METHODS if "threshold" in REACHES[name][0]])
def test_no_target_image_need_be_confident(build, make_batch, name):
    method = build(name, **REACHES[name][0] | {"threshold": 1.0}).train()
    assert_finite(method, make_batch(method))


@pytest.mark.parametrize("name", METHODS)
def test_channels_sizes_class_counts_and_memory_layouts_are_the_tasks(build, make_batch, name):
    for shape, classes in (((1, 10, 15), 2), ((4, 12, 12), 37)):
        method = build(name, shape, classes, **REACHES[name][0]).train()
        batch = make_batch(method, shape=shape)
        channels_last = Batch(batch.images.contiguous(memory_format=torch.channels_last), *batch[1:])
        expected, found = losses_of(method, batch), losses_of(method, channels_last)
        for key, loss in expected.items():
            assert found[key].item() == pytest.approx(loss.item(), rel=1e-4), key


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
    seen = []
    for seed in (3, 4):
        mine, theirs = losses_of(method, batch, seed), losses_of(loaded, batch, seed)
        assert {key: loss.item() for key, loss in mine.items()} == {key: loss.item() for key, loss in theirs.items()}
        seen.append({key: loss.item() for key, loss in mine.items()})
        for each in (method, loaded):
            with torch.no_grad():
                for parameter in each.classifier.parameters():
                    parameter.mul_(1.01)
            each.after_step()
    assert seen[0] != seen[1] or not seen[0]  # the step shows in the losses


@pytest.mark.parametrize("name", METHODS)
def test_a_run_resumes_bit_for_bit_after_every_step(name):
    whole = assert_resumes_after_every_step(make_recipe(name))
    assert any(key.startswith("optimiser.") for key in whole.tensors) == bool(make_trainer(name).optimisers)


class Reads(TorchDispatchMode):
    """Counts the operators whose result the CPU waits for, and tensors from Python's numbers, whose copy waits."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masked = func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)
        waits = {torch.ops.aten.nonzero, torch.ops.aten.masked_select, torch.ops.aten._unique2, torch.ops.aten.equal}
        if masked:
            self.count += any(index is not None and index.dtype == torch.bool for index in args[1])
        self.count += func.overloadpacket in waits | {torch.ops.aten._local_scalar_dense, torch.ops.aten.lift_fresh}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_not_wait_for_the_device(name):
    trainer = make_trainer(name)
    trainer.check = FiniteCheck(trainer.method, trainer.fabric, "here", deferred=True)  # as on a GPU
    trainer.step()
    rates = []
    for optimiser in trainer.optimisers.values():
        real = optimiser.set_rate
        optimiser.set_rate = lambda progress, real=real: rates.append(real(progress))
    with Reads() as reads:
        trainer.step()
    plans = int(name == "deepjdot")  # which are computed on the CPU
    assert reads.count == 2 * len(rates) + plans  # a learning rate is read from a tensor that is made on the CPU


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's compiler does
@pytest.mark.parametrize(
    "name", [name for name in METHODS if has_own_forward(name) and not METHODS[name].method.graph_break]
)
def test_the_step_compiles_to_one_graph_for_all_progress_with_the_same_losses(build, make_batch, name):
    method = build(name, **REACHES[name][0]).train()
    batch, graphs = make_batch(method), []
    jaxtyping_config.update("jaxtyping_disable", True)
    try:
        compiled = torch.compile(method, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph.forward)
        for progress in (0.0, 0.25, 0.5):
            expected = losses_of(method, batch, progress=torch.tensor(progress))
            torch.manual_seed(3)
            found, _ = compiled(batch, torch.tensor(progress))
            for key, loss in expected.items():
                assert found[key].item() == pytest.approx(loss.item(), rel=1e-5), key
            method.after_step()
        assert len(graphs) == 1
    finally:
        jaxtyping_config.update("jaxtyping_disable", False)
        torch._dynamo.reset()
