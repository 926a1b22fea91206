"""The machine and the software: precision and descriptions."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata

import pytest
import torch

from mutualign.training import distributed, hardware
from mutualign.training.distributed import make_fabric
from mutualign.training.hardware import describe_hardware, has_bf16, keep_freed_memory, versions

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "native", "expected"),
    [
        ("float32", True, torch.float32),
        ("float32", False, torch.float32),
        ("bf16", True, torch.bfloat16),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_matrix_products_run_in_the_precision_that_is_asked_for(monkeypatch, precision, native, expected):
    monkeypatch.setattr(distributed, "has_bf16", lambda device: native)
    fabric = make_fabric(precision, "cpu")
    assert fabric.device == CPU
    with fabric.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (True, True), (False, False)])
def test_a_cpu_has_bf16_where_it_has_one_of_the_two_instruction_sets(monkeypatch, avx512, amx):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert has_bf16(CPU) == (avx512 or amx)


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_has_bf16_where_it_is_not_emulated(monkeypatch, native):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: True if including_emulation else native
    )
    assert has_bf16(torch.device("cuda")) == native


def test_other_devices_are_taken_to_have_no_bf16():
    assert not has_bf16(torch.device("mps"))


@pytest.mark.parametrize(("precision", "words"), [("float32", "float32"), ("bf16", "bf16 autocast")])
def test_the_hardware_line_names_processor_threads_and_precision(monkeypatch, precision, words):
    monkeypatch.setattr(hardware, "_cpu_name", lambda: "Some Processor 3000")
    line = describe_hardware(make_fabric(precision, "cpu"))
    assert line == f"Some Processor 3000, {torch.get_num_threads()} thread(s), {words}"


def test_the_processor_has_a_name():
    assert hardware._cpu_name()


def test_freed_memory_can_be_kept_anywhere():
    keep_freed_memory()


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
