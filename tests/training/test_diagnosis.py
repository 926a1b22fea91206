"""NaN and infinity, wherever they come from: step and images are named, and the weights stay as they were."""

from __future__ import annotations

import re

import pytest
import torch

from mutualign.data.types import ImageShape, LabelledImages, UnlabelledImages
from mutualign.recipes import OptimConfig, Recipe, Stage
from mutualign.training.batches import Batches
from mutualign.training.diagnosis import FiniteCheck, NotFinite
from mutualign.training.distributed import make_fabric
from mutualign.training.loop import StageTrainer
from mutualign.training.setup import build_classifier, build_method
from tests.training.tiny_runs import MemoryStore

SHAPE = ImageShape(3, 1, 1)  # feature vectors of three numbers: images whose values may be not finite
NAN, INF = float("nan"), float("inf")


def make_trainer(name, source=None, target=None, optim=OptimConfig()):  # noqa: B008 - frozen
    recipe = Recipe("t", (Stage(name, epochs=2, batch_size=5, optim=optim),), backbone="mlp", precision="float32")
    torch.manual_seed(0)
    method = build_method(recipe.stages[0], build_classifier(recipe, SHAPE, 3))
    generator = torch.Generator().manual_seed(1)
    vectors = [torch.rand(n, 1, 1, 3, generator=generator) for n in (10, 15)]
    for images, (row, value) in zip(vectors, (source or (0, 0.5), target or (0, 0.5)), strict=True):
        images[row] = value
    labelled = LabelledImages(UnlabelledImages(vectors[0]), torch.arange(10) % 3)
    used = UnlabelledImages(vectors[1]) if method.uses_target else None
    batches = Batches(labelled, used, 3, 5, 0, 0)
    return StageTrainer(0, recipe.stages[0], 0, method, batches, make_fabric("float32", "cpu"))


def state_of(trainer):
    """Copies of weights, moments and sums; NaN compares as 0."""
    tensors = trainer.method.state_dict() | trainer.optimisers["all"].state() | trainer.sums
    return {key: value.nan_to_num().clone() for key, value in tensors.items()}


def message_of(trainer):
    """Train until a step is refused; return the message. State and step count are those before that step."""
    for step in range(6):
        before = state_of(trainer)
        try:
            trainer.step()
        except NotFinite as error:
            after = state_of(trainer)
            assert before.keys() == after.keys()
            assert all(torch.equal(after[key], value) for key, value in before.items())
            assert trainer.steps_done == step
            return str(error)
    raise AssertionError("no step was refused")


@pytest.mark.parametrize("bad", [NAN, -INF])
@pytest.mark.parametrize("name", ["source_only", "dann", "mani"])
def test_an_input_that_is_not_finite_is_named_by_its_row(name, bad):
    trainer = make_trainer(name, source=(7, bad))
    message = message_of(trainer)
    assert "\n  from     images that are not finite themselves: source 7\n" in message
    assert re.search(rf"not finite at stage 0 \({name}\), step {trainer.steps_done}: ", message)
    batch = re.search(r"\n  batch    source ([\d, ]+)", message).group(1)
    assert sorted(map(int, batch.split(", "))) == sorted(trainer.batches.rows(trainer.steps_done).source.tolist())
    assert "\n  hint:    lower" in message


def test_a_target_image_and_one_that_overflows_in_the_network_are_named_too():
    assert "not finite themselves: target 11\n" in message_of(make_trainer("dann", target=(11, NAN)))
    message = message_of(make_trainer("source_only", source=(4, 3e38)))
    assert "images whose logits are not finite: source 4\n" in message


def test_a_weight_that_is_not_finite_is_named():
    trainer = make_trainer("mani")
    trainer.step()
    with torch.no_grad():
        trainer.method.classifier.head.bias[0] = NAN
    with pytest.raises(
        NotFinite, match=r"from     a weight that was not finite before the step: classifier\.head\.bias"
    ):
        trainer.step()


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_gradient_that_is_not_finite_is_named_with_its_weight_although_the_losses_are_finite(bad):
    trainer = make_trainer("dann")
    trainer.step()
    trainer.method.discriminator.layers[2].weight.register_hook(lambda gradient: gradient.clone().fill_(bad))
    with pytest.raises(NotFinite) as error:
        trainer.step()
    message = str(error.value)
    assert message.startswith("a gradient is not finite at stage 0 (dann), step 1: of discriminator.layers.2.weight ")
    assert re.search(r"\(losses: class [\d.]+, domain [\d.]+\)\n  from     the arithmetic of the losses", message)


@pytest.mark.parametrize("deferred", [False, True])
def test_gradients_that_are_large_but_finite_are_not_taken_for_infinite(deferred):
    trainer = make_trainer("source_only", optim=OptimConfig("sgd", lr=1e-30))
    trainer.check = FiniteCheck(trainer.method, trainer.fabric, "here", deferred=deferred)
    weight = trainer.method.classifier.head.weight
    weight.register_hook(lambda gradient: gradient * 0 + 1e30)  # its square is not finite in float32
    before = weight.detach().clone()
    trainer.step()
    trainer.check.raise_if_any()
    assert torch.allclose(weight, before - 1)


OPTIMS = [OptimConfig("adam"), OptimConfig("adamw", weight_decay=0.1), OptimConfig("sgd", momentum=0.9)]


@pytest.mark.parametrize("optim", OPTIMS, ids=lambda optim: optim.name)
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_where_reading_would_stall_the_device_the_optimiser_skips_the_bad_step_and_all_after_it(optim, where):
    trainer = make_trainer("dann", optim=optim)
    trainer.check = FiniteCheck(trainer.method, trainer.fabric, "stage 0 (dann)", deferred=True)
    store = MemoryStore()
    trainer.step()
    trainer.save(store, keep=1)
    assert trainer.optimisers["all"].torch.found_inf == 0
    kept = {key: value for key, value in state_of(trainer).items() if key not in trainer.sums}
    bias = trainer.method.discriminator.layers[2].bias
    if where == "gradient":
        handle = bias.register_hook(lambda gradient: gradient * NAN)
    else:
        handle = trainer.method.discriminator.register_forward_hook(lambda module, args, output: output * INF)
    trainer.step()  # nothing is raised yet
    handle.remove()
    trainer.step()
    after = state_of(trainer)
    assert all(torch.equal(after[key], value) for key, value in kept.items())
    for refused in (lambda: trainer.save(store, keep=1), trainer.finish_epoch):
        with pytest.raises(
            NotFinite, match=r"not finite at stage 0 \(dann\), step 1; later steps were skipped\n  hint:"
        ):
            refused()
    assert store.info["steps_done"] == 1
