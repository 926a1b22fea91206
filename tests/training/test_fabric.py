"""Fabric learns the version of torchmetrics without importing it, and takes no callbacks of other packages."""

from __future__ import annotations

import sys
from importlib import import_module, metadata

import pytest

from mutualign.training.fabric import Fabric, _version_only


def test_a_package_that_is_installed_is_its_version_and_afterwards_itself(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchmetrics", raising=False)
    with _version_only("torchmetrics"):
        assert import_module("torchmetrics").__version__ == metadata.version("torchmetrics")
        assert not hasattr(import_module("torchmetrics"), "Metric")
    assert "torchmetrics" not in sys.modules


def test_a_package_that_has_been_imported_stays_and_one_that_is_missing_is_missing():
    with _version_only("numpy"), _version_only("no-such-package"):
        assert import_module("numpy").arange(2).tolist() == [0, 1]
        with pytest.raises(ModuleNotFoundError):
            import_module("no-such-package")
    assert "numpy" in sys.modules


def test_a_failing_import_leaves_no_placeholder(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchmetrics", raising=False)
    with pytest.raises(OSError, match="broken"), _version_only("torchmetrics"):
        raise OSError("broken")
    assert "torchmetrics" not in sys.modules


def test_packages_are_not_searched_for_callbacks(monkeypatch):
    monkeypatch.setattr("lightning_fabric.utilities.registry.entry_points", lambda group: 1 / 0)
    assert Fabric(accelerator="cpu")._callbacks == []
