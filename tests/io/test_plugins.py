"""Plugins: modules of users, by name or by file."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from mutualign.cli import app
from mutualign.errors import MutualignError
from mutualign.io import plugins


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No plugin stays imported after a test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_loaded", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "folder").mkdir()
    (tmp_path / "own_plugin.py").write_text("value = 1\n")
    (tmp_path / "folder" / "other_plugin.py").write_text("value = 2\n")
    (tmp_path / "broken_plugin.py").write_text("1 / 0\n")
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_is_imported_once_by_its_name_from_here_or_by_its_file():
    for name in ("own_plugin", "folder/other_plugin.py", "own_plugin"):
        plugins.load_plugin(name)
    assert sys.modules["own_plugin"].value == 1
    assert sys.modules["other_plugin"].value == 2
    assert plugins.loaded_plugins() == ["own_plugin", "folder/other_plugin.py"]
    options = "--plugin own_plugin --plugin folder/other_plugin.py"
    assert plugins.resume_command(Path("runs/a b")) == f"mutualign run --resume 'runs/a b' {options}"


@pytest.mark.parametrize("name", ["absent_plugin", "absent.py", "broken_plugin", "", "folder/json.py"])
def test_what_cannot_be_imported_is_refused_and_not_counted(name, tmp_path):
    (tmp_path / "folder" / "json.py").write_text("")  # another module has this name
    with pytest.raises(MutualignError, match=r"plugin .*: cannot be imported: \w+: (.|\n)*  hint:    give a module"):
        plugins.load_plugin(name)
    assert plugins.loaded_plugins() == []


def test_an_installed_package_adds_no_plugin_unless_it_is_named(monkeypatch, capsys):
    one = metadata.EntryPoint("own", "own_plugin", "mutualign.plugins")
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [one])
    monkeypatch.setattr(sys, "argv", ["mutualign", "methods"])
    app.main()
    assert "dann" in capsys.readouterr().out
    assert "own_plugin" not in sys.modules


def test_a_run_never_imports_its_plugins_by_itself():
    with pytest.raises(
        MutualignError, match=r"config.toml: the run needs the plugin own_plugin\n.*--plugin own_plugin"
    ):
        plugins.require_plugins(["own_plugin", "json"], "config.toml")
    assert "own_plugin" not in sys.modules
    plugins.load_plugin("own_plugin")
    plugins.require_plugins(["own_plugin"], "config.toml")
