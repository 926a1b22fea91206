"""Benchmarks with one folder per domain: Office-31 and any other, by the name of a task."""

from __future__ import annotations

import shutil
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

from mutualign.data.datasets import TASKS, find_task
from mutualign.data.datasets.registry import expand_tasks
from mutualign.data.folders.domains import domain_pairs, domains, find_pair
from mutualign.errors import MutualignError
from mutualign.recipes import load_recipe
from mutualign.runs.loading import load_task
from mutualign.runs.spec import RunSpec
from tests.data.folders.images import write
from tests.runs.samples import recipe


@pytest.fixture
def root(tmp_path):
    """Three domains, two with a dash in their names, one in the published layout of Office-31."""
    for place, value in (("art", 40), ("real-world/images", 90), ("real-life", 140)):
        for name, step in (("bike", 0), ("mug", 60)):
            for number in range(3):
                write(tmp_path / place / name / f"{number}.png", value + step + number)
    for name in (".hidden", "__MACOSX", "@eaDir", "lost+found"):
        (tmp_path / name / "art").mkdir(parents=True)
    (tmp_path / "readme.txt").write_text("no domain")
    return tmp_path


def name_of(root, folder) -> str:
    return folder.relative_to(root).parts[0]


def test_domains_are_the_folders_or_their_images_and_every_ordered_pair_is_a_task(root):
    assert domains(root) == {
        "art": root / "art",
        "real-life": root / "real-life",
        "real-world": root / "real-world" / "images",
    }
    pairs = domain_pairs(root)
    assert len(pairs) == len(set(pairs)) == 6
    for pair in pairs:
        source, target = find_pair(root, pair)
        assert pair == f"{name_of(root, source)}-{name_of(root, target)}"


def test_names_with_dashes_are_split_where_both_parts_are_domains(root):
    task = find_pair(root, "real-world-real-life")
    assert (task.source, task.target) == (root / "real-world" / "images", root / "real-life")
    assert find_pair(root, "real-life-art").target == root / "art"


def test_pairs_that_make_no_task_are_refused_and_the_nearest_domain_is_named(root):
    for pair, message in (
        ("arts-real-life", 'unknown domain "arts"; did you mean "art"'),
        ("art-rael", 'unknown domain "rael"'),
        ("art", 'expected SOURCE-TARGET, got "art"; domains: art, real-life, real-world'),
        ("art-art", 'source and target are both "art"'),
    ):
        with pytest.raises(MutualignError, match=message):
            find_pair(root, pair)
    with pytest.raises(MutualignError, match=r"images: 2 folder|expected one per domain|unknown domain"):
        find_pair(root / "art" / "bike", "a-b")
    with pytest.raises(MutualignError, match=r"1 folder\(s\); expected one per domain, .*/DOMAIN/CLASS/image\.jpg"):
        domains(root / "real-world")
    with pytest.raises(MutualignError, match=r"no such folder\n  hint: "):
        domains(root / "absent")


def test_a_task_of_two_domains_adapts_to_and_tests_on_all_target_images(root):
    name = f"folder:{root}:art-real-world"
    task = find_task(name).load(root / "unused")
    assert (task.name, task.class_names, task.shape) == (name, ("bike", "mug"), (1, 6, 6))
    assert (len(task.target_train), len(task.target_test)) == (6, 6)
    assert task.target_train.hidden_labels is None
    assert sorted(task.target_test.hidden_labels.tolist()) == [0, 0, 0, 1, 1, 1]
    assert find_task(name).count_files(root) == (1, 1)
    place = RunSpec(recipe("dann"), name, 0).path(root / "runs").relative_to(root / "runs")
    assert len(place.parts) == 3  # the colon and the slashes of the name are not in that of the folder


