"""Photos: crops against naive slices, and the list of BSDS500."""

from __future__ import annotations

import hashlib
import io
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mutualign.data.datasets import published
from mutualign.data.datasets.bsds500 import Photos, load_bsds500
from mutualign.data.datasets.published import BSDS500_FILES
from mutualign.data.fetch.data_files import DataFile
from mutualign.errors import MutualignError


def noise(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * height + width)
    return torch.randint(256, (height, width, 3), generator=generator).to(torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LYING, STANDING, EXACT = noise(7, 12), noise(11, 6), noise(5, 4)


def test_crops_at_given_places_equal_slices_of_each_photo():
    images = [LYING, STANDING, EXACT]
    places = [  # every corner of every photo, crops of 5x4
        (number, top, left)
        for number, image in enumerate(images)
        for top in range(image.shape[0] - 5 + 1)
        for left in range(image.shape[1] - 4 + 1)
    ]
    photo, top, left = torch.tensor(places).T
    found = Photos(images).crops_at(photo, top, left, 5, 4)
    assert found.shape == (len(places), 5, 4, 3)
    for crop, (number, y, x) in zip(found, places, strict=True):
        assert torch.equal(crop, images[number][y : y + 5, x : x + 4])


def numbered(height: int, width: int, number: int) -> torch.Tensor:
    """A photo whose pixels hold its number, the row and the column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.full_like(rows, number), rows, columns], dim=2).to(torch.uint8)


sizes = st.tuples(st.integers(3, 9), st.integers(2, 9))


@given(st.lists(sizes, min_size=1, max_size=4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2**63 - 1))
def test_every_random_crop_lies_inside_one_photo(shapes, height, width, seed):
    photos = Photos([numbered(*shape, number) for number, shape in enumerate(shapes)])
    for crop in photos.crops(50, height, width, seeded(seed)):
        number, top, left = crop[0, 0].tolist()
        assert top + height <= shapes[number][0]
        assert left + width <= shapes[number][1]
        assert torch.equal(crop, numbered(*shapes[number], number)[top : top + height, left : left + width])


def test_all_photos_and_all_corners_to_the_last_are_equally_likely():
    shapes = [(4, 3), (3, 5)]  # with crops of 3x2: 2x2 and 1x4 corners
    photos = Photos([numbered(*shape, number) for number, shape in enumerate(shapes)])
    n = 8000
    corners = [tuple(crop[0, 0].tolist()) for crop in photos.crops(n, 3, 2, seeded())]
    expected = {(0, y, x) for y in range(2) for x in range(2)} | {(1, 0, x) for x in range(4)}
    assert set(corners) == expected
    for corner in expected:  # the binomial's standard deviation is 30
        assert abs(corners.count(corner) - n / 8) < 5 * 30


def test_the_largest_random_number_still_gives_a_crop_inside(monkeypatch):
    photos = Photos([numbered(321, 481, 0), numbered(28, 28, 1)])
    for largest in (0.0, 1 - 2**-53):
        monkeypatch.setattr(
            torch, "rand", lambda *shape, value=largest, **_: torch.full(shape, value, dtype=torch.float64)
        )
        for crop in photos.crops(20, 28, 28, seeded()):
            height, width = [(321, 481), (28, 28)][crop[0, 0, 0]]
            start = (0, 0) if largest == 0 else (height - 28, width - 28)
            assert crop[0, 0, 1:].tolist() == [start[0] % 256, start[1] % 256]


@pytest.mark.parametrize(("height", "width"), [(8, 2), (2, 7), (100, 100)])
def test_a_photo_smaller_than_the_crop_is_an_error_that_says_which_and_how_large(height, width):
    photos = Photos([noise(200, 200), noise(7, 6), noise(200, 200)])
    with pytest.raises(MutualignError, match=rf"photo 1 is 7x6 pixels .* crops of {height}x{width}"):
        photos.crops(1, height, width, seeded())


def test_the_shipped_list_names_every_photo_of_every_split_once_with_its_hash_and_places():
    assert {split: len(files) for split, files in BSDS500_FILES.items()} == {"train": 200, "val": 100, "test": 200}
    everything = [(split, file) for split, files in BSDS500_FILES.items() for file in files]
    assert len({file.name.rpartition("/")[2] for _, file in everything}) == 500
    assert len({sha256 for _, file in everything for sha256 in file.accepted.values()}) == 500
    for split, file in everything:
        tail = rf"BSDS500/data/images/{split}/\d+\.jpg"
        assert re.fullmatch(tail, file.name)
        assert [*file.accepted] == [file.name, f"BSR/{file.name}"]
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in file.accepted.values())
        assert [url.endswith(f"/{file.name}") for url in file.mirrors] == [True]


def use_photos(folder, monkeypatch: pytest.MonkeyPatch, contents: list[bytes]) -> None:
    """Let the test split be these files."""
    files = []
    for number, content in enumerate(contents):
        name = f"BSDS500/data/images/test/{number}.jpg"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files.append(DataFile({name: hashlib.sha256(content).hexdigest()}))
    monkeypatch.setattr(published, "BSDS500_FILES", {"test": tuple(files)})


def jpeg(height: int, width: int, value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_the_photos_of_a_split_are_decoded_in_the_order_of_the_list(tmp_path, monkeypatch):
    use_photos(tmp_path, monkeypatch, [jpeg(8, 16, 100), jpeg(16, 8, 200)])
    photos = load_bsds500(["test"], "a-task", tmp_path)
    assert (photos.heights.tolist(), photos.widths.tolist()) == ([8, 16], [16, 8])
    assert photos.pixels[:128].tolist() == [[100] * 3] * 128
    assert photos.pixels[128:].tolist() == [[200] * 3] * 128


def test_a_photo_that_is_no_jpeg_is_an_error_that_names_it(tmp_path, monkeypatch):
    use_photos(tmp_path, monkeypatch, [jpeg(8, 16, 100), jpeg(8, 8, 0)[:100]])
    with pytest.raises(MutualignError, match=r"test/1\.jpg: not a readable JPEG image"):
        load_bsds500(["test"], "a-task", tmp_path)
