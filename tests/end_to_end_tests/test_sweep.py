"""Whole sweeps as a stranger runs them: the scripts, real Keras, real Optuna, real MLflow."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from search_spaces.registry import get_space

ROOT = Path(__file__).parents[2]
NUM_TRIALS, NUM_EPOCHS = 4, 2


def command(*options: str) -> list[str]:
    return [sys.executable, str(ROOT / "sweeps" / "run.py"), *options]


def environment() -> dict[str, str]:
    hidden = ("SWEEPS_DATA_DIR", "MLFLOW_TRACKING_URI")
    return {name: value for name, value in os.environ.items() if name not in hidden}


class Finished:
    """A sweep that ran in a folder of its own, and everything that it wrote."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.done = subprocess.run(
            command(*options),
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=280,
        )
        self.client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")

    @property
    def study(self) -> optuna.Study:
        storage = f"sqlite:///{self.folder / 'optuna.db'}"
        (name, *_) = sorted(optuna.get_all_study_names(storage))
        return optuna.load_study(study_name=name, storage=storage)

    def runs(self, kind: str):
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        return self.client.search_runs(experiments, f"tags.`sweeps.kind` = '{kind}'")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return Finished(
        tmp_path_factory.mktemp("sweep"), "--space", "cnn", "--dataset", "digits", "--trials",
        str(NUM_TRIALS), "--epochs", str(NUM_EPOCHS), "--keep-models", "2", "--seed", "4",
        "--pruner", "none",
    )  # fmt: skip


def test_it_is_done_and_says_what_comes_next(sweep):
    assert sweep.done.returncode == 0, sweep.done.stderr
    out = sweep.done.stdout
    for part in (
        "* published baseline",
        "Total compute",
        "keras-sweeps ui ",
        "keras-sweeps finalize ",
    ):
        assert part in out
    assert sweep.done.stderr == ""
    assert "\x1b[" not in out, "plain lines where there is no terminal"


def test_study_and_mlflow_hold_the_same_trials(sweep):
    trials = {str(t.number): t for t in sweep.study.trials}
    runs = {run.data.tags["sweeps.trial"]: run for run in sweep.runs("trial")}
    assert set(trials) == set(runs) == {str(n) for n in range(NUM_TRIALS)}
    names = {p.name for p in get_space("cnn").parameters}
    for number, run in runs.items():
        trial = trials[number]
        assert trial.state is TrialState.COMPLETE and run.info.status == "FINISHED"
        assert run.data.tags["sweeps.state"] == "COMPLETE"
        assert run.data.metrics["best/val_accuracy"] == pytest.approx(trial.value)
        assert set(run.data.params) == names | {"max_epochs"}
        for name in names:
            expected, found = trial.params.get(name, "inactive"), run.data.params[name]
            # Optuna's own grid carries rounding errors: 0.8500000000000001 is our 0.85.
            assert found == str(expected) or float(found) == pytest.approx(expected, rel=1e-12)
        history = sweep.client.get_metric_history(run.info.run_id, "epoch/val_accuracy")
        history = [m for m in history if m.model_id is None]
        assert {m.step: m.value for m in history} == pytest.approx(trial.intermediate_values)


def test_the_first_trials_are_the_published_models(sweep):
    baselines = get_space("cnn").distinct_baselines()
    for trial, (names, params) in zip(sweep.study.trials, baselines, strict=False):
        assert trial.user_attrs["baseline"] == ", ".join(names)
        assert trial.params == params


def test_a_trial_can_be_understood_from_its_run_alone(sweep):
    for run in sweep.runs("trial"):
        tags, metrics = run.data.tags, run.data.metrics
        for name in (
            "space", "trial", "seed", "device", "data_fingerprint", "sweep", "stopped_by",
            "version.keras", "version.tensorflow", "version.optuna", "version.python",
        ):  # fmt: skip
            assert tags[f"sweeps.{name}"]
        for name in (
            "best/val_accuracy", "epoch/loss", "epoch/accuracy", "epoch/val_loss",
            "epoch/val_accuracy", "epoch/learning_rate", "training/epoch_seconds",
            "training/images_per_second", "training/best_epoch", "training/epochs",
            "training/seconds", "model/parameters", "model/bytes",
        ):  # fmt: skip
            assert metrics[name] >= 0
        assert all("/" in name for name in metrics), "a metric without a section"
        assert min(metrics) == "best/val_accuracy", "MLflow's pages begin with it"
        assert {a.path for a in sweep.client.list_artifacts(run.info.run_id)} >= {
            "model_summary.txt", "curves.csv", "curves.png", "confusion_validation.png",
            "confusion_validation.csv", "mistakes_validation.png",
        }  # fmt: skip
        (entry,) = run.inputs.dataset_inputs
        assert entry.dataset.name == "digits"
        assert json.loads(entry.dataset.source)["sha256"] == tags["sweeps.data_fingerprint"]


def test_the_models_of_the_best_trials_are_kept_and_no_others(sweep):
    (parent,) = sweep.runs("sweep")
    models = sweep.client.search_logged_models([parent.info.experiment_id])
    best = sorted(sweep.study.trials, key=lambda t: (-t.value, t.number))[:2]
    assert {m.tags["sweeps.trial"] for m in models} == {str(t.number) for t in best}
    assert len(list((sweep.folder / "mlruns").rglob("model.keras"))) == 2


