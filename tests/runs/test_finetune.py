"""`--finetune`, `--backbone` and `--weights`: the network that a recipe trains, and a run that trains all of it."""

from __future__ import annotations

import pytest
import torch

from mutualign.data.folders.folder_task import FolderTask
from mutualign.errors import MutualignError
from mutualign.evaluation.records import EpochRecord
from mutualign.nn.backbones.finetuned import Finetuned, random_crops
from mutualign.nn.pretrained import pretrained_tensors
from mutualign.runs.experiment import Experiment, Observer
from mutualign.runs.loading import load_task, photo_hint, recipe_for
from mutualign.runs.network_choice import NetworkChoice
from mutualign.runs.predictor import Predictor
from mutualign.training.distributed import make_fabric
from mutualign.training.duration import estimate_seconds
from mutualign.training.optim import build_optimisers
from mutualign.training.setup import build_method, initial_classifier
from tests.data.folders.images import write

LITE0 = "efficientnet_lite0"
FEW = ("stages.0.epochs=2", "stages.0.epoch_steps=2", "stages.0.batch_size=4", "precision=float32")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Dark and light pictures of 48 pixels in two domains."""
    folder = tmp_path_factory.mktemp("photos")
    for domain, shift in (("source", 0), ("target", 20)):
        for name, value in (("dark", 40), ("light", 180)):
            for number in range(6):
                write(folder / domain / name / f"{number}.png", value + shift + number, (48, 48))
    return folder


@pytest.fixture(scope="module")
def own(photos) -> FolderTask:
    return FolderTask(photos / "source", photos / "target", image_size=48)


class Diary(Observer):
    """What a run reports, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seconds = 0.0

    def expects(self, seconds: float) -> None:
        self.lines.append("estimate")
        self.seconds = seconds

    def step(self, stage: int, done: int, total: int) -> None:
        self.lines.append(f"step {done} of {total}")

    def epoch(self, record: EpochRecord) -> None:
        self.lines.append("epoch")


def test_finetuning_trains_all_layers_from_the_published_weights_the_pretrained_ones_at_a_tenth(own, photos):
    recipe = recipe_for(own, "photos", FEW, NetworkChoice(LITE0, finetune=True))
    task = load_task("", photos, recipe, own)
    assert (task.shape, recipe.features, recipe.backbone) == ((1, 48, 48), "", f"finetune:{LITE0}")
    classifier = initial_classifier(recipe, task.shape, 2)
    assert isinstance(classifier.features, Finetuned)
    published = pretrained_tensors(LITE0)
    for tensor, expected in zip(classifier.features.network.state_dict().values(), published.values(), strict=False):
        assert torch.equal(tensor, expected)
    optimiser = build_optimisers(
        recipe.stages[0].optim, build_method(recipe.stages[0], classifier), torch.device("cpu")
    )
    slow, fast = optimiser["all"].torch.param_groups
    assert {id(one) for one in slow["params"]} == {id(one) for one in classifier.features.network.parameters()}
    assert {tuple(one.shape) for one in fast["params"]} == {(512, 1280), (512,), (2, 512), (2,)}
    assert optimiser["all"].factors == [0.1, 1.0]


@pytest.fixture(scope="module")
def finetuned(own, photos):
    """A finished run, and what it reported."""
    recipe, diary = recipe_for(own, "photos", FEW, NetworkChoice(LITE0, finetune=True)), Diary()
    run = photos / "runs" / "photos" / "seed-0"
    Experiment.start(recipe, load_task("", photos, recipe, own), 0, run, accelerator="cpu", observer=diary).run()
    return run, diary


def test_the_time_is_estimated_before_the_first_step(finetuned):
    _, diary = finetuned
    steps = ["step 1 of 6", "step 2 of 6", "step 3 of 6", "epoch", "step 4 of 6", "step 5 of 6", "step 6 of 6", "epoch"]
    assert diary.lines == ["estimate", *steps]  # 10 training images in batches of 4
    assert 0 < diary.seconds < 600


def test_all_layers_have_moved_and_the_run_predicts_what_it_recorded(finetuned):
    run, _ = finetuned
    predictor = Predictor.load(run, which="last", accelerator="cpu")
    before = list(pretrained_tensors(LITE0).values())
    after = predictor.classifier.features.network.state_dict().values()
    moved = [not torch.equal(tensor, start) for tensor, start in zip(after, before, strict=False) if tensor.dim() == 4]
    assert all(moved)
    outputs, _ = predictor.run.checkpoints.load_outputs(0, "last")
    pixels = predictor.run.checkpoints.load("review")[0]["target_samples"]
    torch.testing.assert_close(predictor.probabilities(pixels), outputs["target_logits"].softmax(1), atol=1e-5, rtol=0)


