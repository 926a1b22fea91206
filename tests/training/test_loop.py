"""The training loop: a step is plain PyTorch's, and a run that is stopped anywhere goes on bit for bit."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch

from mutualign.data.types import ImageShape, LabelledImages, UnlabelledImages
from mutualign.methods import METHODS
from mutualign.nn.randomness import derive_seed
from mutualign.recipes import Recipe, Stage, parse_recipe
from mutualign.runs.folder import RunFolder
from mutualign.training.batches import Batches
from mutualign.training.callbacks import Callbacks, CheckpointPolicy
from mutualign.training.distributed import make_fabric
from mutualign.training.loop import NotFinite, StageTrainer, Stopped, train
from mutualign.training.setup import build_classifier, build_method

SHAPE, CLASSES = ImageShape(3, 12, 12), 3
EPOCH = 5  # steps: 38 source images in batches of 8, the last of 6


@pytest.fixture(scope="module")
def data():
    """38 source images and 29 target images of three noisy stripes, one for each class."""
    rng = torch.Generator().manual_seed(0)

    def images(n):
        labels = torch.arange(n) % CLASSES
        pixels = torch.randint(0, 100, (n, 12, 12, 3), dtype=torch.uint8, generator=rng)
        for i, label in enumerate(labels.tolist()):
            pixels[i, 4 * label : 4 * label + 4] += 120
        return UnlabelledImages(pixels), labels

    return SimpleNamespace(source=LabelledImages(*images(38)), target=images(29)[0])


def make_recipe(*methods, epochs=2, precision="float32"):
    eager = {"threshold": 0.35}  # of a third by chance: pseudo-labels from the first step
    options = {"mani": eager, "mutual_align": eager}
    stages = [
        {"method": name, "epochs": epochs, "batch_size": 8, "learning_rate": 3e-3, "options": options.get(name, {})}
        for name in methods
    ]
    return parse_recipe({"name": "test", "description": "", "precision": precision, "stages": stages}, "test")


class Told:
    """Callbacks that keep what the loop tells, and stop it after so many steps in all or crash there."""

    def __init__(self, stop_after=None, crash_after=None):
        self.stop_after, self.crash_after = stop_after, crash_after
        self.steps, self.epochs, self.weights = [], [], []

    def on_step(self, stage, done, total):
        self.steps.append((stage, done, total))
        if len(self.steps) == self.crash_after:
            raise KeyboardInterrupt

    def on_epoch(self, method, epoch):
        self.epochs.append((epoch.stage, epoch.number, epoch.means))
        self.weights.append(copy.deepcopy(method.classifier.state_dict()))
        torch.rand(3)  # an evaluation may draw random numbers

    @property
    def callbacks(self):
        return Callbacks(self.on_step, self.on_epoch, lambda: len(self.steps) == self.stop_after)


def go(recipe, data, run, seed=0, told=None, save_every=60.0):
    told = told or Told()
    fabric = make_fabric(recipe.precision, "cpu")
    train(
        recipe,
        data.source,
        data.target,
        SHAPE,
        CLASSES,
        seed,
        run,
        fabric,
        told.callbacks,
        CheckpointPolicy(save_every),
    )
    return told


def assert_same_state(found, expected):
    """Of two checkpoints: the same tensors, bit for bit."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.fixture
def new_run(tmp_path):
    """Makes a run folder, a new one at each call."""
    count = iter(range(1000))
    return lambda: RunFolder.create(tmp_path / f"run-{next(count)}", {})


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """What a recipe comes to if nothing stops it: the last checkpoint and the epochs; trained once a recipe."""
    done = {}

    def uninterrupted(recipe):
        key = str(recipe)
        if key not in done:
            run = RunFolder.create(tmp_path_factory.mktemp("whole") / "run", {})
            told = go(recipe, data, run)
            done[key] = (*run.load_tensors("last"), told)
        return done[key]

    return uninterrupted


# A step ---------------------------------------------------------------------------------------------------------------


def make_trainer(name, data, seed=0, index=0):
    recipe = make_recipe(name)
    torch.manual_seed(1)
    method = build_method(recipe.stages[0], build_classifier(recipe, SHAPE, CLASSES))
    target = data.target if method.uses_target else None
    batches = Batches(data.source, target, 3, 8, seed, index)
    return StageTrainer(index, recipe.stages[0], seed, method, batches, make_fabric("float32", "cpu"))


