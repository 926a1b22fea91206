"""Bad input at the command line: exit status 2, and a message that says what is wrong, where, and what to do."""

from __future__ import annotations

import re
import shutil
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from tests.data.test_own_images import png_header

from mutualign.cli import app as cli
from mutualign.data.folders.own_images import FolderTask
from mutualign.recipes import load_recipe
from mutualign.runs.experiment import Experiment
from tests.conftest import make_tiny_task

RUN = ["run", "--recipe", "source_only", "--set", "stages.0.epochs=1"]
OWN = [*RUN, "--source", "source", "--target", "target", "--backbone", "mlp"]


@pytest.fixture
def told(monkeypatch, capsys, tmp_path):
    """Give arguments to the command line, which must refuse them; gives what it said of it."""
    monkeypatch.chdir(tmp_path)

    def refused(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["mutualign", *arguments])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        said = capsys.readouterr().err
        assert leaving.value.code == 2, said
        assert said.startswith("mutualign: ")
        assert "Traceback" not in said
        return said

    return refused


@pytest.fixture
def images(tmp_path):
    """Two classes of five source images, and five target images."""
    for number in range(5):
        for path, value in (("source/dark", 10), ("source/light", 200), ("target", 100), ("test/dark", 10)):
            save(tmp_path / path / f"{number}.png", value + number)
    return tmp_path


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), value).save(path)


def says(message: str, what: str, where: str, do: str) -> bool:
    """Whether a message has all three, the last in a clause that begins with `do`, or with a semicolon."""
    advice = re.search(r"(\n  do  |; )(.|\n)*", message)
    return what in message and where in message and advice is not None and do in advice[0]


# Images that cannot make a task ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["source", "target", "source-test", "target-test"])
def test_an_empty_folder(told, images, part):
    (images / "empty").mkdir()
    assert says(told(*OWN, f"--{part}", "empty"), "no images in it, 0 other file(s)", "empty", "put images there")


def test_a_folder_that_is_not_there(told, images):
    assert says(told(*OWN, "--target", "absent"), "no such folder", "absent", "check the path")


def test_an_image_in_place_of_a_folder(told, images):
    message = told(*OWN, "--target", "target/0.png")
    assert says(message, "a file, not a folder", "target/0.png", "for example target")


def test_one_class(told, images):
    shutil.rmtree(images / "source" / "light")
    assert says(told(*OWN), 'only the class "dark"', "source", "the folder that holds a folder for each class")
    (images / "t.csv").write_text("path,label\nsource/dark/0.png,a\nsource/dark/1.png,a\n")
    assert says(told(*OWN, "--source", "t.csv"), 'only the class "a"', "t.csv", "rows of another label")


def test_one_image_of_a_class(told, images):
    save(images / "source" / "rare" / "0.png")
    assert says(told(*OWN), 'class "rare" has 1 image', "source", "add images of it")


def test_a_class_in_the_target_only(told, images):
    save(images / "test" / "drak" / "0.png")
    message = told(*OWN, "--target-test", "test")
    assert says(message, 'class "drak" is not among the source\'s; did you mean "dark"?', "test", "rename it")


def test_a_label_column_that_is_missing(told, images):
    (images / "t.csv").write_text("path,class\nsource/dark/0.png,x\n")
    assert says(told(*OWN, "--source", "t.csv"), 'no column "label"; there is: path, class', "t.csv", "name a column")
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"path": ["a.png"], "class": ["x"]}), images / "t.parquet")
    message = told(*OWN, "--source", "t.parquet")
    assert says(message, 'no column "label"; there is: path, class', "t.parquet", "name a column")


