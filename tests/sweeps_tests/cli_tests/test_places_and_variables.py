"""Folders in which no command can work, and variables that it heeds: one line, before anything."""

from __future__ import annotations

import os

import pytest

from search_spaces.errors import InputError
from sweeps.cli.main import main
from sweeps.resources.machine import detect_machine
from tracking.stores import resolve_experiment

RUN = ["run", "--space", "mlp", "--dataset", "digits", "--trials", "1"]


@pytest.mark.parametrize("command", [RUN, ["doctor", "s"], ["explore", "--dataset", "digits"]])
def test_a_working_folder_that_was_removed_is_refused(tmp_path, monkeypatch, capsys, command):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: The working folder must exist.") and error.count("\n") == 1
    assert main(["--help"]) == 0
    os.chdir(tmp_path)


@pytest.mark.parametrize("option", [[], ["--work-dir", "caf\udce9"]])
def test_a_folder_whose_path_no_record_can_hold_is_refused(tmp_path, monkeypatch, capsys, option):
    folder = tmp_path / ("plain" if option else "caf\udce9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main([*RUN, *option]) == 2
    error = capsys.readouterr().err
    assert r"caf\xe9" in error and "Rename the folder" in error and error.count("\n") == 1
    assert not list(folder.iterdir())


def test_a_limit_of_cores_that_is_no_number_is_named(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "x")
    with pytest.raises(InputError, match="LOKY_MAX_CPU_COUNT must be a whole number.*'x'"):
        detect_machine()
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert detect_machine().num_cores == 1


def test_the_experiment_is_as_given_then_as_mlflows_variable_says(monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    assert resolve_experiment(None) is None
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert (resolve_experiment(None), resolve_experiment("given")) == ("mine", "given")
