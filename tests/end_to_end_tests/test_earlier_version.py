"""What another version recorded is gone on with, compared, promoted, replayed: see data/README.md."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from driven_commands import drive
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from recorded_sweeps import unpack

# Several commands in one fixture.
pytestmark = [pytest.mark.timeout(600), pytest.mark.long]
DATA = Path(__file__).with_name("data")
SMALL_DIFFERENCE = 0.02
"""CPUs of another kind round differently; another seed, order or optimizer is further off at once."""


def runs(folder: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def trial_runs(folder: Path) -> dict[str, Run]:
    """Number of a trial -> its run; fails where a trial has two."""
    found = [run for run in runs(folder) if run.data.tags.get("sweeps.kind") == "trial"]
    numbers = [run.data.tags["sweeps.trial"] for run in found]
    assert len(set(numbers)) == len(numbers), numbers
    return dict(zip(numbers, found, strict=True))


def history(folder: Path, run: Run) -> dict[str, list[tuple[int, float, int]]]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return {
        name: [
            (point.step, point.value, point.timestamp)
            for point in client.get_metric_history(run.info.run_id, name)
        ]
        for name in run.data.metrics
    }


def checkpoint_seconds(folder: Path) -> dict[str, list[float]]:
    """Folder of a trial that has a checkpoint -> how long each epoch in it took."""
    found = {}
    for path in (folder / ".sweeps" / "sweeps" / "s").rglob("checkpoint.npz"):
        with np.load(path) as arrays:
            past = json.loads(arrays["head"].tobytes())["history"]
        found[path.parent.name] = [epoch["metrics"]["epoch_seconds"] for epoch in past]
    return found


def check_not_trained_again(recorded: list[float], run: Run) -> None:
    """The epochs of the checkpoint were read from there: no others would take just as long."""
    with (Path(run.info.artifact_uri) / "curves.csv").open() as file:
        seconds = [float(row["epoch_seconds"]) for row in csv.DictReader(file)]
    assert recorded and seconds[: len(recorded)] == pytest.approx(recorded)


def artifacts(folder: Path, run: Run) -> set[str]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return {file.path for file in client.list_artifacts(run.info.run_id)}


def content(folder: Path, run: Run) -> dict[str, Any]:
    """All that MLflow holds of a run, but tags, of which later commands add some."""
    return {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "times": (run.info.start_time, run.info.end_time),
        "params": run.data.params,
        "metrics": history(folder, run),
        "artifacts": artifacts(folder, run),
    }


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{folder / 'optuna.db'}"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).trials


def is_closed(run: Run) -> bool:
    return run.info.status in ("FINISHED", "KILLED") and run.info.end_time is not None


def check_replay(done: dict[str, Any], num_epochs: int) -> None:
    """All epochs were trained again and compared, and are the same as far as this machine can."""
    assert done["status"] in (0, 1), done
    compared = re.findall(rf"^epoch (\d)/{num_epochs}: ", done["out"], re.MULTILINE)
    assert compared == [str(epoch + 1) for epoch in range(num_epochs)], done
    if done["status"] == 1:
        first = re.search(r"first difference: .* difference (\S+)", done["out"])
        assert first is not None, done
        assert abs(float(first[1])) < SMALL_DIFFERENCE, first[0]


class Continued:
    """An unpacked folder, what was in it, and what the commands did there.

    Args:
        commands: what runs in the folder, by the name that its result gets.
    """

    def __init__(self, folder: Path, archive: str, commands: dict[str, list[str]]) -> None:
        unpack(DATA / archive, folder)
        self.folder = folder
        self.before = trial_runs(folder)
        self.content = {n: content(folder, run) for n, run in self.before.items()}
        self.other = {
            run.info.run_name: content(folder, run)
            for run in runs(folder)
            if run.info.run_id not in {r.info.run_id for r in self.before.values()}
        }
        self.trials = trials(folder)
        self.checkpoints = checkpoint_seconds(folder)
        self.done = drive(folder, commands)
        self.runs = trial_runs(folder)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Trial 0 was complete, trial 1 waited at a rung, trial 2 was in its second epoch, 3 was to come."""
    return Continued(
        tmp_path_factory.mktemp("sweep"),
        "killed_sweep_339f544.tar.gz",
        {
            "doctor before": ["doctor", "s"],
            "resume": ["run", "--resume"],
            "finalize": ["finalize", "s", "--finalists", "2", "--finalist-seeds", "2"],
            "promote": ["promote", "s"],
            "replay": ["replay", "run:trial 0"],
            "doctor": ["doctor", "s"],
        },
    )


