"""Sweeps whose metrics have plain names in MLflow, or sections: checked, replayed and copied alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from driven_commands import drive
from mlflow import MlflowClient
from mlflow.entities import Run
from recorded_sweeps import unpack
from stack import mlflow_server

from tracking.runs.run_reader import read_run

pytestmark = [pytest.mark.timeout(900), pytest.mark.stack]
DATA = Path(__file__).with_name("data")
NUM_EPOCHS = 3
NEW_SWEEP = [
    "run", "--space", "mlp", "--dataset", "digits", "--name", "m", "--trials", "2", "--epochs",
    str(NUM_EPOCHS), "--seed", "134", "--sampler", "random", "--pruner", "none", "--no-baselines",
    "--workers", "1", "--timeout", "none", "--keep-models", "0",
]  # fmt: skip


def trial_0(uri: str) -> Run:
    client = MlflowClient(uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    text = "tags.`sweeps.sweep` = 'm' AND tags.`sweeps.trial` = '0'"
    (found,) = client.search_runs(experiments, text)
    return found


class Moved:
    """A sweep `m` in its own store, then in a server's, with the same commands in both."""

    def __init__(self, folder: Path, served: Path, *, is_old: bool) -> None:
        if is_old:
            unpack(DATA / "finished_sweeps_8d036db.tar.gz", folder)
        else:
            done = drive(folder, {"run": NEW_SWEEP})
            assert done["run"]["status"] == 0, done
        own = f"sqlite:///{folder / 'mlflow.db'}"
        with mlflow_server(served) as (_, address):
            self.here = self._commands(folder, own)
            done = drive(folder, {"migrate": ["migrate", "--from", own, "--to", address]})
            assert done["migrate"]["status"] == 0, done
            self.there = self._commands(folder, address)
            self.runs = [trial_0(uri) for uri in (own, address)]
            self.read = [read_run(uri, trial_0(uri).info.run_id) for uri in (own, address)]

    @staticmethod
    def _commands(folder: Path, uri: str) -> dict[str, Any]:
        where = ["--tracking-uri", uri]
        return drive(
            folder,
            {
                "doctor": ["doctor", "m", *where],
                "replay": ["replay", trial_0(uri).info.run_id, *where],
            },
        )


@pytest.fixture(scope="module", params=["plain", "sections"])
def moved(request, tmp_path_factory):
    folder, served = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("served")
    return request.param, Moved(folder, served, is_old=request.param == "plain")


def test_a_copy_has_the_names_that_the_sweep_began_with_and_reads_the_same(moved):
    names, sweep = moved
    own, copied = (run.data.metrics for run in sweep.runs)
    assert own == copied
    assert ("epoch/val_accuracy" in own) == (names == "sections")
    assert ("best_val_accuracy" in own) == (names == "plain")
    here, there = sweep.read
    assert here.epochs == there.epochs and sorted(here.epochs) == [1, 2, 3]
    assert all("val_accuracy" in metrics for metrics in here.epochs.values())


def test_doctor_finds_the_same_in_both_stores(moved):
    _, sweep = moved
    for done in (sweep.here, sweep.there):
        assert done["doctor"]["status"] == 0, done["doctor"]


def test_replay_compares_every_epoch_and_says_the_same_of_both(moved):
    """Bit for bit where this machine made the record, and alike in both stores everywhere."""
    names, sweep = moved
    compared = []
    for done in (sweep.here["replay"], sweep.there["replay"]):
        lines = re.findall(rf"^epoch \d/{NUM_EPOCHS}: .*", done["out"], re.MULTILINE)
        assert len(lines) == NUM_EPOCHS, done
        compared.append((done["status"], lines))
    assert compared[0] == compared[1]
    if names == "sections":
        assert compared[0][0] == 0, sweep.here["replay"]