def test_a_whole_network_is_trained_on_images_of_its_size_in_a_named_task_too(root):
    chosen = replace(recipe("dann"), backbone="finetune:efficientnet_lite0")
    task = load_task(f"folder:{root}:art-real-world", root / "unused", chosen)
    assert task.shape == (1, 224, 224)  # grey files
    assert task.name == f"folder:{root}:art-real-world"


def test_a_slice_of_a_task_on_image_files_is_one_on_their_features_too(tmp_path, monkeypatch):
    for domain in ("amazon", "webcam"):
        for name in ("mug", "pen"):
            for number in range(6):
                write(tmp_path / "office31" / domain / name / f"{number}.png", 9 * number + len(domain) + len(name))
    name = "office31:amazon-webcam@4"
    network = Mock(side_effect=lambda pixels: torch.rand(len(pixels), 1280), features=1280)
    monkeypatch.setattr("mutualign.data.features.extract.feature_network", lambda _: network)
    for chosen in (recipe("dann"), load_recipe("photos", ["views=1"])):
        task = load_task(name, tmp_path, chosen)
        assert (task.name, len(task.source_train), len(task.target_train), len(task.target_test)) == (name, 4, 4, 12)
    with pytest.raises(MutualignError, match='unknown domain "webcam@4"'):
        find_task(f"folder:{tmp_path / 'office31'}:amazon-webcam@4")


def test_all_pairs_of_a_folder_expand_and_other_names_stay(root):
    names = expand_tasks(f"digits,folder:{root}:all,office31:amazon-webcam")
    assert (len(names), names[0], names[-1]) == (8, "digits", "office31:amazon-webcam")
    assert set(names[1:-1]) == {f"folder:{root}:{pair}" for pair in domain_pairs(root)}
    assert all(find_task(name).name == name for name in names)


@pytest.mark.parametrize("name", ["art, real", "art,digits:real"])
def test_commas_of_a_folders_path_separate_no_names(root, tmp_path_factory, name):
    copied = tmp_path_factory.mktemp("copied") / name
    shutil.copytree(root, copied)
    pair = f"folder:{copied}:{domain_pairs(root)[0]}"
    assert expand_tasks(f"digits, {pair} ,{pair}, mnist-mnistm") == ("digits", pair, pair, "mnist-mnistm")
    assert len(expand_tasks(f"folder:{copied}:all,digits")) == 7
    assert expand_tasks("folder:/absent:a-b,digits") == ("folder:/absent:a-b", "digits")


def test_all_pairs_of_a_named_benchmark_are_its_tasks():
    pairs = expand_tasks("office31:all,digits")
    assert len(pairs) == 7
    assert {"office31:amazon-webcam", "office31:webcam-amazon", "digits"} < {*pairs}
    assert expand_tasks("offcie:all") == ("offcie:all",)  # refused later, with the names that are near


def test_office31_is_found_in_the_data_folder_by_any_of_its_names_and_layouts(tmp_path):
    with pytest.raises(MutualignError, match=r"office31:dslr-amazon: no photos .*\n  missing (.|\n)*  hint: "):
        find_task("office31:dslr-amazon").load(tmp_path)
    for domain in ("amazon", "webcam", "dslr"):
        for name in ("mug", "pen"):
            for number in range(2):
                write(tmp_path / "domain_adaptation_images" / domain / "images" / name / f"{number}.jpg", 50 * number)
    task = find_task("office31:dslr-amazon").load(tmp_path)
    assert (task.name, task.class_names) == ("office31:dslr-amazon", ("mug", "pen"))
    assert len([name for name in TASKS if name.startswith("office31:")]) == 6


def test_the_real_office31_has_31_classes_in_each_domain(real_data):
    from mutualign.data.folders.listing import list_labelled

    found = {name: list_labelled(path) for name, path in domains(real_data / "office31").items()}
    assert found.keys() == {"amazon", "dslr", "webcam"}
    assert len({one.class_names() for one in found.values()}) == 1
    assert len(found["amazon"].class_names()) == 31
