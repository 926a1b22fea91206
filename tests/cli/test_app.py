"""The command as a whole: help, errors, text from outside, poor terminals, plugins."""

from __future__ import annotations

import io
import os
import re
import resource
import shlex
import subprocess
import sys

import pytest
import torch

from mutualign.cli import app
from mutualign.cli.console import PlainConsole, printable
from mutualign.cli.names import recipe_names, registered
from mutualign.data.datasets import TASKS
from mutualign.errors import nearest, this_command
from mutualign.evaluation.validators import VALIDATORS
from mutualign.io import plugins
from mutualign.methods import METHODS
from mutualign.nn.backbones import BACKBONES
from mutualign.recipes import recipe_names as real_recipe_names
from tests.cli.conftest import IMAGES, call

# Help -----------------------------------------------------------------------------------------------------------------


def test_help_version_and_completion_take_less_than_a_second_and_no_torch():
    code = (
        "import sys\nfrom mutualign.cli.app import main\n"
        "for line in (['--help'], ['--version'], [], ['run', '--help'], ['--tyro-print-completion', 'bash']):\n"
        "    sys.argv = ['mutualign', *line]\n"
        "    try: main()\n"
        "    except SystemExit as leaving: assert not leaving.code\n"
        "assert 'torch' not in sys.modules"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("width", [40, 80, 200])
def test_help_fits_the_terminal_and_names_no_empty_default(mutualign, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for command in (*app.COMMANDS, ""):
        _, out, _ = mutualign(*filter(None, [command]), "--help")
        lines = [line for line in out.splitlines() if not re.match("usage:|Examples?:| +mutualign ", line)]
        assert max(map(len, lines)) <= width, command
        assert not re.search(r"\(default: (None|False|\(\)|\s*)\)|\{None\}", out), command


def test_every_example_in_help_is_a_command_that_parses(mutualign):
    for command in app.COMMANDS:
        _, out, _ = mutualign(command, "--help")
        examples = re.findall(rf"^(?:Examples?:)? +mutualign ({command}\b.*)$", out, re.MULTILINE)
        assert examples, command
        for example in examples:
            assert app.parse(shlex.split(example)), example


def test_help_says_that_force_trains_no_finished_run_again(mutualign):
    assert "Finished runs stay as they are." in mutualign("compare", "--help").out


def test_names_in_help_are_those_of_the_registries():
    assert registered("method") == sorted(METHODS)
    assert registered("backbone") == sorted(BACKBONES)
    assert registered("validator") == sorted(VALIDATORS)
    assert recipe_names() == real_recipe_names()


def test_without_arguments_four_lines_say_what_to_do_next(mutualign):
    code, out, _ = mutualign()
    assert code == 0
    assert len(out.splitlines()) == 4


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], 'unknown command "rnu"; did you mean "run"?'),
        (["run", "--task", "digitz"], 'unknown task "digitz"; did you mean "digits"?'),
        (["run", "--recipe", "dan"], 'unknown recipe "dan"; did you mean "dann" or "dann_ramp"?'),
        (["run", "--set", "stages.0.options.treshold=0.5"], 'unknown key "treshold"; did you mean "threshold"?'),
        (["run", "--set", "a=1", "--set", "b=2"], 'unknown key "a"'),
        (["compare", "--set", "a=1", "c=3", "-r", "dann", "--set", "b=2"], 'unknown key "a"'),
        (["compare", "--engine-options", "a=1", "--jobs", "2", "--engine-options", "b=2"], 'unknown key "a"'),
        (["compare", "--recipes", "dan", "-r", "dannn"], 'unknown recipe "dan"; did you mean "dann"'),
        (["compare", "--task", "digitz", "-t", "digit"], 'unknown task "digitz"; did you mean "digits"'),
        (["run", "--backbone", "resnet18"], "allowed: bottleneck, efficientnet_lite0"),
        (["run", "--source", "here"], "both --source and --target"),
        (["run", "--task", "digits", "--source", "a", "--target", "b"], "two sources"),
        (["compare", "--task", "digits", "--source", "a", "--target", "b"], "two sources"),
        (["run", "--resume", "nowhere"], "nowhere is not a run folder"),
        (["run", "--out", "x" * 300], "longer than 255 bytes"),
        (["run", "--out", "\udcff"], "not UTF-8 text"),
        (["run", "--keep", "1" + 20 * "0"], "--keep must be from 1 to"),
        (["run", "--save-every", "nan"], "--save-every must be from 0 to"),
        (["run", "--seed", "-1"], "--seed must be from 0 to"),
        (["run", "--devices", "0"], "--devices must be from 1 to"),
        (["run", "--nodes", "100000000000"], "--nodes must be from 1 to"),
        (["compare", "--seeds", "1000000000"], "--seeds must be from 1 to 10,000, got 1000000000"),
        (["compare", "--out", os.devnull], f"--out {os.devnull}: {os.devnull} is not a folder\n  hint: "),
        (["sweep", "space.toml", "--out", f"{os.devnull}/a"], f"{os.devnull} is not a folder"),
        (["compare", "--recipes", "dann, dann"], 'the recipe "dann" is named twice'),
        (["compare", "--recipes", ""], 'unknown recipe ""; allowed: '),
        (["compare", "--task", ""], 'unknown task ""; allowed: '),
        (["run", "--recipe", ""], 'unknown recipe ""; allowed: '),
        (["run", "--task", ""], 'unknown task ""; allowed: '),
        (["compare", "--task", "digits,mnist"], 'did you mean "mnist-mnistm" or'),
        (["compare", "--save", os.devnull], "not a regular file"),
        (["select"], "name one or more run folders"),
        (["estimate"], "name one or more run folders"),
        (["report", "nowhere"], "nowhere"),
        (["demo", "run", "--port", "70000"], "--port must be from 0 to 65,535, got 70000"),
        (["demo", "run", "--port", "-1"], "--port must be from 0 to 65,535, got -1"),
        (["--plugin"], "--plugin needs the name of a module"),
        (["show", "x", "--plugin", "absent_module"], "plugin absent_module: cannot be imported: ModuleNotFoundError"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(refused, tmp_path, arguments, message):
    assert message in refused(*arguments)
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}  # of libraries that are imported for the first time