def test_an_estimate_grows_with_the_steps_and_leaves_the_random_state_alone(own, photos):
    recipe = recipe_for(own, "source_only", ("stages.0.batch_size=4", "stages.0.epochs=1", "precision=float32"))
    longer = recipe_for(own, "source_only", ("stages.0.batch_size=4", "stages.0.epochs=1000", "precision=float32"))
    task, fabric = load_task("", photos, recipe, own), make_fabric("float32", "cpu")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (
        estimate_seconds(one, task.source_train, task.target_train.images, task.shape, 2, fabric)
        for one in (recipe, longer)
    )
    assert 0 < 50 * first < second
    assert torch.equal(torch.get_rng_state(), state)


def test_crops_are_squares_within_the_image_and_half_are_mirrored():
    places = torch.linspace(0.0, 1.0, 64)  # of a ramp whose values are positions
    images = torch.stack([places.expand(64, 64), places[:, None].expand(64, 64)])[None].repeat(200, 1, 1, 1)
    torch.manual_seed(0)
    crops = random_crops(images)
    left, right, top, bottom = crops[:, 0, 5, 0], crops[:, 0, 5, -1], crops[:, 1, 0, 5], crops[:, 1, -1, 5]
    mirrored = right < left
    assert 70 < mirrored.sum() < 130
    torch.testing.assert_close((right - left).abs(), bottom - top, atol=0.02, rtol=0)
    assert ((bottom - top) > 0.66).all()
    assert (bottom - top).min() < 0.75
    assert (bottom - top).max() > 0.93
    assert crops.min() >= 0
    assert crops.max() <= 1


def test_crops_of_a_photo_are_as_exact_in_bf16_as_its_values():
    places = torch.linspace(0.0, 1.0, 224).expand(4, 3, 224, 224).clone()

    def crops(images):
        torch.manual_seed(0)
        return random_crops(images).float()

    with torch.autocast("cpu", torch.bfloat16):
        found = crops(places.bfloat16())
    rounding = torch.finfo(torch.bfloat16).eps / 2
    torch.testing.assert_close(found, crops(places.bfloat16().float()), atol=rounding, rtol=0)


def test_a_named_network_takes_the_place_of_the_frozen_one_or_of_the_backbone():
    def chosen(recipe, *choice):
        return NetworkChoice(*choice).apply(recipe)

    frozen = chosen("photos", "timm:resnet18", "pretrained")
    assert (frozen.features, frozen.backbone, frozen.backbone_weights) == ("timm:resnet18", "bottleneck", "pretrained")
    whole = chosen("fast", "timm:resnet18", "weights.safetensors")
    assert (whole.features, whole.backbone, whole.pretrained) == ("", "timm:resnet18", None)
    assert chosen("photos", "mlp").features == "efficientnet_lite2"
    assert chosen("photos", None, None, True).backbone == "finetune:efficientnet_lite2"
    tuned = chosen("photos", "timm:resnet18", "pretrained", True)
    assert (tuned.features, tuned.backbone) == ("", "finetune:timm:resnet18")
    assert tuned.stages[0].optim.backbone_lr_factor == 0.1
    assert NetworkChoice(finetune=True).apply("photos", ["stages.0.batch_size=5"]).stages[0].batch_size == 5
    for recipe, choice, message in (
        ("fast", (None, None, True), "fast has no pretrained network\n  hint: .*such as photos"),
        ("photos", ("timm:resnet18",), "needs pretrained weights\n  hint: .*--weights pretrained"),
        ("photos", ("efficientnet_lite1", "file.safetensors"), 'not for "efficientnet_lite1"\n  hint: '),
        ("photos", (None, None, True), None),
    ):
        if message:
            with pytest.raises(MutualignError, match=message):
                chosen(recipe, *choice)


def test_a_recipe_that_trains_a_whole_network_on_photos_is_pointed_to_one_for_features(own, photos):
    for name, choice, hint in (
        ("source_only", NetworkChoice(), "photos_source_only"),
        ("dann", NetworkChoice(), "photos"),
        ("photos", NetworkChoice(finetune=True), None),
    ):
        recipe = recipe_for(own, name, (), choice)
        found = list(photo_hint(recipe, load_task("", photos, recipe, own)))
        assert [f"--recipe {hint} " in one for one in found] == [True] * (hint is not None)
