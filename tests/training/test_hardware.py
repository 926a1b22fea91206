"""The machine and the software: precision and descriptions."""

from __future__ import annotations

import ctypes
import itertools
import platform
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric.accelerators.mps import MPSAccelerator

from mutualign.training import distributed, hardware
from mutualign.training.distributed import make_fabric
from mutualign.training.hardware import bf16_is_faster, describe_hardware, keep_freed_memory, versions

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "faster", "expected"),
    [
        ("float32", True, torch.float32),
        ("float32", False, torch.float32),
        ("bf16", True, torch.bfloat16),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_matrix_products_run_in_the_precision_that_is_asked_for(monkeypatch, precision, faster, expected):
    monkeypatch.setattr(distributed, "bf16_is_faster", lambda device: faster)
    fabric = make_fabric(precision, "cpu")
    assert fabric.device == CPU
    with fabric.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


@pytest.fixture
def clock(monkeypatch):
    """A clock by which products take the given seconds: in float32 and in bf16, in turns."""

    def set_seconds(*seconds: float) -> None:
        times = itertools.chain.from_iterable((0.0, each) for each in seconds)
        monkeypatch.setattr(hardware.time, "perf_counter", lambda: next(times))
        hardware._cpu_speedup.cache_clear()

    yield set_seconds
    hardware._cpu_speedup.cache_clear()


@pytest.mark.parametrize(("float32", "bf16", "faster"), [(2.0, 4.0, False), (2.0, 1.9, False), (2.0, 1.0, True)])
def test_a_cpu_is_faster_in_bf16_if_its_products_are_by_more_than_the_rounding_costs(clock, float32, bf16, faster):
    clock(*[float32, bf16] * 5)
    assert bf16_is_faster(CPU) == faster


def test_the_best_round_counts_so_that_other_work_on_the_machine_does_not(clock):
    clock(9.0, 1.0, 2.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0)
    assert hardware._cpu_speedup() == 2.0


def test_a_cpu_is_measured_once_and_with_the_threads_as_before(clock):
    clock(*[1.0, 1.0] * 5)  # a second measurement would find the clock at its end
    before = torch.get_num_threads()
    bf16_is_faster(CPU)
    bf16_is_faster(CPU)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_is_faster_in_bf16_where_it_is_not_emulated(monkeypatch, native):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: True if including_emulation else native
    )
    assert bf16_is_faster(torch.device("cuda")) == native


def test_other_devices_are_taken_to_be_no_faster_in_bf16():
    assert not bf16_is_faster(torch.device("mps"))


def test_the_gpu_of_a_mac_is_not_chosen_by_itself(monkeypatch):
    monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: True))
    assert make_fabric("float32").device == CPU


@pytest.mark.parametrize(("precision", "words"), [("float32", "float32"), ("bf16", "bf16 autocast")])
def test_the_hardware_line_names_processor_threads_and_precision(monkeypatch, precision, words):
    monkeypatch.setattr(hardware, "_cpu_name", lambda: "Some Processor 3000")
    line = describe_hardware(make_fabric(precision, "cpu"))
    assert line == f"Some Processor 3000, {torch.get_num_threads()} thread(s), {words}"


def test_the_processor_has_a_name():
    assert hardware._cpu_name()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_glibc_accepts_that_freed_memory_is_kept(monkeypatch):
    libc, accepted = ctypes.CDLL(None), []
    library = SimpleNamespace(mallopt=lambda *setting: accepted.append(libc.mallopt(*setting)))
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: library)
    keep_freed_memory()
    assert accepted == [1, 1]


def test_elsewhere_than_on_glibc_memory_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: pytest.fail("no C library should be called"))
    keep_freed_memory()


def test_versions_are_those_that_are_installed():
    found = versions()
    assert found["python"] == platform.python_version()
    for name in ("mutualign", "torch", "numpy", "lightning-fabric"):
        assert found[name] == metadata.version(name)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout with a package, in which the module believes itself to be."""
    package = tmp_path / "package"
    (package / "training").mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(hardware, "__file__", str(package / "training" / "hardware.py"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    return git


def test_the_commit_is_that_of_the_checkout_and_a_changed_package_is_marked(checkout, tmp_path):
    checkout("add", "package")
    checkout("commit", "-q", "-m", "first")
    commit = checkout("rev-parse", "HEAD")
    assert versions()["commit"] == commit
    (tmp_path / "notes.txt").write_text("outside the package", encoding="utf-8")
    assert versions()["commit"] == commit
    (tmp_path / "package" / "__init__.py").write_text("changed = True", encoding="utf-8")
    assert versions()["commit"] == commit + "+changed"


def test_a_package_that_is_installed_inside_another_projects_checkout_has_no_commit(checkout, tmp_path):
    (tmp_path / "README").write_text("another project", encoding="utf-8")
    checkout("add", "README")
    checkout("commit", "-q", "-m", "another project's")
    assert versions()["commit"] == "none"


def test_without_git_or_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "__file__", str(tmp_path / "package" / "environment.py"))
    assert versions()["commit"] == "none"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert versions()["commit"] == "none"