def test_a_sweep_that_an_earlier_version_began_goes_on_where_it_was_killed(sweep):
    assert [trial.state.name for trial in sweep.trials] == ["COMPLETE", "RUNNING", "RUNNING"]
    assert sorted(sweep.before) == ["0", "1", "2"]
    found = sweep.done["doctor before"]
    assert found["status"] == 1 and "no process is running it" in found["out"], found
    assert "trial 2: RUNNING in the study" in found["out"], found
    done = sweep.done["resume"]
    assert done["status"] == 0, done
    assert "trial 2 continues after epoch 1\n" in done["out"]
    assert "trial 3 started" in done["out"] and "[4 of 4 trials done" in done["out"]
    for number in range(3):
        assert f"trial {number} started" not in done["out"], done["out"]
        assert f"trial {number} epoch 1/" not in done["out"], done["out"]


def test_what_was_finished_stays_as_it_was(sweep):
    assert content(sweep.folder, sweep.runs["0"]) == sweep.content["0"]
    tags, before = sweep.runs["0"].data.tags, sweep.before["0"].data.tags
    assert before.items() <= tags.items()
    (trial, earlier) = (trials(sweep.folder)[0], sweep.trials[0])
    assert trial == earlier and trial.user_attrs == earlier.user_attrs


def test_every_trial_is_once_and_closed_and_has_every_epoch_once(sweep):
    assert sorted(sweep.runs) == ["0", "1", "2", "3"]
    assert all(trial.state.is_finished() for trial in trials(sweep.folder))
    assert all(map(is_closed, runs(sweep.folder)))
    for number in ("1", "2"):
        before, run = sweep.before[number], sweep.runs[number]
        assert run.info.run_id == before.info.run_id
        assert run.data.params == before.data.params
        points = history(sweep.folder, run)["val_accuracy"]
        earlier = sweep.content[number]["metrics"]["val_accuracy"]
        assert len(earlier) >= 1 and set(earlier) <= set(points)
        steps = [step for step, _, _ in points]
        assert sorted(set(steps)) == sorted(steps) == list(range(1, len(steps) + 1))
        check_not_trained_again(sweep.checkpoints[f"trial-000{number}"], run)


def test_its_best_are_compared_and_the_winner_is_promoted(sweep):
    done = sweep.done["finalize"]
    assert done["status"] == 0, done
    assert "trainings 4: 2 fresh seeds of each, 4 epochs" in done["out"]
    assert "Winner: trial " in done["out"]
    done = sweep.done["promote"]
    assert done["status"] == 0, done
    client = MlflowClient(f"sqlite:///{sweep.folder / 'mlflow.db'}")
    (model,) = client.search_registered_models()
    assert "champion" in model.aliases


def test_a_run_of_an_earlier_version_replays(sweep):
    check_replay(sweep.done["replay"], 4)


def test_afterwards_the_stores_agree(sweep):
    done = sweep.done["doctor"]
    assert done["status"] == 0, done
    assert "4 trials, 4 runs" in done["out"] and "study, spool and MLflow agree" in done["out"]


@pytest.fixture(scope="module")
def finalists(tmp_path_factory):
    """Of four trainings two were complete and the third was in its second epoch."""
    return Continued(
        tmp_path_factory.mktemp("finalists"),
        "killed_finalists_339f544.tar.gz",
        {
            "doctor before": ["doctor", "s"],
            "other options": ["finalize", "s", "--finalists", "2", "--finalist-seeds", "3"],
            "finalize": [
                "finalize", "s", "--finalists", "2", "--finalist-seeds", "2", "--retrain", "all",
            ],
            "promote": ["promote", "s"],
            "replay": ["replay", "run:trial 0 (default)"],
            "again": ["finalize", "s"],
            "doctor": ["doctor", "s"],
        },
    )  # fmt: skip


