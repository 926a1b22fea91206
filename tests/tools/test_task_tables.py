"""The table of tasks has the numbers and the size of the images, and every task what it is made from."""

from __future__ import annotations

import pytest

from mutualign.data.datasets import TASKS
from mutualign.data.folders.domains import domains
from mutualign.data.folders.listing import list_labelled
from tools.task_tables import COLLECTIONS, IMAGES, PHOTOS, Images, folders


@pytest.mark.parametrize("name", ["digits", "mnist-mnistm-imbalanced", "usps-mnist"])  # the others have the same images
def test_a_task_has_the_images_of_the_table(name, real_data):
    task = TASKS[name].load(real_data)
    source = len(task.source_train), len(task.source_test)
    target = len(task.target_train), len(task.target_test)
    assert Images(source, target, task.shape.height) == IMAGES[name]


def test_the_domains_of_office31_have_the_photos_of_the_table(real_data):
    found = {name: len(list_labelled(path).paths) for name, path in domains(real_data / "office31").items()}
    assert found == PHOTOS


def test_every_task_and_no_other_has_its_images_and_where_they_come_from():
    assert IMAGES.keys() == {name for name, entry in TASKS.items() if entry.pair is None}
    assert {folder for entry in TASKS.values() for folder in folders(entry)} == COLLECTIONS.keys()