def test_the_command_of_a_process_can_be_pasted_also_if_python_runs_the_module(monkeypatch):
    for program in ("/usr/bin/mutualign", "/packages/mutualign/__main__.py"):
        monkeypatch.setattr(sys, "argv", [program, "run", "--out", "my runs"])
        assert this_command() == "mutualign run --out 'my runs'"


def test_torchruns_variables_are_checked(refused, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "x")
    assert 'the environment variable LOCAL_WORLD_SIZE is "x"' in refused("run")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, ""),
        (MemoryError(), 2, "mutualign: out of memory(.|\n)*ulimit -v"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "mutualign: out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB."), 2, "mutualign: out of memory"),
        (PermissionError(13, "Permission denied", "a file"), 2, "mutualign: a file: Permission denied\n"),
    ],
)
def test_what_the_system_refuses_is_no_traceback(mutualign, monkeypatch, error, code, message):
    def fail(_):
        raise error

    monkeypatch.setattr(app, "parse", fail)
    answer = mutualign("show", "x")
    assert answer.code == code
    assert re.match(message, answer.err)


def test_names_that_begin_as_the_word_does_are_suggested_before_similar_ones():
    assert nearest("MNIST", TASKS).startswith('did you mean "mnist-mnistm" or "mnist-mnistm-imbalanced" or')
    assert nearest("tresholds", ["threshold", "weight"]) == 'did you mean "threshold"?'
    assert nearest("resnet18", BACKBONES) == f"allowed: {', '.join(sorted(BACKBONES))}"
    assert nearest("anything", []) == "allowed: nothing"


