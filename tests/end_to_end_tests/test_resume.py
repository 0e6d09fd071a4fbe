"""Sweeps that are killed, terminated, doubled, offline or changed: real processes, real stores."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import chaos
import optuna
import pytest
from mlflow import MlflowClient

from search_spaces.errors import InputError

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "--space", "mlp", "--dataset", "digits", "--trials", "5", "--epochs", "3", "--timeout", "none",
    "--workers", "1", "--protect-baselines", "--name", "s",
)  # fmt: skip


def run(folder: Path, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / f"{command}.py"), *options],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=200,
    )  # fmt: skip


def environment() -> dict[str, str]:
    hidden = ("SWEEPS_DATA_DIR", "MLFLOW_TRACKING_URI")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "sweeps" / "run.py"), *options],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def quick(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The real command with made-up trials: no TensorFlow to wait for."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "drivers" / "chaos_driver.py"), *options],
        cwd=folder, env=chaos.environment(), capture_output=True, text=True, timeout=200,
    )  # fmt: skip


def start_quick(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "support" / "drivers" / "chaos_driver.py"), "run", *options],
        cwd=folder, env=chaos.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"never said {pattern}: {process.stderr.read()}")  # type: ignore[union-attr]


def trials(folder: Path) -> list[dict[str, Any]]:
    """What a sweep proposed and reached, without times."""
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder / 'optuna.db'}")
    return [
        {
            "params": t.params,
            "state": t.state.name,
            "value": t.value,
            "reports": t.intermediate_values,
            "best_epoch": t.user_attrs.get("facts", {}).get("best_epoch"),
        }
        for t in study.trials
    ]


def doctor(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "doctor", "s", *options)


def runs(folder: Path) -> list[Any]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, "run", *OPTIONS)
    assert done.returncode == 0, done.stderr
    return folder


def test_an_uninterrupted_sweep_is_in_order(whole):
    found = doctor(whole)
    assert found.returncode == 0, found.stdout
    assert "study, spool and MLflow agree" in found.stdout
    states = [trial["state"] for trial in trials(whole)]
    assert "PRUNED" in states and "COMPLETE" in states


def test_a_killed_sweep_goes_on_to_the_very_same_end(whole, tmp_path):
    process = start(tmp_path, *OPTIONS)
    wait_for(process, r"trial 0 .*epoch 2")
    process.kill()
    process.wait()
    found = doctor(tmp_path)
    assert found.returncode == 1 and "no process is running it" in found.stdout
    repaired = doctor(tmp_path, "--repair")
    assert repaired.returncode == 0, repaired.stdout
    assert {r.info.status for r in runs(tmp_path)} <= {"SCHEDULED", "FINISHED", "KILLED"}
    process = start(tmp_path, "--resume")
    wait_for(process, r"trial 2 .*started")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = run(tmp_path, "run", *OPTIONS)  # The same command: an unfinished name goes on.
    assert done.returncode == 0, done.stderr
    assert "resumed" in done.stdout
    assert trials(tmp_path) == trials(whole)
    found = doctor(tmp_path)
    assert found.returncode == 0, found.stdout
    for run_found in runs(tmp_path):
        assert run_found.info.status in ("FINISHED", "KILLED")


@pytest.mark.long
@pytest.mark.parametrize("when", [r"trial 1 .*paused"])
def test_termination_leaves_everything_to_be_resumed(tmp_path, when):
    options = [option for option in OPTIONS if option != "--protect-baselines"]
    options += ["--trials", "12"]  # Some are left, however late the signal comes.
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    assert quick(tmp_path / "whole", "run", *options).returncode == 0
    folder = tmp_path / "stopped"
    process = start_quick(folder, *options)
    wait_for(process, when)
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "keras-sweeps run --resume --name s" in out
    # The point of the defaults is trained through, whatever it reaches.
    ended = {r.info.run_name: r.info.status for r in runs(folder) if r.info.status != "SCHEDULED"}
    assert "SCHEDULED" in {r.info.status for r in runs(folder)}
    assert set(ended.values()) <= {"FINISHED", "KILLED"} and len(ended) <= 2, ended
    assert doctor(folder).returncode == 0, "nothing is wrong with a sweep that waits"
    done = quick(folder, "run", "--resume", "--name", "s", "--quiet")
    assert done.returncode == 0, done.stderr
    assert trials(folder) == trials(tmp_path / "whole")
    assert doctor(folder).returncode == 0


def test_a_finished_sweep_goes_on_only_when_asked(whole):
    refused = run(whole, "run", *OPTIONS)
    assert refused.returncode == 2 and "--resume --name s" in refused.stderr
    assert run(whole, "run", "--resume").returncode == 2
    assert "no" in run(whole, "run", "--resume").stderr


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("--seed", "7"), 2, "--seed was 0, is 7"),
        (("--space", "cnn"), 2, "--space was mlp, is cnn"),
        (("--epochs", "9"), 2, "--epochs was 3, is 9"),
        (("--sampler", "random"), 2, "--accept-changes"),
        (("--pruner", "none"), 2, "--pruner was asha, is none"),
        (("--name", "other"), 2, "There is no sweep 'other' in"),
    ],
)
def test_changes_are_named_and_refused(whole, options, status, words):
    name = () if "--name" in options else ("--name", "s")
    done = run(whole, "run", "--resume", *name, *options)
    assert done.returncode == status
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_a_sweep_is_not_split_over_two_stores(whole, tmp_path):
    other = f"sqlite:///{tmp_path / 'other.db'}"
    for command in ("sync", "run"):
        options = ("--resume", "--name", "s") if command == "run" else ("s",)
        done = run(whole, command, *options, "--tracking-uri", other)
        assert done.returncode == 2 and "The sweep is tracked in" in done.stderr
    done = run(whole, "run", "--resume", "--name", "s", "--storage", other, "--trials", "6")
    assert done.returncode == 2 and "holds no studies" in done.stderr
    assert run(whole, "doctor", "s").returncode == 0


def test_two_drivers_of_one_sweep_are_one_too_many(tmp_path):
    process = start_quick(tmp_path, *OPTIONS, "--trials", "500")
    try:
        wait_for(process, r"trial 0 .*started")
        second = run(tmp_path, "run", *OPTIONS, "--trials", "500")
        assert second.returncode == 2
        assert f"process {process.pid} drives" in second.stderr
        for command in ("sync", "doctor"):
            options = ("--repair",) if command == "doctor" else ()
            refused = run(tmp_path, command, "s", *options)
            assert refused.returncode == 2 and "is running already" in refused.stderr
        looked = run(tmp_path, "doctor", "s")
        assert looked.returncode == 0, looked.stdout
        assert "s is running: what it has not sent yet is no problem" in looked.stdout
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.long
def test_an_offline_sweep_is_sent_later_with_its_own_times(tmp_path):
    began = time.time()
    done = quick(tmp_path, "run", *OPTIONS, "--offline", "--tracking-uri", "http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    ended = time.time()
    assert "keras-sweeps sync s" in done.stdout
    assert not (tmp_path / "mlflow.db").exists()
    time.sleep(1.5)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    shutil.copytree(tmp_path, tmp_path / "copy")
    sent = run(tmp_path, "sync", "s", "--tracking-uri", uri)
    assert sent.returncode == 0, sent.stderr
    assert ", 0 left" in sent.stdout
    for found in runs(tmp_path):
        assert began <= found.info.start_time / 1000 <= found.info.end_time / 1000 <= ended
    checked = run(tmp_path, "doctor", "s", "--tracking-uri", uri)
    assert checked.returncode == 0, checked.stdout
    assert "sent 0, 0 left" in run(tmp_path, "sync", "s", "--tracking-uri", uri).stdout
    # What the doctor sends is sent once, too.
    copy = tmp_path / "copy"
    uri = f"sqlite:///{copy / 'mlflow.db'}"
    repaired = run(copy, "doctor", "s", "--tracking-uri", uri, "--repair")
    assert repaired.returncode == 0, repaired.stdout
    assert len(runs(copy)) == len(runs(tmp_path))


def test_the_doctor_finds_and_restores_what_was_lost(whole):
    client = MlflowClient(f"sqlite:///{whole / 'mlflow.db'}")
    found = {r.data.tags.get("sweeps.trial"): r for r in runs(whole)}
    client.delete_run(found["0"].info.run_id)
    client.update_run(found["1"].info.run_id, status="RUNNING")
    client.set_tag(found["2"].info.run_id, "sweeps.state", "RUNNING")
    problems = doctor(whole)
    assert problems.returncode == 1
    for words in ("trial 0: 0 runs in MLflow", "(RUNNING) in MLflow", "trial 2: "):
        assert words in problems.stdout
    repaired = doctor(whole, "--repair")
    assert repaired.returncode == 0, repaired.stdout
    assert doctor(whole).returncode == 0


def test_a_password_that_was_left_out_comes_from_the_environment(monkeypatch):
    from sweeps.settings import SweepSettings
    from sweeps.state.sweep_file import with_passwords

    stored = SweepSettings(
        "cnn", tracking_uri="http://u:***@h:5000", storage="postgresql+psycopg://o:***@h/optuna"
    )
    assert with_passwords(stored) == stored
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:secret@h:5000/")
    monkeypatch.setenv("SWEEPS_STORAGE", "postgresql+psycopg://o:other@elsewhere/optuna")
    found = with_passwords(stored)
    assert found.tracking_uri == "http://u:secret@h:5000/"
    assert found.storage == stored.storage, "another database is not the sweep's"
    monkeypatch.setenv("SWEEPS_STORAGE", "postgresql+psycopg://o:other@h/optuna")
    assert with_passwords(stored).storage.endswith("o:other@h/optuna")


def test_a_store_is_the_same_whoever_asks():
    from sweeps.settings import SweepSettings
    from sweeps.state.sweep_file import SweepFile, check_same_store

    file = SweepFile(
        "u", "running", SweepSettings("cnn", tracking_uri="http://u:***@h"), "m", "f", "g"
    )
    check_same_store(file, "http://h", sent=True)
    with pytest.raises(InputError, match="The sweep is tracked in"):
        check_same_store(file, "http://u:***@other", sent=True)


def test_what_a_sweep_stores_of_itself_holds_no_password(tmp_path):
    from sweeps.settings import SweepSettings
    from sweeps.state.sweep_file import SweepFile, read_sweep_file, write_sweep_file

    settings = SweepSettings("cnn", tracking_uri="http://u:secret@h:5000")
    path = tmp_path / "sweep.json"
    write_sweep_file(path, SweepFile("u", "running", settings, "mnist", "f", "g"))
    assert "secret" not in path.read_text()
    assert json.loads(path.read_text())["settings"]["tracking_uri"] == "http://***@h:5000"
    assert read_sweep_file(path).settings.space == "cnn"
