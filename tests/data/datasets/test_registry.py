"""The registry of tasks: names, files, slices, and the messages if something is missing."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import torch

from mutualign.cli.console import PlainConsole
from mutualign.cli.data import Data
from mutualign.data.datasets import TASKS, TaskEntry, find_task, register_task
from mutualign.data.datasets.published import BSDS500_FILES, MNIST_FILES, USPS_FILES
from mutualign.data.fetch import mirrors
from mutualign.data.fetch.data_files import DataFile
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages
from mutualign.errors import MutualignError

DIGITS = (
    "scikit-learn digits 8x8 enlarged to 20x20 bicubic and centred in 28x28; 1437 to train, moved by up to 2 pixels, "
    "360 to test; target |patch - digit| over scikit-learn's two photos below row 140, cut into ten stripes of 64 "
    "columns, train over the first, third, ..., test over the rest, one background an image"
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return TASKS["digits"].load(tmp_path_factory.mktemp("empty") / "missing")


def test_a_task_is_one_registered_function_and_is_found_with_its_slices(tiny_task, monkeypatch, tmp_path):
    monkeypatch.setattr("mutualign.data.datasets.registry.TASKS", dict(TASKS))

    @register_task("tiny", "of a test", unpublished=("tiny.zip", "tiny"))
    def load(folder: Path) -> Task:
        return tiny_task

    entry = find_task("tiny")
    assert (entry.name, entry.load(tmp_path)) == ("tiny", tiny_task)
    assert entry.count_files(tmp_path) == (0, 1)
    (tmp_path / "tiny").mkdir()
    assert entry.count_files(tmp_path) == (1, 1)
    assert find_task("tiny@7").load(tmp_path).name == "tiny@7"


def test_what_cannot_be_downloaded_is_counted_as_a_file_of_its_task(tmp_path):
    for file in MNIST_FILES:
        (tmp_path / file.name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.name).touch()
    assert find_task("mnist-mnistm-original").count_files(tmp_path) == (4, 5)
    photos = find_task("office31:amazon-webcam")
    assert photos.count_files(tmp_path) == (0, 1)
    for domain in ("amazon", "webcam"):
        (tmp_path / "office31" / domain).mkdir(parents=True)
    assert photos.count_files(tmp_path) == (1, 1)


def test_the_command_lists_fetches_and_verifies(tmp_path, monkeypatch):
    contents = {"good": b"good", "bad": b"bad"}
    files = tuple(DataFile({name: hashlib.sha256(text).hexdigest()}) for name, text in contents.items())
    monkeypatch.setitem(TASKS, "tiny", TaskEntry("tiny", "of a test", files, lambda folder: pytest.fail("loaded")))
    (tmp_path / "good").write_bytes(b"good")

    def printed(action: str) -> str:
        text = io.StringIO()
        Data(action, "tiny", tmp_path).main(PlainConsole(file=text))
        return text.getvalue()

    assert printed("list").splitlines() == [f"data folder: {tmp_path}", f"  {'tiny':<24} 1 of 2 files  of a test"]
    with pytest.raises(MutualignError, match=r"1 file\(s\) missing for the task tiny\n  missing  bad"):
        printed("fetch")
    (tmp_path / "bad").write_bytes(b"changed")
    fetch = f"mutualign data fetch tiny --data {tmp_path}"
    with pytest.raises(MutualignError, match=rf"damaged files\n  damaged  {tmp_path}/bad\n  hint: .* `{fetch}`"):
        printed("verify")
    (tmp_path / "bad").write_bytes(b"bad")
    assert printed("verify").endswith("2 of 2 files, 0 damaged\n")
    with pytest.raises(MutualignError, match="unknown task"):
        Data("list", "nonsense", tmp_path).main(PlainConsole(file=io.StringIO()))


def test_tasks_are_listed_without_an_import_of_torch():
    code = "import sys, mutualign.data.datasets as d; print(len(d.TASKS), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(TASKS)), "False"]


@pytest.mark.parametrize("name", TASKS)
def test_each_task_is_loaded_or_says_that_its_files_are_missing(name, tmp_path):
    if name == "digits":
        assert TASKS[name].load(tmp_path).name == name
    else:
        with pytest.raises(MutualignError, match=rf"{name}(.|\n)*\n  hint: "):
            TASKS[name].load(tmp_path)


def test_an_unknown_task_is_an_error_that_names_the_nearest():
    for name, message in (
        ("mnist-mnistmm", r'unknown task "mnist-mnistmm"; did you mean "mnist-mnistm"\?'),
        ("digit@100", 'unknown task "digit"; did you mean "digits"'),
        ("x", 'unknown task "x"; allowed: digits, mnist-mnistm, '),
    ):
        with pytest.raises(MutualignError, match=message):
            find_task(name)


def test_every_task_has_a_description_of_its_own_on_one_line_and_its_files():
    descriptions = [entry.description for entry in TASKS.values()]
    assert len(set(descriptions)) == len(TASKS)
    assert all(text and "\n" not in text and len(text) < 110 for text in descriptions)
    assert all(entry.name == name for name, entry in TASKS.items())
    frozen, resampled = ((*MNIST_FILES, *sum(map(BSDS500_FILES.get, splits), ())) for splits in SPLITS)
    expected = {"digits": (), "mnist-mnistm-resampled": resampled}
    expected |= dict.fromkeys(("mnist-mnistm", "mnistm-mnist", "mnist-mnistm-imbalanced"), frozen)
    expected |= dict.fromkeys(("mnist-worn", "mnist-mnistm-original"), MNIST_FILES)
    expected |= dict.fromkeys(("mnist-usps", "usps-mnist"), (*MNIST_FILES, *USPS_FILES))
    assert {name: entry.files for name, entry in TASKS.items() if entry.pair is None} == expected


SPLITS = (("train", "test"), ("train", "val", "test"))


@pytest.mark.parametrize(("name", "count"), [("mnist-mnistm", 404), ("mnist-mnistm-resampled", 504)])
def test_all_missing_files_of_a_task_are_named_in_one_message(tmp_path, monkeypatch, name, count):
    def no_network(*_: object, **__: object) -> None:
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "get", no_network)
    monkeypatch.setattr(mirrors, "PAUSE", 0.0)
    with pytest.raises(MutualignError) as error:
        find_task(name).load(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{count} file(s) missing for the task {name}\n")
    files = [*MNIST_FILES, *(BSDS500_FILES[split][end] for split in SPLITS[count == 504] for end in (0, -1))]
    for file in files:
        assert f" {file.name}\n" in message
        assert file.mirrors[0].rpartition("/")[0] in message
    assert "--task digits" in message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_digits_loads_without_any_file_and_keeps_its_identity(digits):
    """Runs resume only on the same words."""
    assert (digits.name, digits.identity) == ("digits", DIGITS)
    assert (digits.shape, digits.class_names) == ((3, 28, 28), tuple("0123456789"))


def test_a_slice_is_spread_evenly_and_leaves_the_test_images_whole(digits, tmp_path):
    part = find_task("digits@100").load(tmp_path)
    assert part.name == "digits@100"
    assert part.identity == f"{DIGITS}; of the training images 100 of either domain, evenly spread"
    rows = torch.linspace(0, len(digits.source_train) - 1, 100, dtype=torch.float64).round().long()
    for whole, few in ((digits.source_train, part.source_train), (digits.target_train, part.target_train)):
        assert torch.equal(few.images.pixels, whole.images.pixels[rows])
        labels = [one.labels if isinstance(one, LabelledImages) else one.hidden_labels for one in (whole, few)]
        assert torch.equal(labels[1], labels[0][rows])
    assert torch.equal(part.target_test.images.pixels, digits.target_test.images.pixels)
    assert part.notes == ()


def test_a_slice_larger_than_the_task_is_the_task_and_says_how_many_images_there_are(digits, tmp_path):
    part = find_task("digits@999999999").load(tmp_path)
    assert torch.equal(part.source_train.images.pixels, digits.source_train.images.pixels)
    assert part.notes == tuple(
        f"{domain}: 1,437 training images, fewer than 999,999,999" for domain in ("source", "target")
    )


@pytest.mark.parametrize("size", ["", "0", "-3", "two", "1.5", "٣", "9" * 5000])
def test_a_slice_without_a_number_of_images_is_refused(size):
    with pytest.raises(MutualignError, match="expected a number of images after the @, such as digits@6000"):
        find_task(f"digits@{size}")