# Text from outside, and where it goes ---------------------------------------------------------------------------------


def test_nothing_from_outside_is_markup_an_emoji_or_a_control():
    console = PlainConsole(file=io.StringIO(), width=30, force_terminal=True)
    for text in ("[bold]a[/bold]", "[/]", ":smile:", "runs[v2]"):
        console.print(text)
        assert console.file.getvalue().endswith(f"{text}\n")
    console.print("\x1b[2J\x07\r\u202e\x9b", "\ud800", style="bold")
    assert r"\x1b[2J\x07\r\u202e\x9b \ud800" in console.file.getvalue()


def test_commands_are_not_wrapped_and_a_narrow_encoding_is_served():
    buffer = io.BytesIO()
    console = PlainConsole(file=io.TextIOWrapper(buffer, encoding="ascii", write_through=True), width=20)
    console.print("mutualign show " + "é" * 30)
    console.print("86.9 ± 0.8 → ▁█")
    assert buffer.getvalue().decode() == "mutualign show " + r"\xe9" * 30 + "\n86.9 +/- 0.8 -> _#\n"
    assert printable("é\u200d\ttab\n") == "é\u200d\ttab\n"


def test_every_command_ends_well_where_standard_output_is_ascii(mutualign, runs, monkeypatch):
    run = runs["dann"]
    os.link("target/li-0.png", "é.png")
    for command in (["show", run], ["select", run], ["estimate", run], ["predict", run, "é.png"]):
        buffer = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
            assert call(*map(str, command)) == 0
            sys.stdout.flush()
            shown = buffer.getvalue()
        assert shown
    assert rb"\xe9.png" in shown


def test_a_reader_that_has_read_enough_is_no_traceback():
    shell = f"{sys.executable} -m mutualign run --help | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Train one recipe")
    assert done.stderr == ""


# Plugins --------------------------------------------------------------------------------------------------------------

PLUGIN = """
from mutualign.methods import register_method
from mutualign.methods.source_only import SourceOnly

@register_method("own")
class Own(SourceOnly):
    '''A method of a user.'''
"""


def test_every_command_takes_a_method_of_a_plugin(mutualign, here, monkeypatch):
    monkeypatch.setattr(plugins, "_loaded", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    (here / "own_method.py").write_text(PLUGIN)
    (here / "own.toml").write_text('backbone = "mlp"\n[[stages]]\nmethod = "own"\nepochs = 1\n')
    own = ["--plugin", "own_method.py"]
    try:
        code, _, err = mutualign("run", "--recipe", "own.toml", *IMAGES, "--out", "own", *own)
        assert code == 0, err
        (run,) = (path.parent for path in here.glob("own/*/*/*/config.toml"))
        assert 'plugins = [\n    "own_method.py",\n]' in (run / "config.toml").read_text()
        commands = (
            ["show", run],
            ["predict", run, "target", "--out", "found.csv"],
            ["export", run, "--format", "safetensors"],
            ["report", run],
            ["run", "--resume", run],
        )
        for command in commands:
            code, _, err = mutualign(*command, *own)
            assert code == 0, err
        (run / "result.json").rename(run / "kept.json")  # as if it had been stopped
        for command in (["runs", here / "own"], ["show", run], ["export", run]):
            answer = mutualign(*command, *own)
            printed = re.search(r"mutualign (run --resume .*)", answer.out + answer.err)
            assert shlex.split(printed[1]) == ["run", "--resume", str(run), *own]
        plugins._loaded.clear()
        del METHODS["own"], sys.modules["own_method"]
        code, _, err = mutualign("show", run)
        assert code == 2
        assert "needs the plugin own_method.py" in err
        assert "--plugin own_method.py" in err
    finally:
        METHODS.pop("own", None)
        sys.modules.pop("own_method", None)
