"""The training loop: a step is plain PyTorch's, and a run that is stopped or killed anywhere continues bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch

from mutualign.data.types import ImageShape, LabelledImages, UnlabelledImages
from mutualign.nn.randomness import derive_seed
from mutualign.recipes import Recipe, Stage
from mutualign.runs.checkpoints import Checkpoints
from mutualign.training.distributed import make_fabric
from mutualign.training.loop import NotFinite, Stopped, train
from mutualign.training.setup import standard_modes
from tests.training.tiny_runs import (
    CLASSES,
    EPOCH,
    SHAPE,
    SOURCE,
    TARGET,
    MemoryStore,
    Recorder,
    assert_resumes_after_every_step,
    assert_same,
    go,
    make_recipe,
    make_trainer,
)

STAGE = 2 * EPOCH  # steps
OWN = ["source_only", "dann", "mani", "mutual_align"]  # the contract test resumes every method


@pytest.fixture
def store(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return Checkpoints(tmp_path / "checkpoints")


def test_what_the_device_still_has_to_do_at_the_end_of_an_epoch_is_training_time(monkeypatch):
    now, trainer = [0.0], make_trainer("source_only")
    monkeypatch.setattr("mutualign.training.loop.time.perf_counter", lambda: now[0])

    def wait():
        now[0] += 5.0  # as long as a GPU is behind

    for _ in range(EPOCH):
        trainer.step()
    monkeypatch.setattr(trainer.check, "raise_if_any", wait)
    assert trainer.finish_epoch().train_seconds == 5.0
    store = MemoryStore()
    trainer.save(store, keep=1)
    assert store.info["train_seconds"] == 10.0


# A step ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_steps_are_those_of_plain_pytorch(name):
    trainer = make_trainer(name, seed=7)
    plain = copy.deepcopy(trainer.method)
    optimiser = torch.optim.Adam([p for p in plain.parameters() if p.requires_grad], lr=3e-3, foreach=False)
    sums = {}
    for step in range(EPOCH + 1):
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(7, 0, "step", step, 0))
            losses, metrics = plain(trainer.batches[step], torch.tensor(step / STAGE))
            optimiser.zero_grad()
            sum(losses.values()).backward()
            optimiser.step()
            plain.after_step()
        for key, value in {**{f"loss_{key}": loss.detach() for key, loss in losses.items()}, **metrics}.items():
            sums[key] = sums.get(key, 0.0) + value.item()
        trainer.step()
        if name != "mani":  # its pairs and pseudo-labels depend on the last bit of a weight
            assert {key: total.item() for key, total in trainer.sums.items()} == pytest.approx(sums, rel=1e-4)
        for (key, mine), theirs in zip(trainer.method.named_parameters(), plain.parameters(), strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-3, atol=2e-5), (step, key)
    assert trainer.steps_done == EPOCH + 1


@pytest.mark.parametrize("name", OWN)
def test_a_step_depends_on_seed_stage_and_number_and_not_on_torchs_generator(name):
    after = []
    for seed, index, noise in [(0, 0, 1), (0, 0, 2), (1, 0, 1), (0, 1, 1)]:
        trainer = make_trainer(name, seed, index)
        torch.manual_seed(noise)
        trainer.step()
        after.append(copy.deepcopy(trainer.method.classifier.state_dict()))
    same, seeds, stages = ([torch.equal(a, after[0][key]) for key, a in other.items()] for other in after[1:])
    assert all(same)
    assert not all(seeds)
    assert not all(stages)


def test_an_epochs_means_are_the_means_of_its_steps_and_of_them_only():
    trainer, values = make_trainer("dann"), []
    trainer.method.register_forward_hook(lambda module, inputs, output: values.append(output))
    for number in (1, 2):
        values.clear()
        for _ in range(EPOCH):
            trainer.step()
        epoch = trainer.finish_epoch()
        assert (epoch.stage, epoch.number) == (0, number)
        expected = {f"loss_{key}": sum(losses[key].item() for losses, _ in values) / EPOCH for key in values[0][0]}
        expected |= {key: sum(metrics[key].item() for _, metrics in values) / EPOCH for key in values[0][1]}
        assert epoch.means == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_of_every_step_is_its_schedules():
    trainer, rates = make_trainer("source_only", schedule="one_cycle", lr=0.01), []
    for _ in range(STAGE):
        trainer.step()
        rates += [group["lr"] for group in trainer.optimisers["all"].torch.param_groups]
    assert rates == pytest.approx([0.01 * min(0.1 + 4.5 * i / STAGE, (1 - i / STAGE) / 0.8) for i in range(STAGE)])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_method_gets_the_exact_progress_of_every_step_in_any_precision(precision):
    trainer, seen = make_trainer("dann", precision=precision), []
    trainer.total_steps = 1000  # in bf16, steps 997 to 999 would all be at 1
    trainer.method.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0].images.dtype, inputs[1])))
    for step in (996, 997, 998, 999):
        trainer.steps_done = step
        trainer.step()
    assert [progress.item() for _, progress in seen] == pytest.approx([0.996, 0.997, 0.998, 0.999], abs=1e-7)
    images = torch.bfloat16 if precision == "bf16" else torch.float32
    assert {dtype for dtype, _ in seen} == {images}


def test_weights_that_are_not_finite_are_not_saved_and_the_previous_checkpoint_stays(store):
    trainer = make_trainer("dann")
    trainer.step()
    trainer.save(store, keep=2)
    before, _ = store.load("last")
    with torch.no_grad():
        trainer.method.discriminator.layers[0].weight[0, 0] = float("nan")
    with pytest.raises(NotFinite, match=r"layers\.0\.weight is not finite after step 1 of stage 0 \(dann\)"):
        trainer.save(store, keep=2)
    assert_same(store.load("last")[0], before)


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_same_seed_is_the_same_run_and_a_dann_stage_is_dann_whatever_follows(precision):
    recipe = make_recipe("dann", "mani", precision=precision)
    stores = [MemoryStore() for _ in range(3)]
    torch.manual_seed(12345)  # has no effect
    whole = go(recipe, stores[0])
    assert whole.steps == [(stage, done, STAGE) for stage in (0, 1) for done in range(1, STAGE + 1)]
    assert [epoch[:2] for epoch in whole.epochs] == [(0, 1), (0, 2), (1, 1), (1, 2)]

    state = torch.get_rng_state()
    again = go(recipe, stores[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(stores[1].tensors, stores[0].tensors)
    assert again.epochs == whole.epochs
    go(recipe, stores[2], seed=1)
    key = "method.classifier.head.0.weight"
    assert not torch.equal(stores[2].tensors[key], stores[0].tensors[key])

    dann = go(make_recipe("dann", precision=precision), MemoryStore())
    assert whole.epochs[:2] == dann.epochs
    for mine, theirs in zip(whole.weights[:2], dann.weights, strict=True):
        assert_same(mine, theirs)


def test_a_later_stage_starts_from_the_weights_of_the_earlier_one():
    states = []
    for stop in (STAGE, STAGE + 1):
        store = MemoryStore()
        with pytest.raises(Stopped):
            go(make_recipe("dann", "mani"), store, Recorder(stop_after=stop))
        states.append(store.tensors)
    for key in ("classifier.head.0.weight", "classifier.features.conv2.weight", "discriminator.layers.0.weight"):
        moved = (states[1][f"method.{key}"] - states[0][f"method.{key}"]).abs().max().item()
        assert 0 < moved < 3.1e-3, key  # Adam's first step is of the size of the learning rate
    assert torch.equal(states[1]["method.teacher.model.head.0.weight"], states[1]["method.classifier.head.0.weight"])


def test_a_caller_may_be_in_inference_mode_without_gradients_or_in_float64():
    expected, found = MemoryStore(), MemoryStore()
    go(make_recipe("mutual_align", epochs=1), expected)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.no_grad():
            go(make_recipe("mutual_align", epochs=1), found)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(found.tensors, expected.tensors)


def test_on_a_gpu_sums_are_in_the_same_order_in_every_run():
    before = torch.backends.cudnn.deterministic
    with standard_modes():
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.deterministic == before


@pytest.mark.parametrize(("images", "batch_size"), [(17, 8), (9, 8), (13, 4)])
def test_a_pass_may_leave_one_image_over_where_batch_norm_has_a_single_value_per_channel(images, batch_size):
    """TwoBlockCNN's last maps for 12x12 images have one pixel."""
    source = LabelledImages(UnlabelledImages(SOURCE.images.pixels[:images]), SOURCE.labels[:images])
    stages = tuple(Stage(name, epochs=1, batch_size=batch_size) for name in ("source_only", "dann"))
    recipe, recorder = Recipe("t", stages, backbone="two_block_cnn", precision="float32"), Recorder()
    fabric = make_fabric("float32", "cpu")
    train(recipe, source, TARGET, SHAPE, CLASSES, 0, MemoryStore(), fabric, recorder.callbacks)
    assert recorder.steps[0] == (0, 1, images // batch_size)


# Resume ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("methods", [("dann", "mani"), ("source_only", "mutual_align")], ids="-".join)
def test_a_run_of_two_stages_may_be_stopped_after_every_step(methods, precision):
    backbone, schedule = ("two_block_cnn", "one_cycle") if precision == "bf16" else ("mani_cnn", "constant")
    recipe = make_recipe(*methods, precision=precision, backbone=backbone, schedule=schedule)
    whole = assert_resumes_after_every_step(recipe)
    parts = {name.partition(".")[0] for name in whole.tensors}
    assert parts == {"method", "optimiser"}  # nothing random
    owners = {name.split(".")[1] for name in whole.tensors if name.startswith("method.")}
    others = {"projection"} if "mani" in methods else set()
    assert owners == {"classifier", "discriminator", "critic", "teacher"} | others
    assert int(whole.tensors["method.teacher.updates"]) == STAGE
    assert whole.info.keys() == {"stage", "steps_done", "train_seconds"}


def test_momentum_of_sgd_and_a_running_schedule_are_restored():
    recipe = make_recipe("dann", name="sgd", momentum=0.9, nesterov=True, schedule="cosine")
    whole = assert_resumes_after_every_step(recipe)
    assert any(name.endswith("momentum_buffer") for name in whole.tensors)


@pytest.mark.parametrize(("crash_after", "every"), [(2, 60.0), (EPOCH, 60.0), (STAGE + 2, 60.0), (5, 0.0)])
def test_a_run_that_is_killed_continues_from_its_last_checkpoint(store, crash_after, every):
    recipe, expected = make_recipe("dann", "mani"), MemoryStore()
    whole = go(recipe, expected)
    with pytest.raises(KeyboardInterrupt):
        go(recipe, store, Recorder(crash_after=crash_after), every=every)
    # The crash comes before the checkpoint of its own step; with `every` of 0 there is one for each step.
    saved = crash_after - 1 if every == 0 else (crash_after - 1) // EPOCH * EPOCH
    assert go(recipe, store).steps == whole.steps[saved:]
    assert_same(store.load("last")[0], expected.tensors)


def test_the_returned_classifier_is_the_trained_one_also_from_a_finished_run(store):
    for _ in range(2):
        arguments = (SHAPE, CLASSES, 0, store, make_fabric("float32", "cpu"), Recorder().callbacks)
        classifier = train(make_recipe("dann", epochs=1), SOURCE, TARGET, *arguments)
        saved, _ = store.load("last")
        for key, value in classifier.state_dict().items():
            assert torch.equal(value, saved[f"method.classifier.{key}"]), key


def test_grey_images_and_one_step_epochs_train_and_resume():
    pixels = torch.randint(0, 256, (5, 10, 11, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    source = LabelledImages(UnlabelledImages(pixels), torch.arange(5) % 2)
    recipe = Recipe("grey", (Stage("mani", epochs=3, batch_size=8),), precision="float32")
    states = []
    for stop_after in (None, 2):
        store, fabric = MemoryStore(), make_fabric("float32", "cpu")
        arguments = (recipe, source, source.images, ImageShape(1, 10, 11), 2, 0, store, fabric)
        if stop_after:
            with pytest.raises(Stopped):
                train(*arguments, Recorder(stop_after).callbacks)
        train(*arguments, Recorder().callbacks)
        states.append(store.tensors)
    assert_same(*states)