TABLES = {
    "file\na.png\n": ('no column "path"; there is: file', "name a column path"),
    "path;label\na.png;x\n": ('no column "path"; there is: path;label', "with commas between"),
    "path,label\n": ("without a row", "add a row an image"),
    "path,label\na.png,\n": ('row 1 has no "label"', "fill it, or leave it out"),
    "path,label\na.png,x,y\n": ("row 1 has 3 value(s), the head has 2", "between double quotes"),
    "path,label\na.png,x\na.png,y\n": ('row 2 calls a.png "y", an earlier row "x"', "leave one of the rows out"),
    'path,label\n"a.png,x\n': ("not a readable CSV table", "save the table anew"),
}


@pytest.mark.parametrize("text", TABLES)
def test_a_table_that_makes_no_sense(told, images, text):
    (images / "t.csv").write_text(text)
    what, do = TABLES[text]
    assert says(told(*OWN, "--source", "t.csv"), what, "t.csv", do)


def test_a_label_that_is_not_a_number_in_a_column_of_numbers(told, images):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paths = [f"source/dark/{number}.png" for number in range(5)]
    parquet.write_table(pyarrow.table({"path": paths, "label": [0.0, 1.0, 0.0, 1.0, np.nan]}), images / "t.parquet")
    assert says(told(*OWN, "--source", "t.parquet"), 'row 5 has no "label"', "t.parquet", "leave it out")


def test_a_pixel_bomb(told, images):
    (images / "target" / "bomb.png").write_bytes(png_header(40_000, 40_000))
    message = told(*OWN)
    assert says(message, "1,600,000,000 pixels, more than the 67,108,864", "target/bomb.png", "make it smaller")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff"])
def test_a_truncated_file(told, images, suffix):
    whole = BytesIO()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    noise.save(whole, {"jpg": "JPEG"}.get(suffix, suffix))
    (images / "target" / f"cut.{suffix}").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    message = told(*OWN)
    assert says(message, "1 of 6 images cannot be read", f"target/cut.{suffix}", "mend or remove them")


@pytest.mark.parametrize(
    ("backbone", "smallest"), [("mani_cnn", "10x10"), ("two_block_cnn", "12x12"), ("small_resnet", "9x9")]
)
def test_a_size_that_the_backbone_cannot_take(told, images, backbone, smallest):
    message = told(*OWN, "--backbone", backbone, "--image-size", "6")
    assert says(message, "images of 6x6 are too small", f"backbone {backbone}", f"it takes {smallest} or more")
    assert not (images / "runs").exists()  # the corrected command begins anew


@pytest.mark.parametrize("size", ["0", "100000"])
def test_a_size_that_no_image_should_have(told, images, size):
    assert says(told(*OWN, "--image-size", size), "the image size is from 1 to 1024", size, "choose another")


def test_a_run_that_cannot_be_written(told, images):
    (images / "file").write_text("in the way")
    message = told(*OWN, "--out", "file")
    assert says(message, "cannot make the run folder", "file/source-to-target", "another --out")


def test_an_accelerator_that_is_not_there(told, images):
    for more in ([], ["--devices", "2"]):
        message = told(*OWN, "--backbone", "mlp", "--accelerator", "mps", "--out", f"runs-{len(more)}", *more)
        assert says(message, "cannot train on", 'accelerator "mps"', "leave --accelerator, --devices and --nodes out")


def test_files_that_are_no_images_by_their_name_are_told_of(images):
    for name in ("photo.heic", "notes.txt"):
        (images / "source" / "dark" / name).write_text("x")
    task = FolderTask(images / "source", images / "target").load()
    assert task.notes[0] == "source: 8 images of 2 classes, 4 of each; 2 other file(s), which are not looked at"
    assert not any("other" in note for note in task.notes[1:])


# Runs and outputs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    recipe = load_recipe("source_only", ["stages.0.epochs=1", "backbone=mlp", "precision=float32"])
    path = tmp_path_factory.mktemp("finished") / "run"
    Experiment.start(recipe, make_tiny_task(), 0, path).run()
    return path


@pytest.fixture
def run(finished, images):
    """A finished run as the folder `run`."""
    shutil.copytree(finished, images / "run")
    return images / "run"