@pytest.mark.parametrize("name", METHODS)
def test_steps_are_those_of_plain_pytorch(data, name):
    trainer = make_trainer(name, data, seed=7)
    plain = copy.deepcopy(trainer.method)
    optimizer = torch.optim.Adam([p for p in plain.parameters() if p.requires_grad], lr=3e-3, foreach=False)
    sums = {}
    for step in range(7):  # over the border of an epoch
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(7, 0, "step", step, 0))
            losses, metrics = plain(trainer.batches[step], torch.tensor(step / 10))
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            plain.after_step()
        for key, value in {**{f"loss_{key}": loss for key, loss in losses.items()}, **metrics}.items():
            sums[key] = sums.get(key, 0.0) + value.item()
        trainer.step()
        if name != "mani":  # its pairs and pseudo-labels turn on the last bit of a weight
            assert {key: total.item() for key, total in trainer.sums.items()} == pytest.approx(sums, rel=1e-4)
        for (key, mine), theirs in zip(trainer.method.named_parameters(), plain.parameters(), strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-3, atol=2e-5), (step, key)
    assert trainer.steps_done == 7


@pytest.mark.parametrize("name", METHODS)
def test_a_step_depends_on_seed_stage_and_number_and_not_on_torchs_generator(data, name):
    after = []
    for seed, index, noise in [(0, 0, 1), (0, 0, 2), (1, 0, 1), (0, 1, 1)]:
        trainer = make_trainer(name, data, seed, index)
        torch.manual_seed(noise)
        trainer.step()
        after.append(trainer.method.classifier.head[0].weight.detach().clone())
    assert torch.equal(after[0], after[1])
    assert not torch.equal(after[0], after[2])
    assert not torch.equal(after[0], after[3])


