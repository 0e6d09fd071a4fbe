"""Sweeps over values of the user's own through a whole life, and scripts that search themselves."""

from __future__ import annotations

import json

import pytest
import user_failures
import user_objectives
from driven_commands import drive
from mlflow import MlflowClient

FILE = user_objectives.__file__
COMMON = ["--dataset", "digits", "--timeout", "none", "--epochs", "3"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
TUTORIAL = f"""import sys
sys.path.insert(0, {str(user_objectives.__file__.rpartition("/")[0])!r})
import keras_tuner
from pathlib import Path
from user_objectives import top_two

def build(hp):
    return top_two(hp, (28, 28, 1), 10)

tuner = keras_tuner.RandomSearch(build, objective="val_accuracy", max_trials=3)
tuner.search_space_summary()
tuner.search([[0]], [0])
Path("searched").touch()
"""


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    folder = tmp_path_factory.mktemp("life")
    (folder / "tutorial.py").write_text(TUTORIAL)
    run = ["run", *COMMON, "--space"]
    failing = f"{user_failures.__file__}:too_large"
    found = drive(folder, {
        "number": [*run, f"{FILE}:Number", "--trials", "2", "--name", "n"],
        "resume": ["run", "--resume", "--name", "n", "--trials", "3"],
        "doctor": ["doctor", "n"],
        "replay": ["replay", "run:trial 1"],
        "finalize": ["finalize", "n", "--finalists", "1", "--finalist-seeds", "2"],
        "promote": ["promote", "n"],
        "accuracy": [*run, f"{FILE}:Number", "--trials", "1", "--objective", "val_accuracy", "--name", "a"],
        "dict": [*run, f"{FILE}:Dictionary", "--trials", "4", "--objective", "thrift:max", "--name", "d",
                 "--pruner", "none"],
        "unknown": [*run, f"{FILE}:Dictionary", "--objective", "nope:max"],
        "compiled": [*run, f"{FILE}:top_two", "--trials", "2", "--objective", "val_top_two:max", "--name", "c"],
        "dry run": [*run, failing, "--trials", "4", "--dry-run", "--seed", "1"],
        "fatal": [*run, f"{user_failures.__file__}:fatal", "--trials", "9", "--name", "f",
                  "--set", "broken=true,false", "--no-baselines"],
        "script": [*run, "tutorial.py:build", "--trials", "1", "--name", "t"],
    })  # fmt: skip
    found["folder"] = folder
    found["client"] = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return found


def trials_of(life, sweep):
    client = life["client"]
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`sweeps.kind` = 'trial'")
    return [run.data for run in runs if run.data.tags["sweeps.sweep"] == sweep]


def settings_of(life, sweep):
    file = life["folder"] / ".sweeps" / "sweeps" / sweep / "sweep.json"
    return json.loads(file.read_text())["settings"]


def test_a_number_that_fit_returns_is_minimised_for_life(life):
    for what in ("number", "resume", "doctor", "replay", "finalize", "promote"):
        assert life[what]["status"] == 0, life[what]
    assert "objective default_objective: the number that the fit of" in life["number"]["out"]
    assert "default_objective 0.0000" in life["number"]["out"]
    assert settings_of(life, "n")["objective"] == "default_objective"
    complete = [t for t in trials_of(life, "n") if t.tags["sweeps.state"] == "COMPLETE"]
    assert len(trials_of(life, "n")) == 3 and complete
    for trial in complete:
        assert trial.metrics["best/default_objective"] == 0
        assert trial.metrics["training/best_epoch"] == 2
    assert "default_objective" in life["finalize"]["out"]


def test_whoever_asks_for_accuracy_gets_it(life):
    assert life["accuracy"]["status"] == 0, life["accuracy"]["err"]
    assert settings_of(life, "a")["objective"] == "val_accuracy"


def test_values_of_a_dict_and_compiled_metrics_are_optimised(life):
    for what in ("dict", "compiled"):
        assert life[what]["status"] == 0, life[what]["err"]
    trials = trials_of(life, "d")
    assert len({t.params["units"] for t in trials}) == 4, "no point counts twice"
    assert "Best: trial 0 (default), thrift 0.2500" in life["dict"]["out"]
    assert all(t.metrics["best/val_top_two"] > 0 for t in trials_of(life, "c"))


def test_a_name_that_the_space_does_not_give_is_one_line(life):
    assert life["unknown"]["status"] == 2
    assert "Received: nope" in life["unknown"]["err"] and "thrift" in life["unknown"]["err"]
    assert life["unknown"]["err"].count("\n") == 1


def test_a_dry_run_copes_with_points_that_fail(life):
    assert life["dry run"]["status"] == 0, life["dry run"]["err"]
    assert "would fail" in life["dry run"]["out"]
    assert "FailedTrialError: Model is too large." in life["dry run"]["out"]


def test_a_fatal_error_ends_the_sweep_which_can_be_resumed(life):
    assert life["fatal"]["status"] == 1
    assert "FatalValueError: the licence has ended" in life["fatal"]["err"]
    assert "the space ended the search" in life["fatal"]["out"]
    assert len(trials_of(life, "f")) < 9
    file = life["folder"] / ".sweeps" / "sweeps" / "f" / "sweep.json"
    assert json.loads(file.read_text())["status"] == "interrupted"


def test_a_script_that_searches_itself_is_swept_and_does_not_search(life):
    assert life["script"]["status"] == 0, life["script"]["err"]
    assert "tutorial.py makes a RandomSearch tuner (line 10)" in life["script"]["err"]
    assert not (life["folder"] / "searched").exists()
    assert not (life["folder"] / "untitled_project").exists()
