"""`--result`: what other programs read of a sweep's end, in every case in which it began."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipelines.objectives import get_objective
from pipelines.training.trial import Schedule
from search_spaces.errors import InputError
from search_spaces.registry import get_space
from sweeps.cli.main import main
from sweeps.cli.result_file import ResultFile
from sweeps.driver.board.board import Board
from sweeps.driver.board.row import TrialRow
from sweeps.driver.search import SweepResult
from sweeps.engines.base import TrialState
from sweeps.finalists.selection import FinalistResult
from sweeps.finalists.session import ComparisonResult
from sweeps.outcome import Outcome
from sweeps.settings import SweepSettings
from sweeps.state.paths import paths_of
from sweeps.state.sweep_file import FINISHED, RUNNING, SweepFile, write_sweep_file


class Tracker:
    experiment_id = "7"

    def run_id(self, number: int) -> str:
        return f"{number:032d}"


def stored(status: str = FINISHED) -> SweepFile:
    settings = SweepSettings(
        "mlp", name="s", storage="postgresql://me:secret@host/studies",
        tracking_uri="https://me:secret@host/mlflow",
    )  # fmt: skip
    file = SweepFile("u" * 32, status, settings, "digits", "d" * 64, "f" * 64)
    paths_of(settings).spool.mkdir(parents=True)
    write_sweep_file(paths_of(settings).state, file)
    return file


def result(outcome: Outcome, *values: float | None) -> SweepResult:
    board = Board("s", get_objective("val_loss"), len(values), 1, None)
    for number, value in enumerate(values):
        state = TrialState.COMPLETE if value is not None else TrialState.FAILED
        board.rows[number] = TrialRow(
            number, f"trial {number}", {"units": number}, 0, Schedule(3), get_space("mlp"),
            state=state, value=value, seconds=1.5, reason="" if value is not None else "no luck",
        )  # fmt: skip
    return SweepResult(outcome, board, "all trials ended", problems=("one",))


def written(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_sweep_that_is_done_has_its_best_trial_and_its_finalists(tmp_path):
    path = tmp_path / "result.json"
    ranked = FinalistResult(1, "trial 1", {"units": 1}, 0.25, 0.2, 0.3, 3, 0.9, 0.95)
    with ResultFile(path) as file:
        file.began(stored())
        file.searched(result(Outcome.DONE, 0.5, 0.25, None), Tracker())
        file.compared(ComparisonResult(Outcome.DONE, ranking=(ranked,), problems=("two",)))
        file.status = 0
        assert not path.exists(), "only the end writes it"
    found = written(path)
    assert (found["format"], found["outcome"], found["exit_status"]) == (1, "done", 0)
    assert (found["state"], found["error"], found["problems"]) == ("finished", "", ["one", "two"])
    assert found["best"] == {
        "trial": 1, "value": 0.25, "params": {"units": 1}, "baseline": None, "best_epoch": None,
        "run_id": f"{1:032d}",
    }  # fmt: skip
    assert found["objective"] == {"name": "val_accuracy", "direction": "maximize"}
    assert found["trials"] == {"COMPLETE": 2, "FAILED": 1}
    assert found["training_seconds"] == 4.5
    winner = found["finalists"]["winner"]
    assert winner == found["finalists"]["ranking"][0]
    assert (winner["trial"], winner["mean"], winner["test_accuracy"]) == (1, 0.25, 0.95)
    assert found["mlflow"]["experiment_id"] == "7" and found["study"]["name"] == "s"
    assert "secret" not in path.read_text()
    assert list(tmp_path.glob("result.json?*")) == []


def test_an_interrupt_before_the_first_trial_is_a_result(tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(KeyboardInterrupt), ResultFile(path) as file:
        file.began(stored(RUNNING))
        raise KeyboardInterrupt
    found = written(path)
    assert (found["outcome"], found["exit_status"]) == ("interrupted", 130)
    assert (found["state"], found["best"], found["seconds"]) == ("interrupted", None, None)


def test_a_sweep_that_failed_says_why(tmp_path):
    path = tmp_path / "result.json"
    with ResultFile(path) as file:
        file.began(stored())
        file.searched(result(Outcome.FAILED, None), None)
        file.status = 1
    found = written(path)
    assert (found["outcome"], found["exit_status"], found["best"]) == ("failed", 1, None)
    assert found["error"] == "no trial completed. Latest: no luck"
    assert found["mlflow"]["run_id"] is None


def test_what_breaks_off_after_the_search_keeps_its_best_trial(tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(InputError), ResultFile(path) as file:
        file.began(stored())
        file.searched(result(Outcome.DONE, 0.5), Tracker())
        raise InputError("A comparison began with other options.")
    found = written(path)
    assert (found["outcome"], found["exit_status"]) == ("failed", 2)
    assert found["error"] == "A comparison began with other options."
    assert found["best"]["value"] == 0.5


def test_nothing_is_written_where_no_sweep_began(tmp_path, capsys):
    path = tmp_path / "result.json"
    with pytest.raises(InputError), ResultFile(path):
        raise InputError("no data")
    assert not path.exists()
    command = ["run", "--space", "mlp", "--dataset", "nowhere.npz", "--result", str(path)]
    assert main(command) == 2 and not path.exists()
    for options in (["--dry-run"], ["--write-config"], ["--baselines-only"]):
        assert main(["run", "--space", "mlp", *options, "--result", str(path)]) == 2
        assert "--result is written by a search" in capsys.readouterr().err
    missing = str(tmp_path / "nowhere" / "result.json")
    assert main(["run", "--space", "mlp", "--dataset", "digits", "--result", missing]) == 2
    assert f"an existing folder. Received: {missing}" in capsys.readouterr().err


def test_the_page_has_every_field(tmp_path):
    path = tmp_path / "result.json"
    with ResultFile(path) as file:
        file.began(stored())
    page = (Path(__file__).parents[3] / "docs" / "result.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert documented == list(written(path))
