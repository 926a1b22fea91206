"""Tasks: what they check, what they tell of their images, and the list of them."""

from __future__ import annotations

import pytest
import requests
import torch

from mutualign.data import datasets as tasks
from mutualign.data.datasets import TASKS, find_task, mnistm
from mutualign.data.datasets.bsds500 import BSDS500_FILES, Photos
from mutualign.data.datasets.mnist import MNIST_FILES
from mutualign.data.datasets.mnistm import ResampledImages
from mutualign.data.fetch import mirrors
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, TargetDataset, UnlabelledImages
from mutualign.errors import MutualignError


def images(n: int = 2, height: int = 4, width: int = 5, channels: int = 1) -> UnlabelledImages:
    return UnlabelledImages(torch.zeros(n, height, width, channels, dtype=torch.uint8))


def task_of(*parts: UnlabelledImages) -> Task:
    labels = [torch.zeros(len(part), dtype=torch.int64) for part in parts]
    source = [LabelledImages(part, own) for part, own in zip(parts[:2], labels[:2], strict=True)]
    target = [TargetDataset(part, own) for part, own in zip(parts[2:], labels[2:], strict=True)]
    return Task("a-task", "made in a test", ("a", "b"), *source, *target)


@pytest.mark.parametrize("part", range(4))
def test_images_of_another_size_in_any_part_are_an_error_that_names_the_sizes(part):
    parts = [images() for _ in range(4)]
    parts[part] = images(width=6)
    with pytest.raises(MutualignError, match=r"task a-task: images of different sizes: \[\(4, 5\), \(4, 6\)\]"):
        task_of(*parts)


@pytest.mark.parametrize(
    ("part", "name"), list(enumerate(["source train", "source test", "target train", "target test"]))
)
def test_an_empty_part_is_an_error_that_names_it(part, name):
    parts = [images() for _ in range(4)]
    parts[part] = images(n=0)
    with pytest.raises(MutualignError, match=f"task a-task: no {name} images"):
        task_of(*parts)


@pytest.mark.parametrize(
    ("channels", "expected"), [((1, 1, 1, 1), 1), ((3, 3, 3, 3), 3), ((1, 1, 3, 3), 3), ((3, 3, 1, 1), 3)]
)
def test_the_shape_has_the_most_channels_of_all_images_and_height_before_width(channels, expected):
    shape = task_of(*(images(channels=count) for count in channels)).shape
    assert (shape.channels, shape.height, shape.width) == (expected, 4, 5)


def test_grey_digits_that_are_given_colour_backgrounds_count_as_colour():
    photos = Photos([torch.zeros(9, 9, 3, dtype=torch.uint8)])
    target = ResampledImages(images().pixels, photos)
    assert task_of(images(), images(), target, target).shape == (3, 4, 5)


def test_an_unknown_task_is_an_error_that_names_the_nearest():
    with pytest.raises(MutualignError, match=r'unknown task "mnist-mnistmm"; did you mean "mnist-mnistm"\?'):
        find_task("mnist-mnistmm")
    with pytest.raises(MutualignError, match='unknown task "x"; allowed: digits, mnist-mnistm, '):
        find_task("x")


def test_every_task_has_a_description_of_its_own_on_one_line():
    descriptions = [entry.description for entry in TASKS.values()]
    assert len(set(descriptions)) == len(TASKS)
    assert all(text and "\n" not in text and len(text) < 110 for text in descriptions)


def test_the_three_variants_say_which_they_are_and_which_files_they_need():
    for variant, splits in (("frozen", ("train", "test")), ("resampled", ("train", "val", "test")), ("original", ())):
        name = "mnist-mnistm" if variant == "frozen" else f"mnist-mnistm-{variant}"
        assert f"variant {variant}" in TASKS[name].description
        assert TASKS[name].files == (*MNIST_FILES, *(file for split in splits for file in BSDS500_FILES[split]))
    assert TASKS["digits"].files == ()


