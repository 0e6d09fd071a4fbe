"""A user's project whose files are called like modules of Python's, of libraries or of ours."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import keras_tuner  # noqa: F401
import pytest

import pipelines.data.prepared
from search_spaces.user_spaces.folder_first import OURS, is_free_name
from search_spaces.user_spaces.loading import load_hypermodel, loaded_sources
from search_spaces.user_spaces.reference import find_reference

SHAPE = (8, 8, 1)
SPACE = """
import keras
import keras_tuner
from {package}.layers import NAME
import {package}

class Space(keras_tuner.HyperModel):
    name_at_import = NAME

    def build(self, hp):
        from {package} import layers
        import {package}.later
        return layers.NAME, {package}.later.NAME
"""


@pytest.fixture(autouse=True)
def modules_as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    for name in OURS:
        package = importlib.import_module(name)
        if hasattr(package, "__path__"):
            monkeypatch.setattr(package, "__path__", list(package.__path__))
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder.joinpath(*name.split("__in__")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("package", ["pipelines", "tracking", "search_spaces", "sweeps"])
@pytest.mark.parametrize("has_init", [True, False])
def test_a_package_of_ones_own_that_is_called_like_ours_is_meant(tmp_path, package, has_init):
    ours = importlib.import_module(package)
    write(tmp_path, my_space=SPACE.format(package=package))
    folder = tmp_path / package
    folder.mkdir()
    for name in ("layers", "later"):
        (folder / f"{name}.py").write_text(f"NAME = 'my {name}'\n")
    if has_init:
        (folder / "__init__.py").write_text("")
    reference = find_reference("my_space.py:Space")
    for _ in range(2):  # It is loaded for the look, and for each model again.
        space = load_hypermodel(reference, SHAPE, 3)
        assert space.name_at_import == "my layers"
        assert sys.modules[package] is ours, "ours are back"
    own = {Path(path).relative_to(tmp_path).as_posix() for path, _ in loaded_sources(reference)}
    assert {"my_space.py", f"{package}/layers.py"} <= own, "and a change of theirs is noticed"
    assert importlib.import_module("pipelines.data.prepared") is pipelines.data.prepared


def test_what_ours_lack_can_still_be_imported_when_a_model_is_built(tmp_path):
    write(
        tmp_path,
        my_space=SPACE.format(package="tracking"),
        tracking__in__layers="NAME = 'layers'",
        tracking__in__later="NAME = 'later'",
    )
    space = load_hypermodel(find_reference("my_space.py:Space"), SHAPE, 3)
    assert space.build(True) == ("layers", "later")


@pytest.mark.parametrize("name", ["random", "queue", "profile", "json", "pipelines", "numpy"])
def test_a_space_file_of_any_name_is_opened_and_hides_nothing(tmp_path, name):
    write(
        tmp_path, **{name: SPACE.split("from", maxsplit=1)[0] + "def build(hp):\n    return None\n"}
    )
    there = sys.modules.get(name)
    load_hypermodel(find_reference(f"{name}.py:build"), SHAPE, 3)
    assert sys.modules.get(name) is there
    found = importlib.import_module(name)
    assert Path(found.__file__).parent != tmp_path, "also where it is imported only now"


def test_other_files_of_the_project_come_behind_pythons_own_and_before_installed_ones(tmp_path):
    write(tmp_path, my_space="def build(hp):\n    return None\n", profile="raise SystemExit(1)")
    load_hypermodel(find_reference("my_space.py:build"), SHAPE, 3)
    importlib.import_module("profile")
    place = sys.path.index(str(tmp_path))
    installed = [k for k, p in enumerate(sys.path) if "site-packages" in p]
    assert place < min(installed)


def test_a_name_is_free_unless_something_else_has_it(tmp_path):
    folder = str(tmp_path)
    names = ("a_space_of_mine", "profile", "keras_tuner", "sweeps", "flask")
    assert [is_free_name(name, folder) for name in names] == [True, False, False, False, False]