USES = {
    "predict": ["predict", "run", "target", "--out", "found.csv"],
    "export": ["export", "run", "--format", "safetensors"],
    "demo": ["demo", "run"],
    "resume": ["run", "--resume", "run"],
    "show": ["show", "run"],
    "report": ["report", "run"],
    "select": ["select", "run"],
    "estimate": ["estimate", "run"],
}


@pytest.mark.parametrize("use", USES)
def test_a_run_folder_from_a_newer_version(told, run, use):
    config = run / "config.toml"
    config.write_text(config.read_text().replace("format = 1", "format = 99"))
    message = told(*USES[use])
    assert all(part in message for part in ("run-folder format 99", "run ", "use a newer mutualign"))


@pytest.mark.parametrize("use", ["predict", "export", "demo", "report"])
def test_a_run_that_is_not_finished(told, run, use):
    (run / "result.json").unlink()
    assert says(told(*USES[use]), "is not complete", "run", "`mutualign run --resume run`")


@pytest.mark.parametrize("use", ["predict", "export", "demo"])
def test_a_run_whose_weights_are_damaged(told, run, use):
    weights = run / "checkpoints" / "stage-0-selected.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert says(told(*USES[use]), "not a readable checkpoint", str(weights.relative_to(run.parent)), "make it anew")


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_predictions_that_cannot_be_written_are_refused_before_the_first_image_is_read(told, run, kind, monkeypatch):
    monkeypatch.setattr("mutualign.runs.predictor.Predictor.load", lambda *_: pytest.fail("began"))
    (run.parent / "file").write_text("in the way")
    (run.parent / f"folder.{kind}").mkdir()
    for out in (f"file/found.{kind}", f"folder.{kind}"):
        assert says(
            told("predict", "run", "target", "--out", out), "cannot be written", out, "another place with --out"
        )
    monkeypatch.setattr("os.access", lambda *_: False)  # as for whoever is not root in a folder of somebody else's
    message = told("predict", "run", "target", "--out", f"found.{kind}")
    assert says(message, "no permission to write", f"found.{kind}", "another place with --out")


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_predictions_take_the_place_of_older_ones_only_when_all_are_there(told, run, kind, monkeypatch):
    old = run.parent / f"found.{kind}"
    old.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    message = told("predict", "run", "target", "--out", old.name)
    assert says(message, "No space left on device", old.name, "free space there")
    assert old.read_bytes() == b"old"
    assert list(run.parent.glob("found.*")) == [old]


@pytest.mark.parametrize(
    ("images_", "what", "do"),
    [
        ("absent.png", "no such image, folder or table", "check the path"),
        ("absent", "no such image, folder or table", "check the path"),
        ("animation.gif", "neither an image nor a table by its name", "give an image (.bmp"),
        ("target", "more than one image", "--out predictions.csv"),
        ("bad", "none of 2 image(s) can be read", "mend them"),
        ("bad/0.png", "none of 1 image(s) can be read\n  bad      bad/0.png: not a readable image", "mend them"),
        ("empty", "no images in it", "put images there"),
    ],
)
def test_nothing_to_predict(told, run, images_, what, do):
    (run.parent / "animation.gif").write_bytes(b"GIF89a")
    for folder in ("empty", "bad"):
        (run.parent / folder).mkdir()
    for number in range(2):
        (run.parent / "bad" / f"{number}.png").write_bytes(b"no image")
    out = ["--out", "found.csv"] if images_ in ("bad", "empty") else []
    assert says(told("predict", "run", images_, *out), what, images_, do)
    assert not (run.parent / "found.csv").exists()


def test_an_export_that_cannot_be_written(told, run):
    (run.parent / "file").write_text("in the way")
    message = told(*USES["export"], "--out", "file/model.safetensors")
    assert says(message, "cannot be written", "file/model.safetensors:", "another place with --out")
