"""What a sweep.json of an earlier version means in this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from sweeps.settings import SweepSettings
from sweeps.setup.resume import in_names_of_now
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import SweepFile, read_sweep_file, write_sweep_file


def write(folder: Path, settings: SweepSettings, file_format: int) -> Path:
    path = SweepPaths(folder, "s").state
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sweep_file(path, SweepFile("u", "running", settings, "digits", "d", "f"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": file_format}))
    return path


@pytest.mark.parametrize(("called", "now"), [("cnn", "cnn_blocks"), ("mlp", "mlp_layers")])
def test_a_sweep_of_format_1_keeps_its_space_and_its_experiment(called, now, tmp_path):
    path = write(tmp_path, SweepSettings(called), 1)
    file = read_sweep_file(path)
    assert (file.settings.space, file.settings.experiment) == (now, f"{called}-digits")
    assert file.has_earlier_names and file.space_tags == {"sweeps.space": called}
    write_sweep_file(path, file)
    assert json.loads(path.read_text())["format"] == 2
    assert read_sweep_file(path) == file, "upgraded once"


def test_an_experiment_that_was_named_stays(tmp_path):
    file = read_sweep_file(write(tmp_path, SweepSettings("cnn", experiment="mine"), 1))
    assert file.settings.experiment == "mine"


def test_a_space_of_somebody_s_own_and_a_sweep_of_now_are_as_they_say(tmp_path):
    own = read_sweep_file(write(tmp_path, SweepSettings("/a/space.py:build"), 1))
    assert own.settings == SweepSettings("/a/space.py:build") and own.space_tags == {}
    file = read_sweep_file(write(tmp_path, SweepSettings("cnn"), 2))
    assert file.settings == SweepSettings("cnn") and not file.has_earlier_names
    assert file.space_tags == {}


def test_a_later_format_is_refused(tmp_path):
    with pytest.raises(
        InputError, match="later version of keras-sweeps .format 3; this one reads up to 2"
    ):
        read_sweep_file(write(tmp_path, SweepSettings("cnn"), 3))


def test_the_command_that_began_a_sweep_means_what_it_meant(tmp_path):
    work_dir = str(tmp_path)
    begun = SweepSettings("cnn", fixed=("filters_0=8",), name="s", work_dir=work_dir)
    write(tmp_path, begun, 1)
    asked = in_names_of_now(begun, {"space", "fixed", "name"}, resume=False)
    assert asked.space == "cnn_blocks"
    asked.validate(resumed=True)
    other = SweepSettings("mlp", name="s", work_dir=work_dir)
    assert in_names_of_now(other, {"space", "name"}, resume=False).space == "mlp"
    write(tmp_path, begun, 2)
    assert in_names_of_now(begun, {"space", "name"}, resume=False).space == "cnn"
