"""A user's space is found by file or module without importing anything; all of it is explored."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from search_spaces.hyperparameters import active_values
from search_spaces.hyperparameters.discovery import MAX_SAMPLES, explore
from search_spaces.registry import get_space, short_name, stored_name
from search_spaces.user_spaces.reference import find_reference, reference_name


def test_a_file_a_module_and_an_installed_one(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("raise RuntimeError")
    (tmp_path / "pack" / "models.py").write_text("raise RuntimeError")
    (tmp_path / "my space.py").write_text("raise RuntimeError")
    file = find_reference("my space.py:build", tmp_path)
    assert (file.text, file.name) == (f"{tmp_path / 'my space.py'}:build", "my_space-build")
    by_module = find_reference("pack.models:Hyper", tmp_path)
    by_file = find_reference("pack/models.py:Hyper", tmp_path)
    assert by_module == by_file
    assert (by_file.module, by_file.root) == ("pack.models", str(tmp_path))
    installed = find_reference("keras_tuner.applications:HyperXception", tmp_path)
    assert installed.text == "keras_tuner.applications:HyperXception"
    assert installed.name == reference_name(installed.text) == "applications-HyperXception"
    for found in (file, by_module, installed):
        assert find_reference(found.text, Path("/")) == found, "from any folder"
    assert "pack" not in sys.modules


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("space.py", "such as space.py:build"),
        ("space.py:", "such as space.py:build"),
        ("space.py:a b", "Say which HyperModel"),
        ("gone.py:build", "which does not exist"),
        ("folder.py:build", "which is no file"),
        ("no_such_module_here:build", "finds no module 'no_such_module_here'"),
        ("a-b:build", "is neither"),
        (":build", "Say which"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path, text, words):
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(InputError, match=words):
        find_reference(text, tmp_path)


def test_names_of_ours_stay_and_a_source_changes_the_fingerprint(tmp_path):
    assert stored_name("cnn") == short_name("cnn") == "cnn"
    path = tmp_path / "s.py"
    path.write_text("a = 1")
    first = get_space("s.py:a")
    path.write_text("a = 2")
    assert first.key == f"{path}:a" and first.name == short_name(first.key) == "s-a"
    assert get_space("s.py:a").source_digest != first.source_digest
    path.unlink()
    assert short_name(first.key) == "s-a", "the name needs no source"


def deep(hp):
    kind = hp.Choice("kind", ["a", "b"])
    if kind == "b" and hp.Choice("inner", ["1", "2", "3", "4"]) == "3":
        hp.Float("deep", 0, 1)
        if hp.Boolean("flag"):
            hp.Int("deepest", 1, 3)
    for i in range(hp.Int("num_layers", 1, 5)):
        hp.Int(f"units_{i}", 8, 64, step=8)
    with hp.conditional_scope("kind", ["b"]):
        hp.Fixed("told", 1)
    return active_values(hp)


def test_parameters_behind_plain_python_are_found_with_few_samples():
    counts = []

    def sample(hp):
        counts.append(1)
        return deep(hp)

    names = {parameter.name for parameter in explore(sample)}
    assert names == {"kind", "inner", "deep", "flag", "deepest", "num_layers", "told",
                     *(f"units_{i}" for i in range(5))}  # fmt: skip
    assert len(counts) <= 10
    assert explore(deep) == explore(deep)


def test_looking_at_a_space_ends():
    def endless(hp):
        for i in range(int(hp.Choice("n0", list(range(1, 200))))):
            hp.Choice(f"c{i}", list(range(100)))
        return active_values(hp)

    counts = []
    explore(lambda hp: (counts.append(1), endless(hp))[1])
    assert len(counts) <= MAX_SAMPLES
