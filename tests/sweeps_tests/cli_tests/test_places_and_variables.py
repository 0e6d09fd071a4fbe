"""Folders in which no command can work, and variables that it heeds: one line, before anything."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from search_spaces.errors import InputError
from sweeps.cli.main import main
from sweeps.resources.machine import detect_machine
from sweeps.settings import SweepSettings
from sweeps.setup.stores import chosen_experiment
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


def test_an_id_of_mlflows_variable_means_the_experiment_that_the_store_has(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    assert main([*RUN, "--tracking-uri", "sqlite:///mine.db"]) == 2
    error = capsys.readouterr().err
    assert "MLFLOW_EXPERIMENT_ID is '7', an experiment that sqlite:///mine.db does not" in error
    assert error.count("\n") == 1 and not list(tmp_path.iterdir())

    number = MlflowClient("sqlite:///mine.db").create_experiment("mine", str(tmp_path / "files"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    settings, said = SweepSettings("cnn", tracking_uri="sqlite:///mine.db"), []
    assert chosen_experiment(settings, said.append) == "mine"
    assert said == ["experiment mine, as MLFLOW_EXPERIMENT_ID says"]
    assert chosen_experiment(replace(settings, experiment="given"), said.append) == "given"
    with pytest.raises(InputError, match="cannot be looked up with --offline"):
        chosen_experiment(replace(settings, offline=True), said.append)