@pytest.mark.slow
def test_a_comparison_that_an_earlier_version_began_goes_on(finalists):
    refused = finalists.done["other options"]
    assert refused["status"] == 2 and refused["err"].count("\n") == 1, refused
    done = finalists.done["finalize"]
    assert done["status"] == 0, done
    assert "trial 0 (default), fresh seed 2 continues after epoch 1\n" in done["out"]
    name = "trial 0 (default), fresh seed 2"
    assert f"{name} epoch 1/" not in done["out"]
    (run,) = [run for run in runs(finalists.folder) if run.info.run_name == name]
    check_not_trained_again(finalists.checkpoints["trial-0002"], run)
    assert "trial 1, fresh seed 2 started" in done["out"]
    assert "fresh seed 1 " not in done["out"], "they were trained"
    assert "training on all data for" in done["out"]
    assert "Its model is kept: trained on all data" in done["out"]
    assert not list((finalists.folder / ".sweeps" / "sweeps" / "s").rglob("*.keras"))
    file = finalists.folder / ".sweeps" / "sweeps" / "s" / "finalists" / "finalists.json"
    assert json.loads(file.read_text())["finished"] is True
    assert finalists.done["again"]["status"] == 0
    assert "Winner: " in finalists.done["again"]["out"]


@pytest.mark.slow
def test_what_was_compared_stays_as_it_was(finalists):
    assert sorted(finalists.runs) == ["0", "1", "2", "3"]
    for number, before in finalists.content.items():
        assert content(finalists.folder, finalists.runs[number]) == before
    assert trials(finalists.folder) == finalists.trials
    found = {run.info.run_name: content(finalists.folder, run) for run in runs(finalists.folder)}
    for name in ("trial 0 (default), fresh seed 1", "trial 1, fresh seed 1"):
        assert found[name] == finalists.other[name]
    assert all(map(is_closed, runs(finalists.folder)))


@pytest.mark.slow
def test_the_winner_over_a_custom_space_is_promoted_and_a_trial_of_it_replays(finalists):
    done = finalists.done["promote"]
    assert done["status"] == 0, done
    check_replay(finalists.done["replay"], 3)


@pytest.mark.slow
def test_after_the_comparison_the_stores_agree(finalists):
    done = finalists.done["doctor"]
    assert done["status"] == 0, done
    assert "4 trials, 4 runs" in done["out"] and "study, spool and MLflow agree" in done["out"]


# Before the core spaces, `cnn` and `mlp` were what `cnn_blocks` and `mlp_layers` are now.


def experiments(folder: Path) -> set[str]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return {found.name for found in client.search_experiments()} - {"Default"}


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    """Of four trials two were complete and the third had trained two of four epochs."""
    return Continued(
        tmp_path_factory.mktemp("cnn"),
        "killed_cnn_8d036db.tar.gz",
        {
            "doctor before": ["doctor", "s"],
            "another space": ["run", "--space", "mlp", "--dataset", "digits", "--name", "s"],
            "resume": ["run", "--space", "cnn", "--dataset", "digits", "--name", "s"],
            "replay": ["replay", "run:trial 0"],
            "replay new": ["replay", "run:trial 3"],
            "finalize": ["finalize", "s", "--finalists", "2", "--finalist-seeds", "2"],
            "replay finalist": ["replay", "run:trial 1, fresh seed 1"],
            "promote": ["promote", "s"],
            "sync": ["sync", "s"],
            "doctor": ["doctor", "s"],
        },
    )


def test_a_sweep_of_cnn_from_before_the_core_space_goes_on(cnn):
    assert "no process is running it" in cnn.done["doctor before"]["out"]
    refused = cnn.done["another space"]
    assert refused["status"] == 2 and "--space was cnn_blocks, is mlp" in refused["err"], refused
    done = cnn.done["resume"]
    assert done["status"] == 0, done
    assert "trial 2 continues after epoch 2\n" in done["out"]
    assert "trial 2 epoch 1/" not in done["out"] and "trial 3 started" in done["out"]
    check_not_trained_again(cnn.checkpoints["trial-0002"], cnn.runs["2"])
    assert sorted(cnn.runs) == ["0", "1", "2", "3"]
    for number in ("0", "1"):
        assert content(cnn.folder, cnn.runs[number]) == cnn.content[number]
    assert "filters_0" in cnn.runs["3"].data.params