def test_the_parent_shows_the_sweep(sweep):
    (parent,) = sweep.runs("sweep")
    assert parent.info.status == "FINISHED"
    assert parent.data.params["num_trials"] == str(NUM_TRIALS)
    assert parent.data.params["seed"] == "4"
    curve = sweep.client.get_metric_history(parent.info.run_id, "best/val_accuracy")
    values = [m.value for m in sorted(curve, key=lambda m: m.step)]
    assert len(values) == NUM_TRIALS and values == sorted(values)
    assert values[-1] == sweep.study.best_value
    paths = {a.path for a in sweep.client.list_artifacts(parent.info.run_id)}
    assert {"leaderboard.json", "report.html"} <= paths
    assert parent.data.tags["sweeps.best_trial"] == str(sweep.study.best_trial.number)


def test_the_command_that_registers_the_best_model_works(sweep):
    line = next(x for x in sweep.done.stdout.splitlines() if "keras-sweeps promote" in x)
    words = line.partition("#")[0].split()
    entry = Path(sys.executable).parent / words[0]
    done = subprocess.run(
        [str(entry), *words[1:]], cwd=sweep.folder, env=environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sweep.client.get_registered_model("cnn-digits").aliases == {"champion": 1}


def test_little_is_left_beside_the_stores(sweep):
    assert {p.name for p in sweep.folder.iterdir()} == {
        "mlflow.db",
        "mlruns",
        "optuna.db",
        ".sweeps",
    }
    left = {path.parent.name for path in (sweep.folder / ".sweeps").rglob("trial-*")}
    assert left == {"answers"}, "what the kept models say, for the report"


def test_the_test_split_is_not_read_by_a_sweep(sweep):
    """The prepared test arrays can be destroyed, and a sweep does not notice."""
    (prepared,) = (sweep.folder / ".sweeps" / "data").iterdir()
    for part in ("x_test.npy", "y_test.npy"):
        (prepared / part).write_bytes(b"")
    again = subprocess.run(
        command("--space", "mlp", "--dataset", "digits", "--trials", "1", "--epochs", "1", "--quiet"),
        cwd=sweep.folder, env=environment(), capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr


@pytest.mark.long
def test_the_same_seed_gives_the_same_sweep(sweep, tmp_path):
    again = Finished(
        tmp_path, "--space", "cnn", "--dataset", "digits", "--trials", str(NUM_TRIALS), "--epochs",
        str(NUM_EPOCHS), "--keep-models", "0", "--seed", "4", "--quiet", "--pruner", "none",
    )  # fmt: skip
    first, second = sweep.study.trials, again.study.trials
    assert [t.params for t in first] == [t.params for t in second]
    for one, other in zip(first, second, strict=True):
        assert one.intermediate_values == other.intermediate_values
    assert not list((tmp_path / "mlruns").rglob("model.keras"))


def processes_left_in(folder: Path, seconds: float = 10.0) -> list[str]:
    """The processes of a sweep that are still there after a while: server, workers."""
    deadline = time.monotonic() + seconds
    while (found := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def processes_in(folder: Path) -> list[str]:
    """The processes whose working folder it is: the driver, its server and its workers."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            ours = link.parent.name == str(os.getpid())  # The tests stand in the folder, too.
            if link.readlink() == folder and not ours:
                found.append((link.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # It ended meanwhile, or is not ours to look at.
    return found


def start_in_terminal(folder: Path, *options: str) -> subprocess.Popen[str]:
    """A sweep with a process group of its own, as a terminal or a service gives it."""
    return subprocess.Popen(
        command("--space", "mlp", "--dataset", "digits", "--timeout", "none", *options),
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_ctrl_c_while_the_workers_still_import_is_an_interrupt_too(tmp_path):
    process = start_in_terminal(tmp_path, "--result", "result.json")
    for line in process.stdout:
        if line.startswith("trial 0"):
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert processes_left_in(tmp_path) == []
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len(runs) == 2 and {run.info.status for run in runs} == {"KILLED"}
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["outcome"], result["exit_status"]) == ("interrupted", 130)
    assert (result["state"], result["trials"]) == ("interrupted", {"KILLED": 1})
    assert result["best"] is None and len(result["mlflow"]["run_id"]) == 32


def test_an_interrupt_ends_everything_truthfully(tmp_path):
    process = start_in_terminal(
        tmp_path,
        "--epochs",
        "100000",
        "--workers",
        "2",
        "--name",
        "broken-off",
        "--pruner",
        "none",
    )
    for line in process.stdout:
        if re.match(r"trial 1 epoch [3-9]", line):
            break
    os.killpg(process.pid, signal.SIGINT)
    started = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert process.returncode == 130, err
    assert "2 trials stopped (0, 1): proposed again when the sweep is resumed" in out
    result = Finished.__new__(Finished)
    result.folder, result.client = tmp_path, MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {t.state for t in result.study.trials if t.datetime_start} == {TrialState.FAIL}
    assert {t.user_attrs["state"] for t in result.study.trials if t.datetime_start} == {"KILLED"}
    runs = [*result.runs("trial"), *result.runs("sweep")]
    assert {run.info.status for run in runs} == {"KILLED"}
    assert processes_left_in(tmp_path) == []


def test_published_models_are_trained_and_compared_on_demand(tmp_path):
    done = Finished(
        tmp_path, "--baselines-only", "--space", "mlp", "--dataset", "digits", "--epochs", "2"
    )
    assert done.done.returncode == 0, done.done.stderr
    assert re.search(r"mlp_512x2\s+669,706\s+0\.9800\s+0\.\d{4}\s+[-+]\d", done.done.stdout)
    (run,) = done.runs("trial")
    assert run.data.tags["sweeps.test_split_read"] == "true"
    assert 0 < run.data.metrics["test/accuracy"] <= 1
    assert not (tmp_path / "optuna.db").exists()
