"""The benchmark of own images: its drawings and files are what its description says."""

from __future__ import annotations

import numpy as np
import own_images
import pytest
import shapes
import torch

from mutualign.data.datasets.bsds500 import Photos
from mutualign.data.folders.folder_task import FolderTask
from mutualign.data.types import UnlabelledImages

PHOTO = torch.arange(80 * 90 * 3).reshape(80, 90, 3).remainder(256).to(torch.uint8)


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_a_shape_is_white_on_black_with_a_smooth_edge_and_inside_the_image(shape):
    for seed in range(20):
        mask = shapes.mask_of(shape, np.random.default_rng(seed))
        assert mask.shape == (64, 64, 1)
        share = (mask == 255).float().mean().item()
        assert 0.01 < share < 0.4
        edge = ((mask > 0) & (mask < 255)).float().mean().item()
        assert 0 < edge < share
        assert mask[[0, -1]].max() == mask[:, [0, -1]].max() == 0


def test_the_shapes_differ_for_the_same_draw():
    drawn = [shapes.mask_of(shape, np.random.default_rng(7)).float() for shape in shapes.SHAPES]
    for row, one in enumerate(drawn):
        for other in drawn[:row]:
            assert (one - other).abs().mean() > 2


def test_an_unknown_shape_is_an_error():
    with pytest.raises(ValueError, match="blob"):
        shapes.mask_of("blob", np.random.default_rng(0))


def test_the_two_colours_of_a_source_image_differ_and_an_equal_seed_gives_an_equal_image():
    for seed in range(20):
        image = shapes.in_two_colours("disc", np.random.default_rng(seed))
        assert torch.equal(image, shapes.in_two_colours("disc", np.random.default_rng(seed)))
        mask = shapes.mask_of("disc", np.random.default_rng(seed))[..., 0]
        inside, outside = image[mask == 255].unique(dim=0), image[mask == 0].unique(dim=0)
        assert len(inside) == len(outside) == 1
        assert (inside.int() - outside.int()).abs().sum() >= 120


def test_a_target_image_is_the_difference_of_a_crop_and_the_shape():
    image = shapes.over_photos(Photos([PHOTO]))("ring", np.random.default_rng(3)).int()
    mask = shapes.mask_of("ring", np.random.default_rng(3)).int()
    crop = torch.where(mask == 255, 255 - image, image)
    sure = ((mask == 0) | (mask == 255))[..., 0]
    crops = PHOTO.unfold(0, 64, 1).unfold(1, 64, 1).permute(0, 1, 3, 4, 2).reshape(-1, 64, 64, 3).int()
    assert any(torch.equal(crop[sure], one[sure]) for one in crops)


def test_images_written_as_files_are_read_back_to_the_byte(tmp_path):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (12, 9, 9, 3), generator=generator).to(torch.uint8)
    labels = torch.tensor([0, 1] * 6)
    own_images.write_folder(tmp_path / "a", pixels, labels, ("x", "y"))
    own_images.write_folder(tmp_path / "b", pixels, None, ("x", "y"))
    task = FolderTask(tmp_path / "a", tmp_path / "b", source_test=tmp_path / "a").load()
    assert torch.equal(task.target_train.images.pixels, pixels)
    order = torch.cat([torch.arange(0, 12, 2), torch.arange(1, 12, 2)])  # class by class
    assert torch.equal(task.source_train.images.pixels, UnlabelledImages(pixels).take(order, 0))
    assert torch.equal(task.source_train.labels, labels[order])


def test_a_folder_is_written_once_and_completely(tmp_path):
    def write(folder):
        folder.mkdir()
        (folder / "a").write_text("first")

    def fail(folder):
        folder.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own_images.once(tmp_path / "new", fail)
    assert not (tmp_path / "new").exists()
    own_images.once(tmp_path / "new", write)
    own_images.once(tmp_path / "new", fail)
    assert (tmp_path / "new" / "a").read_text() == "first"


@pytest.mark.slow
def test_the_results_have_the_accuracies_and_times_of_both_pairs_of_folders(run_benchmark, tmp_path, real_data):
    few = ["--limit", 60, "--folder", tmp_path / "own", "--seeds", 1, "--mnist", "fast", "--shapes", "fast"]
    results, _ = run_benchmark("own_images.py", *few, "--set", "stages.0.epochs=1", "stages.0.epoch_steps=0")
    assert {row["task"] for row in results["rows"]} == {"mnist-to-mnistm", "shapes-to-shapes-photo"}
    assert all(0 <= row["target_accuracy"] <= 1 for row in results["rows"])
    assert len(results["timings"]) == 6
    assert all(row["images_per_second"] > 0 for row in results["timings"])
    assert "64x64" in results["shapes"]
