"""NaN and infinity, wherever they come from: the step is told, and so are the images; the weights stay as they were."""

from __future__ import annotations

import re

import pytest
import torch

from mutualign.data.types import ImageShape, LabelledImages, UnlabelledImages
from mutualign.methods import METHODS
from mutualign.nn.losses import all_pairs_mutual_information, jsd_mutual_information
from mutualign.recipes import parse_recipe
from mutualign.training.batches import Batches
from mutualign.training.distributed import make_fabric
from mutualign.training.loop import NotFinite, StageTrainer
from mutualign.training.setup import build_classifier, build_method

SHAPE = ImageShape(3, 1, 1)  # feature vectors of three numbers: images that can hold what is not finite


def make_trainer(name, source=None, target=None, precision="float32"):
    stage = {"method": name, "epochs": 2, "batch_size": 5}
    settings = {"name": "t", "description": "", "backbone": "mlp", "precision": precision, "stages": [stage]}
    recipe = parse_recipe(settings, "test")
    torch.manual_seed(0)
    method = build_method(recipe.stages[0], build_classifier(recipe, SHAPE, 3))
    generator = torch.Generator().manual_seed(1)
    vectors = [torch.rand(n, 1, 1, 3, generator=generator) for n in (10, 15)]
    for images, (row, value) in zip(vectors, (source or (0, 0.5), target or (0, 0.5)), strict=True):
        images[row] = value
    labelled = LabelledImages(UnlabelledImages(vectors[0]), torch.arange(10) % 3)
    used = UnlabelledImages(vectors[1]) if method.uses_target else None
    batches = Batches(labelled, used, 3, 5, 0, 0)
    return StageTrainer(0, recipe.stages[0], 0, method, batches, make_fabric(precision, "cpu"))


def steps_until_told(trainer):
    """Steps of training until it stops; the message, and the weights before that step and now."""
    for _ in range(6):
        before = {name: weight.clone() for name, weight in trainer.method.state_dict().items()}
        moments = {key: value.clone() for key, value in trainer.optimizer.state_dict()["state"].get(0, {}).items()}
        try:
            trainer.step()
        except NotFinite as error:
            for name, weight in trainer.method.state_dict().items():
                assert torch.equal(weight, before[name]), name
            for name, value in trainer.optimizer.state_dict()["state"].get(0, {}).items():
                assert torch.equal(value, moments[name]), name
            return str(error)
    raise AssertionError("nothing was told")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "mutual_align"])  # whose views are of images
def test_an_input_that_is_not_finite_is_named_by_its_row(name, bad, faults):
    with faults.injected("not finite"):
        trainer = make_trainer(name, source=(7, bad))
        message = steps_until_told(trainer)
        assert "\n  from     images that are not finite themselves: source 7\n" in message
        assert re.search(rf"at stage 0 \({name}\), step {trainer.steps_done}: ", message)
        batch = re.search(r"\n  batch    source ([\d, ]+)", message).group(1)
        assert sorted(map(int, batch.split(", "))) == sorted(trainer.batches.rows(trainer.steps_done).source.tolist())


@pytest.mark.parametrize("name", ["dann", "mani"])
def test_a_target_image_that_is_not_finite_is_named_too(name, faults):
    with faults.injected("not finite"):
        message = steps_until_told(make_trainer(name, target=(11, float("nan"))))
        assert "not finite themselves: target 11\n" in message


def test_an_image_that_overflows_in_the_network_is_named(faults):
    with faults.injected("not finite"):
        message = steps_until_told(make_trainer("source_only", source=(4, 3e38)))
        assert "images whose logits are not finite: source 4\n" in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_told_with_its_weight_although_the_losses_are(bad, faults):
    trainer = make_trainer("dann")
    trainer.step()
    trainer.method.discriminator.layers[2].weight.register_hook(lambda gradient: gradient.clone().fill_(bad))
    with faults.injected("not finite"):
        message = steps_until_told(trainer)
        assert message.startswith(
            "a gradient is not finite at stage 0 (dann), step 1: of discriminator.layers.2.weight "
        )
        assert re.search(r"\(losses: class [\d.]+, domain [\d.]+\)\n  from     the losses' own arithmetic", message)


def test_gradients_that_are_large_but_finite_are_not_taken_for_infinite():
    trainer = make_trainer("source_only")
    weight = trainer.method.classifier.head.weight
    weight.register_hook(lambda gradient: gradient * 0 + 1e30)  # its square is not finite in float32
    trainer.step()
    assert trainer.steps_done == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_the_mutual_information_loss_is_finite_for_a_sure_critic_in_any_precision(dtype, size, faults):
    with faults.injected("not finite", 2):
        scores = torch.full((64,), size, dtype=dtype, requires_grad=True)
        loss = jsd_mutual_information(scores, -scores)
        assert loss.item() == pytest.approx(0 if size > 0 else 2e4, rel=0.01)
        loss.backward()
        assert scores.grad.isfinite().all()
        square = torch.full((8, 8), size, dtype=dtype, requires_grad=True)
        loss = all_pairs_mutual_information(
            square, torch.eye(8).bool()
        )  # softplus(-T) of the same, softplus(T) of others
        assert loss.item() == pytest.approx(1e4, rel=0.01)
        loss.backward()
        assert square.grad.isfinite().all()
