"""What was lost beside a sweep, or twice there: the doctor restores it and deletes nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made_sweeps import made_trial, write_sweep
from mlflow import MlflowClient

from search_spaces.errors import InputError
from sweeps.cli.main import main
from sweeps.finalists.selection import sweep_run_id
from sweeps.history.recorded_sweep import read_sweep
from sweeps.state.lock import driving, is_driven
from sweeps.state.sweep_file import BASELINES, read_sweep_file, write_sweep_file
from tracking.spool.records import ProgressRecord, SweepRecord
from tracking.spool.spool import Spool

URI = "sqlite:///mlflow.db"


def made_sweep(numbers: range, *more: object):
    """Published models, whose spool is the study, too: a sweep without a database of its own."""
    trials = [record for n in numbers for record in made_trial(n, [0.5], {"units": n})]
    paths = write_sweep(Path(".sweeps"), "s", [*trials, *more], tracking_uri=URI)
    write_sweep_file(paths.state, replace(read_sweep_file(paths.state), kind=BASELINES))
    return paths


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    """A sweep that was sent, whose own run holds points of its progress."""
    monkeypatch.chdir(tmp_path)
    paths = made_sweep(range(2), *(ProgressRecord(n, {"best": 0.1 * n}) for n in range(6)))
    assert main(["sync", "s"]) == 0
    capsys.readouterr()
    return paths


def test_after_a_lost_store_all_is_restored_and_the_new_runs_are_known(sweep, capsys):
    before = sweep_run_id(sweep)
    Path("mlflow.db").unlink()

    assert main(["doctor", "s", "--repair"]) == 0, capsys.readouterr()

    now = sweep_run_id(sweep)
    assert now != before and read_sweep(sweep).run_id == now
    assert (
        len(MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db").get_metric_history(now, "best")) == 6
    )
    assert main(["note", "s", "kept"]) == 0 and main(["doctor", "s"]) == 0


def test_after_a_lost_spool_the_run_that_holds_most_is_kept(sweep, capsys):
    client, before = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db"), sweep_run_id(sweep)
    sweep.spool.rename("away")
    first = next(Spool(Path("away"), read_only=True).replay())
    assert isinstance(first, SweepRecord)
    spool = Spool(sweep.spool)  # As a sweep that is resumed then begins it anew.
    spool.put(replace(first, at_ms=first.at_ms + 10**6))
    for record in made_trial(2, [0.7], {"units": 2}, begun=2000):
        spool.put(record)
    spool.put(ProgressRecord(7, {"best": 0.9}))
    spool.close()
    assert main(["sync", "s"]) == 0
    assert sweep_run_id(sweep) != before

    main(["doctor", "s", "--repair"])
    capsys.readouterr()

    run = client.get_run(before)
    assert run.info.lifecycle_stage == "active" and sweep_run_id(sweep) == before
    assert [point.step for point in client.get_metric_history(before, "best")] == [*range(6), 7]
    runs = client.search_runs([run.info.experiment_id])
    assert len(runs) == 4, "the other one held nothing more, once all of it was there"
    parents = {one.data.tags.get("mlflow.parentRunId") for one in runs}
    assert parents == {None, before}


def test_a_double_that_holds_something_of_its_own_is_not_deleted(sweep, capsys):
    client, kept = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db"), sweep_run_id(sweep)
    run = client.get_run(kept)
    tags = {key: run.data.tags[key] for key in ("sweeps.record", "sweeps.kind", "sweeps.uid")}
    other = client.create_run(run.info.experiment_id, tags=tags).info.run_id
    client.log_metric(other, "of_somebody", 1.0)

    assert main(["doctor", "s", "--repair"]) == 1

    assert "2 parent runs of the sweep instead of one" in capsys.readouterr().out
    for run_id in (kept, other):
        assert client.get_run(run_id).info.lifecycle_stage == "active"


def test_a_lock_file_that_was_removed_lets_no_second_driver_in(sweep):
    code = (
        "import sys; from pathlib import Path\n"
        "from search_spaces.errors import InputError\n"
        "from sweeps.state.lock import driving, is_driven\n"
        "from sweeps.state.paths import SweepPaths\n"
        "paths = SweepPaths(Path('.sweeps').absolute(), 's')\n"
        "print(is_driven(paths))\n"
        "try:\n"
        "    with driving(paths): print('drives')\n"
        "except InputError as error: print(error)\n"
    )

    def other() -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        return done.stdout + done.stderr

    with driving(sweep):
        sweep.lock.unlink()
        said = other()
        assert said.startswith("True\nSweep 's' is running already (process "), said
        with pytest.raises(InputError, match="running already"), driving(sweep):
            pass
    assert not is_driven(sweep) and other() == "False\ndrives\n"
