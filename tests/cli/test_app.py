"""The command line, in this process and, for signals, in another."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import tomli_w
import torch

from mutualign.cli import app as cli
from mutualign.recipes import load_recipe
from mutualign.runs.folder import RunFolder

SHORT = ["--set", "stages.0.epochs=2", "stages.0.batch_size=128"]


@pytest.fixture
def mutualign(monkeypatch, capsys, tmp_path):
    """Call the command line in this process; gives exit code, standard output and standard error."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mutualign", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_compare_trains_prints_a_table_and_keeps_the_rows(mutualign, tmp_path):
    command = [
        "compare",
        "--recipes",
        "source_only,dann",
        "--task",
        "digits",
        "--seeds",
        "1",
        *SHORT,
        "--save",
        "rows.json",
    ]
    code, out, _ = mutualign(*command)
    assert code == 0
    for part in (
        "source_only",
        "dann",
        "oracle",
        "needs labels",
        "next, for example: mutualign show runs/digits/dann/seed-0",
    ):
        assert part in out
    content = json.loads((tmp_path / "rows.json").read_text())
    assert content["command"] == " ".join(["mutualign", *command])
    assert len(content["rows"]) == 6
    code, out, _ = mutualign("show", "runs/digits/dann/seed-0")
    assert code == 0
    assert "stage 1: dann" in out

    both = ["runs/digits/source_only/seed-0", "runs/digits/dann/seed-0"]
    code, out, _ = mutualign("select", *both, "--validator", "source_accuracy")
    assert code == 0
    assert all(run in out for run in both)
    assert "by source accuracy, without target labels" in out
    config = tmp_path / both[0] / "config.toml"
    config.write_text(config.read_text().replace("scikit-learn", "other"))
    code, _, err = mutualign("select", *both)
    assert code == 2
    assert "different data" in err


def test_run_refuses_a_folder_that_holds_a_run_and_says_what_to_do(mutualign):
    command = ["run", "--recipe", "source_only", "--set", "stages.0.epochs=1", "stages.0.batch_size=128"]
    code, out, _ = mutualign(*command)
    assert code == 0
    assert "runs/digits/source_only/seed-0" in out
    code, _, err = mutualign(*command)
    assert code == 2
    assert "mutualign run --resume runs/digits/source_only/seed-0" in err
    assert mutualign("run", "--resume", "runs/digits/source_only/seed-0")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--task", "digitz"], 'unknown task "digitz"; did you mean "digits"?'),
        (["run", "--recipe", "dan"], 'unknown recipe "dan"; did you mean "dann"?'),
        (["compare", "--task", "digits,mnist"], 'unknown task "mnist"'),
        (["run", "--set", "stages.0.options.treshold=0.5"], 'unknown key "treshold"; did you mean "threshold"?'),
        (["run", "--resume", "nowhere"], "nowhere is not a run folder"),
        (["show", "nowhere"], "nowhere is not a run folder"),
        (["select"], "name one or more run folders"),
        (["select", "nowhere"], "nowhere is not a run folder"),
        (["estimate"], "name one or more run folders"),
        (["estimate", "nowhere"], "nowhere is not a run folder"),
        (["run", "--task", "digits@some"], "after the @ goes a number of images, such as digits@6000"),
        (["compare", "--seeds", "0"], "at least one seed"),
        (["compare", "--recipes", "dann,dann"], 'the recipe "dann" is named twice'),
        (["run", "--data", "nowhere", "--task", "mnist-mnistm"], "--data nowhere: no such folder"),
    ],
)
def test_bad_input_is_answered_in_a_sentence_without_a_traceback(mutualign, arguments, told):
    code, _, err = mutualign(*arguments)
    assert code == 2
    assert err.startswith("mutualign: ")
    assert told in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "command", ["run", "compare", "select", "estimate", "report", "predict", "show", "export", "demo", "data"]
)
def test_every_help_teaches(mutualign, command):
    code, out, _ = mutualign(command, "--help")
    assert code == 0
    assert "--help" in out
    assert len(out.splitlines()) > 5


def test_data_list_names_every_task(mutualign, tmp_path):
    (tmp_path / "data").mkdir()
    code, out, _ = mutualign("data", "list", "--data", "data")
    assert code == 0
    assert "mnist-mnistm-resampled" in out
    assert "0 of 504 files" in out