@pytest.mark.parametrize(("name", "count"), [("mnist-mnistm", 404), ("mnist-mnistm-resampled", 504)])
def test_all_missing_files_of_a_task_are_named_in_one_message(tmp_path, monkeypatch, name, count):
    monkeypatch.setattr(requests, "get", no_network)
    monkeypatch.setattr(mirrors, "PAUSE", 0.0)
    with pytest.raises(MutualignError) as error:
        find_task(name).load(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{count} file(s) missing for the task {name}\n")
    for file in MNIST_FILES:
        assert f" {file.name}\n" in message
        assert file.mirrors[0].rpartition("/")[0] in message
    for split in ("train", "test", *(["val"] if count == 504 else [])):
        assert BSDS500_FILES[split][0].name in message
        assert BSDS500_FILES[split][-1].name in message
        assert BSDS500_FILES[split][0].mirrors[0].rpartition("/")[0] in message
    assert "--task digits" in message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def no_network(*_: object, **__: object) -> None:
    raise requests.ConnectionError("no network")


def test_digits_loads_without_any_file_and_states_what_it_is(tmp_path):
    task = find_task("digits").load(tmp_path / "nothing-here")
    assert task.name == "digits"
    assert task.shape == (3, 28, 28)
    assert task.class_names == tuple("0123456789")
    for part in (
        "1437 to train",
        "360 to test",
        "train over the first, third, ..., test over the rest",
        "|patch - digit|",
    ):
        assert part in task.identity
    assert not (tmp_path / "nothing-here").exists()


@pytest.mark.parametrize("name", ["mnist-mnistm", "mnist-mnistm-resampled"])
def test_the_tasks_made_of_mnist_carry_their_name_and_state_their_variant(tmp_path, monkeypatch, name):
    generator = torch.Generator().manual_seed(0)

    def digits(n: int) -> LabelledImages:
        pixels = torch.randint(256, (n, 28, 28, 1), generator=generator).to(torch.uint8)
        return LabelledImages(UnlabelledImages(pixels), torch.arange(n) % 10)

    photo = torch.randint(256, (40, 50, 3), generator=generator).to(torch.uint8)
    needed_for = []
    monkeypatch.setattr(tasks, "load_mnist", lambda folder, task: (digits(5), digits(4)))
    monkeypatch.setattr(tasks, "require", lambda files, task, folder: needed_for.append(task))
    monkeypatch.setattr(mnistm, "load_bsds500", lambda splits, task, folder: needed_for.append(task) or Photos([photo]))
    task = find_task(name).load(tmp_path)
    assert task.name == name
    assert set(needed_for) == {name}
    assert task.shape == (3, 28, 28)
    variant = "resampled" if name.endswith("resampled") else "frozen"
    assert f"MNIST-M, variant {variant}: |patch - digit|" in task.identity
    assert [len(part) for part in (task.source_train, task.source_test, task.target_train, task.target_test)] == [
        *(5, 4, 5, 4)
    ]


def test_a_slice_of_a_task_is_spread_evenly_and_leaves_the_test_images_whole(tmp_path):
    whole, part = TASKS["digits"].load(tmp_path), find_task("digits@100").load(tmp_path)
    assert part.name == "digits@100"
    assert part.identity.startswith(whole.identity)
    assert "100 of either domain" in part.identity
    assert (len(part.source_train), len(part.target_train)) == (100, 100)
    rows = torch.linspace(0, len(whole.source_train) - 1, 100, dtype=torch.float64).round().long()
    assert torch.equal(part.source_train.images.pixels, whole.source_train.images.pixels[rows])
    assert torch.equal(part.source_train.labels, whole.source_train.labels[rows])
    assert torch.equal(part.target_train.images.pixels, whole.target_train.images.pixels[rows])
    assert torch.equal(part.target_train.hidden_labels, whole.target_train.hidden_labels[rows])
    assert part.target_test is whole.target_test or len(part.target_test) == len(whole.target_test)


def test_a_slice_larger_than_the_task_is_the_task(tmp_path):
    whole, part = TASKS["digits"].load(tmp_path), find_task("digits@99999").load(tmp_path)
    assert torch.equal(part.source_train.images.pixels, whole.source_train.images.pixels)


@pytest.mark.parametrize("name", ["digits@", "digits@0", "digits@-3", "digits@two", "digits@1.5", "digits@٣"])
def test_a_slice_of_no_number_of_images_is_refused(name):
    with pytest.raises(MutualignError, match="after the @ goes a number of images, such as digits@6000"):
        find_task(name)


def test_a_slice_of_an_unknown_task_names_the_nearest():
    with pytest.raises(MutualignError, match='unknown task "digit"; did you mean "digits"'):
        find_task("digit@100")