@pytest.mark.parametrize("name", METHODS)
def test_an_epochs_means_are_the_means_of_its_steps_and_of_them_only(data, name):
    trainer, values = make_trainer(name, data), []
    trainer.method.register_forward_hook(lambda module, inputs, output: values.append(output))
    for epoch in (1, 2):
        values.clear()
        for _ in range(EPOCH):
            trainer.step()
        told = trainer.finish_epoch()
        assert (told.stage, told.number) == (0, epoch)
        expected = {f"loss_{key}": sum(losses[key].item() for losses, _ in values) / EPOCH for key in values[0][0]}
        expected |= {key: sum(metrics[key].item() for _, metrics in values) / EPOCH for key in values[0][1]}
        assert told.means == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_of_every_step_is_its_schedules(data):
    trainer = make_trainer("source_only", data)
    stage = dataclasses.replace(trainer.stage, schedule="one_cycle", learning_rate=0.01)
    trainer = StageTrainer(0, stage, 0, trainer.method, trainer.batches, trainer.fabric)
    rates = []
    for _ in range(10):
        trainer.step()
        rates += [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates == pytest.approx([0.01 * min(0.1 + 0.45 * step, (10 - step) / 8) for step in range(10)])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", METHODS)
def test_a_loss_that_is_not_finite_is_told_and_leaves_everything_as_it_was(data, name, bad, faults):
    trainer = make_trainer(name, data)
    trainer.step()
    with torch.no_grad():
        trainer.method.classifier.head[3].bias[0] = bad
    weights = {key: value.clone() for key, value in trainer.method.state_dict().items()}
    moments = copy.deepcopy(trainer.optimizer.state_dict()["state"])
    sums = copy.deepcopy(trainer.sums)
    told = (
        rf"loss is not finite at stage 0 \({name}\), step 1: class (nan|inf)[^\n]*\n"
        r"  from     a weight that was not finite before the step: classifier\.head\.3\.bias\n"
        r"  batch    source \d+, [^\n]*\n  do       lower"
    )
    with faults.injected("not finite"), pytest.raises(NotFinite, match=told):
        trainer.step()
    for key, value in trainer.method.state_dict().items():
        assert torch.equal(value.nan_to_num(), weights[key].nan_to_num()), key
    for number, state in trainer.optimizer.state_dict()["state"].items():
        for key, value in state.items():
            assert torch.equal(value, moments[number][key])
    assert trainer.sums == sums
    assert trainer.steps_done == 1


def test_weights_that_are_not_finite_are_not_saved_and_the_checkpoint_before_stays(data, new_run, faults):
    trainer, run = make_trainer("dann", data), new_run()
    trainer.step()
    trainer.save(run, keep=2)
    before, _ = run.load_tensors("last")
    with torch.no_grad():
        trainer.method.discriminator.layers[0].weight[0, 0] = float("nan")
    with (
        faults.injected("not finite"),
        pytest.raises(
            NotFinite, match=r"discriminator\.layers\.0\.weight is not finite after step 1 of stage 0 \(dann\)"
        ),
    ):
        trainer.save(run, keep=2)
    assert_same_state(run.load_tensors("last")[0], before)


# Runs -----------------------------------------------------------------------------------------------------------------


def test_the_loop_tells_every_step_and_every_epoch(data, new_run):
    told = go(make_recipe("dann", "mani"), data, new_run())
    assert told.steps == [(stage, done, 10) for stage in (0, 1) for done in range(1, 11)]
    assert [epoch[:2] for epoch in told.epochs] == [(0, 1), (0, 2), (1, 1), (1, 2)]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_same_seed_is_the_same_run_and_another_is_another(data, new_run, uninterrupted, precision):
    recipe = make_recipe("dann", "mani", precision=precision)
    state, _, told = uninterrupted(recipe)
    run = new_run()
    torch.manual_seed(12345)  # of no account
    again = go(recipe, data, run)
    assert_same_state(run.load_tensors("last")[0], state)
    assert again.epochs == told.epochs

    run = new_run()
    go(recipe, data, run, seed=1)
    other, _ = run.load_tensors("last")
    assert not torch.equal(other["method.classifier.head.0.weight"], state["method.classifier.head.0.weight"])


@pytest.mark.parametrize("stop_after", [None, 3])
def test_torchs_generator_is_left_as_it_was_found(data, new_run, stop_after):
    torch.manual_seed(99)
    state = torch.get_rng_state()
    if stop_after is None:
        go(make_recipe("dann", epochs=1), data, new_run())
    else:
        with pytest.raises(Stopped):
            go(make_recipe("dann", epochs=1), data, new_run(), told=Told(stop_after))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_dann_stage_of_mani_is_dann_bit_for_bit(uninterrupted, precision):
    _, _, dann = uninterrupted(make_recipe("dann", precision=precision))
    _, _, both = uninterrupted(make_recipe("dann", "mani", precision=precision))
    assert both.epochs[:2] == dann.epochs
    for mine, theirs in zip(both.weights[:2], dann.weights, strict=True):
        assert_same_state(mine, theirs)


def test_a_later_stage_goes_on_with_the_weights_of_the_earlier(data, new_run):
    run = new_run()
    with pytest.raises(Stopped):
        go(make_recipe("dann", "mani"), data, run, told=Told(stop_after=10))
    dann, _ = run.load_tensors("last")
    first_step = go(make_recipe("dann", "mani"), data, run, told=Told())
    assert first_step.steps[0] == (1, 1, 10)
    run = new_run()
    with pytest.raises(Stopped):
        go(make_recipe("dann", "mani"), data, run, told=Told(stop_after=11))
    mani, _ = run.load_tensors("last")
    for key in ("classifier.head.0.weight", "classifier.features.conv2.weight", "discriminator.layers.0.weight"):
        moved = (mani[f"method.{key}"] - dann[f"method.{key}"]).abs().max().item()
        assert 0 < moved < 3.1e-3, key  # Adam's first step is of the size of the learning rate
    assert torch.equal(mani["method.teacher.model.head.0.weight"], mani["method.classifier.head.0.weight"])


# Resume ---------------------------------------------------------------------------------------------------------------

SINGLE = [((name,), stop) for name in METHODS for stop in (1, 5, 8, 10)]  # in an epoch, at its end, at the very end
STAGED = [(("dann", "mani"), stop) for stop in (5, 9, 10, 11, 15, 17)]  # about the border of the stages at 10, too
STAGED += [(("source_only", "mutual_align"), stop) for stop in (9, 10, 11, 17)]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(("methods", "stop_after"), SINGLE + STAGED)
def test_a_run_that_is_stopped_and_resumed_is_the_run_that_was_not_bit_for_bit(
    data, new_run, uninterrupted, methods, stop_after, precision, faults
):
    recipe = make_recipe(*methods, precision=precision)
    expected, expected_info, whole = uninterrupted(recipe)
    run, before = new_run(), Told(stop_after)
    with pytest.raises(Stopped):
        go(recipe, data, run, told=before)
    with faults.injected("exact resume"):
        after = go(recipe, data, RunFolder(run.path))
        assert before.steps + after.steps == whole.steps
        assert before.epochs + after.epochs == whole.epochs  # of the epoch that was cut, the sums of both parts
        found, info = run.load_tensors("last")
        assert_same_state(found, expected)  # weights, teacher, optimiser
        assert (info["stage"], info["steps_done"]) == (expected_info["stage"], expected_info["steps_done"])


@pytest.mark.parametrize("methods", [("dann", "mani"), ("source_only", "mutual_align")], ids="-".join)
def test_a_run_may_be_stopped_after_every_single_step(data, new_run, uninterrupted, methods, faults):
    recipe = make_recipe(*methods, epochs=1)
    expected, _, whole = uninterrupted(recipe)
    run, epochs = new_run(), []
    for _ in range(2 * EPOCH):
        told = Told(stop_after=1)
        with pytest.raises(Stopped):
            go(recipe, data, run, told=told)
        epochs += told.epochs
    with faults.injected("exact resume", 2 * EPOCH):
        assert go(recipe, data, run).steps == []  # nothing is left to do
        assert_same_state(run.load_tensors("last")[0], expected)
        assert epochs == whole.epochs


@pytest.mark.parametrize("crash_after", [2, 5, 7, 12])
def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(data, new_run, uninterrupted, crash_after, faults):
    recipe = make_recipe("dann", "mani")
    expected, _, whole = uninterrupted(recipe)
    run = new_run()
    with pytest.raises(KeyboardInterrupt):
        go(recipe, data, run, told=Told(crash_after=crash_after))
    with faults.injected("exact resume"):
        told = go(recipe, data, run)
        saved = (crash_after - 1) // EPOCH * EPOCH  # the crash comes before the checkpoint of its own step
        assert told.steps == whole.steps[saved:]
        assert_same_state(run.load_tensors("last")[0], expected)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("crash_after", [3, 8])
def test_batch_norm_and_a_changing_learning_rate_go_on_bit_for_bit_after_a_kill_within_an_epoch(
    data, new_run, uninterrupted, crash_after, precision, faults
):
    stage = {"method": "mutual_align", "epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "schedule": "one_cycle"}
    stages = [stage | {"options": {"threshold": 0.35}}]  # of a third by chance: pseudo-labels from the first step
    about = {"name": "test", "description": "", "precision": precision, "backbone": "two_block_cnn"}
    recipe = parse_recipe(about | {"stages": stages}, "test")
    expected, _, whole = uninterrupted(recipe)
    assert all(means["coverage"] > 0 for _, _, means in whole.epochs)
    for part in ("classifier", "teacher.model"):
        assert expected[f"method.{part}.features.norm1.running_mean"].abs().min() > 0

    run = new_run()
    with pytest.raises(KeyboardInterrupt):
        go(recipe, data, run, told=Told(crash_after=crash_after), save_every=0.0)
    with faults.injected("exact resume"):
        after = go(recipe, data, RunFolder(run.path))
        assert after.steps == whole.steps[crash_after - 1 :]  # the crash comes before the checkpoint of its own step
        assert after.epochs == whole.epochs[crash_after // EPOCH :]
        assert_same_state(run.load_tensors("last")[0], expected)  # weights, teacher, norms of both, optimiser


def test_checkpoints_are_written_within_an_epoch_when_time_is_up(data, new_run, uninterrupted, faults):
    recipe = make_recipe("dann")
    expected, _, whole = uninterrupted(recipe)
    run = new_run()
    with pytest.raises(KeyboardInterrupt):
        go(recipe, data, run, told=Told(crash_after=4), save_every=0.0)
    assert run.load_tensors("last")[1]["steps_done"] == 3
    with faults.injected("exact resume"):
        assert go(recipe, data, run).steps == whole.steps[3:]
        assert_same_state(run.load_tensors("last")[0], expected)


def test_a_checkpoint_holds_all_that_is_trained_and_nothing_random(uninterrupted):
    state, info, _ = uninterrupted(make_recipe("dann", "mani"))
    parts = {name.partition(".")[0] for name in state}
    owners = {name.split(".")[1] for name in state if name.startswith("method.")}
    assert parts == {"method", "optimizer"}
    assert owners == {"classifier", "discriminator", "projection", "critic", "teacher"}
    assert int(state["method.teacher.updates"]) == 10
    assert info.keys() == {"stage", "steps_done", "train_seconds"}


def test_the_returned_classifier_is_the_trained_one(data, new_run):
    run, recipe = new_run(), make_recipe("dann", epochs=1)
    fabric = make_fabric("float32", "cpu")
    for _ in range(2):  # trained now, and read from the checkpoint of a run that is complete
        classifier = train(recipe, data.source, data.target, SHAPE, CLASSES, 0, run, fabric, Told().callbacks)
        saved, _ = run.load_tensors("last")
        for key, value in classifier.state_dict().items():
            assert torch.equal(value, saved[f"method.classifier.{key}"]), key


def test_grey_images_and_one_step_epochs_train_and_resume(new_run, faults):
    rng = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (5, 10, 11, 1), dtype=torch.uint8, generator=rng)
    source = LabelledImages(UnlabelledImages(pixels), torch.arange(5) % 2)
    recipe = Recipe("grey", "", (Stage("mani", epochs=3, batch_size=8),), precision="float32")
    states = []
    for stop_after in (None, 2):
        run, fabric = new_run(), make_fabric("float32", "cpu")
        arguments = (recipe, source, source.images, ImageShape(1, 10, 11), 2, 0, run, fabric)
        if stop_after:
            with pytest.raises(Stopped):
                train(*arguments, Told(stop_after).callbacks)
        train(*arguments, Told().callbacks)
        states.append(run.load_tensors("last")[0])
    with faults.injected("exact resume"):
        assert_same_state(*states)