def test_data_verify_names_a_damaged_file(mutualign, tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    code, _, err = mutualign("data", "verify", "--data", ".")
    assert code == 2
    assert "damaged  train-images-idx3-ubyte.gz" in err


def test_data_verify_finds_the_real_files_whole(mutualign, real_data):
    code, out, _ = mutualign("data", "verify", "mnist-mnistm-resampled", "--data", str(real_data))
    assert code == 0
    assert "504 of 504 files, 0 damaged" in out


SHORT_RUN = ["--recipe", "dann", "--set", "stages.0.epochs=3", "stages.0.batch_size=128"]


def start_run(folder, *arguments: str) -> subprocess.Popen[str]:
    """`mutualign run` in a process of its own."""
    command = [sys.executable, "-m", "mutualign", "run", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> RunFolder:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    whole = start_run(folder, *SHORT_RUN)
    whole.communicate(timeout=120)
    assert whole.returncode == 0
    return RunFolder(folder / "runs" / "digits" / "dann" / "seed-0")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, whole_run, number, expected, faults):
    stopped = start_run(tmp_path, "--out", "stopped", *SHORT_RUN)
    folder = RunFolder(tmp_path / "stopped" / "digits" / "dann" / "seed-0")
    deadline = time.monotonic() + 120
    while not folder.metrics() and time.monotonic() < deadline:
        time.sleep(0.05)
    stopped.send_signal(number)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == expected
    assert folder.result() is None
    if number != signal.SIGKILL:
        assert "go on with: mutualign run --resume stopped/digits/dann/seed-0" in err

    with faults.injected("killed at any moment" if number == signal.SIGKILL else "stopped by a signal"):
        resumed = start_run(tmp_path, "--resume", "stopped/digits/dann/seed-0")
        resumed.communicate(timeout=120)
        assert resumed.returncode == 0
        ours, theirs = folder.load_tensors("last")[0], whole_run.load_tensors("last")[0]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert numbers(folder) == numbers(whole_run)


def numbers(run: RunFolder) -> list[dict]:
    return [{key: value for key, value in record.items() if key != "train_seconds"} for record in run.metrics()]


def test_the_module_runs_as_a_program():
    help_ = subprocess.run([sys.executable, "-m", "mutualign", "--help"], capture_output=True, text=True, check=True)
    assert "compare" in help_.stdout


def test_a_reader_that_has_read_enough_is_no_traceback():
    shell = f"{sys.executable} -m mutualign run --help | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("usage: mutualign run")
    assert done.stderr == ""


def test_strict_turns_an_alarm_into_an_exit_status_and_keeps_the_result(mutualign, tmp_path):
    short = [
        "--recipe",
        "dann",
        "--task",
        "digits@100",
        "--set",
        "stages.0.epochs=1",
    ]  # far too short to learn anything
    code, out, _ = mutualign("run", *short, "--strict", "--out", "strict")
    assert code == 3
    assert "alarm: source is not learnt" in out
    assert RunFolder.open(tmp_path / "strict" / "digits@100" / "dann" / "seed-0").result()["alarms"]
    code, out, _ = mutualign("run", *short, "--out", "lenient")
    assert code == 0
    assert "alarm: source is not learnt" in out
    code, out, _ = mutualign(
        *("compare", "--recipes", "dann", "--task", "digits@100", "--seeds", "1", "--set", "stages.0.epochs=1"),
        *("--strict", "--out", "lenient"),
    )
    assert code == 3
    assert "alarm: dann on digits@100, seed 0: source is not learnt" in out


def test_estimate_prints_an_interval_for_each_run_and_says_when_it_is_a_rough_guess(mutualign):
    mutualign("compare", "--recipes", "source_only", "--task", "digits", "--seeds", "2", *SHORT)
    runs = [f"runs/digits/source_only/seed-{seed}" for seed in (0, 1)]
    code, out, _ = mutualign("estimate", *runs)
    assert code == 0
    assert all(run in out for run in runs)
    assert " to " in out
    assert "rough guess" not in out
    code, out, _ = mutualign("estimate", runs[0])
    assert code == 0
    assert "rough guess" in out


@pytest.mark.slow
def test_two_folders_become_a_run_whose_predictions_are_kept(mutualign, tmp_path):
    from PIL import Image

    for number in range(30):
        for name, value in (("dark", 20), ("light", 220)):
            for domain in ("source", "target"):
                path = tmp_path / domain / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (12, 14), value + number % 10).save(path)
    command = ["run", "--source", "source", "--target", "target", "--recipe", "source_only", "--backbone", "mlp"]
    code, out, err = mutualign(*command, "--set", "stages.0.epochs=2", "stages.0.epoch_steps=50")
    assert code == 0, err
    assert "unknown" in out  # the target accuracy
    assert "oracle" not in out
    run = tmp_path / "runs" / "source-to-target" / "source_only" / "seed-0"
    config = RunFolder.open(run).config()
    assert config["images"] == {"channels": 1, "height": 12, "width": 12}
    assert config["own_images"]["source"] == str(tmp_path / "source")

    (tmp_path / "target" / "light" / "broken.png").write_bytes(b"no image")
    code, out, err = mutualign("predict", str(run), "target", "--out", "found.json")
    assert code == 0, err
    assert "left out: target/light/broken.png" in out
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert len(found) == 60
    assert all(one["path"].split("/")[1] == one["label"] for one in found)
    for suffix in ("csv", "parquet"):
        assert mutualign("predict", str(run), "target", "--out", f"found.{suffix}")[0] == 0
    code, out, _ = mutualign("predict", str(run), "target/dark/0.png")
    assert "  dark  probability" in out

    (tmp_path / "target" / "light" / "broken.png").unlink()
    both = ["--recipes", "source_only,benchmark.toml", "--seeds", "1", "--source", "source", "--target", "target"]
    fewer = load_recipe("source_only", ["stages.0.epochs=1"]).to_dict() | {"name": "benchmark"}
    (tmp_path / "benchmark.toml").write_text(tomli_w.dumps(fewer))
    code, out, err = mutualign("compare", *both, "--set", "backbone=mlp", "--out", "compared")
    assert code == 0, err
    assert "the target has no labels: `mutualign select` ranks the runs without" in " ".join(out.split())
    code, out, err = mutualign("compare", *both, "--target-test", "target", "--set", "backbone=mlp", "--out", "judged")
    assert code == 0, err
    assert re.search(r"gain over source_only.*\n.*benchmark", out, re.DOTALL)

    for arguments, told in (
        (["predict", str(run), "target"], "say where to"),
        (["predict", str(run), "absent.png"], "no such image"),
        (["predict", str(run), "target", "--out", "found.txt"], "must end in one of"),
        (["run", "--source", "source"], "both --source and --target"),
    ):
        code, _, err = mutualign(*arguments)
        assert (code, told in err) == (2, True), err