def test_it_stays_in_its_experiment_under_its_tags(cnn):
    assert experiments(cnn.folder) == {"cnn-digits"}
    named = {
        run.data.tags["sweeps.space"] for run in runs(cnn.folder) if "sweeps.space" in run.data.tags
    }
    assert named == {"cnn"}
    file = json.loads((cnn.folder / ".sweeps" / "sweeps" / "s" / "sweep.json").read_text())
    assert (file["format"], file["begun_in"], file["settings"]["space"]) == (2, 1, "cnn_blocks")


@pytest.mark.parametrize("name", ["replay", "replay new"])
def test_its_runs_replay(cnn, name):
    check_replay(cnn.done[name], 4)


def test_its_finalists_are_compared_and_replay_and_the_winner_keeps_its_name(cnn):
    assert cnn.done["finalize"]["status"] == 0, cnn.done["finalize"]
    check_replay(cnn.done["replay finalist"], 4)
    done = cnn.done["promote"]
    assert done["status"] == 0, done
    client = MlflowClient(f"sqlite:///{cnn.folder / 'mlflow.db'}")
    assert [model.name for model in client.search_registered_models()] == ["cnn-digits"]
    for name in ("sync", "doctor"):
        assert cnn.done[name]["status"] == 0, cnn.done[name]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished sweep of `mlp` without models, one of `cnn` whose best model was promoted."""
    folder = tmp_path_factory.mktemp("finished")
    unpack(DATA / "finished_sweeps_8d036db.tar.gz", folder)
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(folder / "black.png")
    commands = {
        "doctor": ["doctor", "s"],
        "predict": ["predict", "black.png", "--model", "cnn-digits@champion", "--json"],
        "resume": ["run", "--resume", "--name", "m", "--trials", "3"],
        "finalize": ["finalize", "s", "--finalists", "2", "--finalist-seeds", "2"],
        "promote": ["promote", "s"],
        "doctor mlp": ["doctor", "m"],
    }
    return folder, drive(folder, commands)


@pytest.mark.slow
def test_finished_sweeps_and_their_models_go_on(finished):
    folder, done = finished
    for name in ("doctor", "predict", "resume", "finalize", "doctor mlp"):
        assert done[name]["status"] == 0, (name, done[name])
    assert done["promote"]["status"] in (0, 3), done["promote"]  # The first may be the better one.
    assert "cnn-digits version " in done["promote"]["out"]
    assert experiments(folder) == {"cnn-digits", "mlp-digits"}
    assert "trial 2 " in done["resume"]["out"] and "units_0=" in done["resume"]["out"]


@pytest.fixture(scope="module")
def baselines(tmp_path_factory):
    """Of the published models the first was trained, and the second had begun."""
    folder = tmp_path_factory.mktemp("baselines")
    unpack(DATA / "killed_baselines_8d036db.tar.gz", folder)
    before = {run.info.run_name: content(folder, run) for run in runs(folder)}
    commands = {
        "again": ["run", "--baselines-only", "--resume"],
        "replay": ["replay", "run:mlp_512x2"],
        "doctor": ["doctor", "s"],
    }
    return folder, before, drive(folder, commands)


@pytest.mark.slow
def test_published_models_go_on_as_points_of_the_spaces_that_they_began_in(baselines):
    folder, before, done = baselines
    assert done["again"]["status"] == 0, done["again"]
    assert "cnn3_valid_50k epoch" not in done["again"]["out"]
    found = {run.info.run_name: run for run in runs(folder)}
    # Its files had not been sent yet.
    sent = {**content(folder, found["cnn3_valid_50k"]), "artifacts": set()}
    assert sent == before["cnn3_valid_50k"]
    assert found["mlp_512x2"].data.tags["sweeps.space"] == "mlp"
    assert "units_0" in found["mlp_512x2"].data.params
    assert experiments(folder) == {"baselines-digits"}
    assert done["doctor"]["status"] == 0, done["doctor"]
    check_replay(done["replay"], 5)
