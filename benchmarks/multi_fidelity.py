"""What a pruner saves: epochs and seconds until a validation accuracy is reached.

The learning curves are real, and recorded once by a sweep that prunes nothing:

    python sweeps/run.py --space cnn --dataset mnist --sampler random --pruner none \
        --epochs 4 --trials 20 --timeout none --name recorded

They are then replayed through the real driver and the real Optuna engine, once per seed, with each
pruner: every seed proposes the recorded points in an order of its own, the same for all pruners. No
epoch is trained in a replay; its epochs and seconds are those of the record.

    python benchmarks/multi_fidelity.py --name recorded --target 0.990 --seeds 10
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import optuna

from pipelines.data.prepared import PreparedData
from pipelines.objectives import get_objective
from pipelines.training.reports import TrialReport
from pipelines.training.trial import Decision, Schedule, TrialResult, TrialTask
from search_spaces.hyperparameters import active_values
from search_spaces.space import Space
from sweeps.driver.loop import SweepLoop
from sweeps.driver.plan import LoopPlan, StopReason, StopRules
from sweeps.driver.recorder import BestModels, Recorder
from sweeps.driver.status import Board
from sweeps.engines.optuna_study.engine import OptunaEngine
from sweeps.engines.pruners.rungs import make_rungs
from sweeps.executors.base import Event, Job, Raised, Reported, Returned, Slot
from sweeps.interrupts import Interrupts
from sweeps.reporting.progress import QuietView
from sweeps.state.paths import SweepPaths
from tracking.spool.spool import Spool


@dataclass(frozen=True)
class Recorded:
    """One trained point: the objective and the seconds of each epoch, in order."""

    values: tuple[float, ...]
    seconds: tuple[float, ...]


def main() -> None:
    """Reads the record, replays it, prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", required=True, help="the recorded sweep")
    parser.add_argument("--storage", default="sqlite:///optuna.db")
    parser.add_argument("--work-dir", default=".sweeps")
    parser.add_argument("--target", type=float, default=0.990)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--reduction-factor", type=int, default=3)
    parser.add_argument("--pruners", nargs="+", default=["asha", "hyperband", "median", "none"])
    arguments = parser.parse_args()
    table = read_record(arguments.storage, Path(arguments.work_dir), arguments.name)
    reaching = sum(max(row.values) >= arguments.target for row in table)
    budget = len(table[0].values)
    print(f"{len(table)} recorded points x {budget} epochs, {reaching} of them reach "
          f"{arguments.target}; n = {arguments.seeds} seeds")  # fmt: skip
    if not reaching:
        sys.exit("No recorded point reaches the target: nothing can be compared.")
    results: dict[str, list[tuple[int, float]]] = {}
    for pruner in arguments.pruners:
        results[pruner] = [
            replay(table, pruner, arguments.target, seed, arguments.reduction_factor)
            for seed in range(arguments.seeds)
        ]
    plain = results.get("none")
    print(f"{'pruner':<10} {'epochs: median (all)':<44} {'seconds: median':>16}  ratio of epochs")
    for pruner, found in results.items():
        epochs = [number for number, _ in found]
        seconds = [value for _, value in found]
        ratio = ""
        if plain is not None and pruner != "none":
            ratios = [mine / theirs for (mine, _), (theirs, _) in zip(found, plain, strict=True)]
            ratio = (
                f"median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )
        shown = f"{statistics.median(epochs):g} ({' '.join(map(str, epochs))})"
        print(f"{pruner:<10} {shown:<44} {statistics.median(seconds):>16.0f}  {ratio}")


def read_record(storage: str, work_dir: Path, name: str) -> list[Recorded]:
    """The curves of a sweep's complete trials; the seconds are those in its spool."""
    seconds: dict[int, dict[int, float]] = {}
    spool = work_dir / "sweeps" / name / "spool" / "records.jsonl"
    for line in spool.read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "EpochRecord":
            body = record["body"]
            taken = body["metrics"]["epoch_seconds"]
            seconds.setdefault(body["number"], {})[body["epoch"]] = taken
    study = optuna.load_study(study_name=name, storage=storage)
    table = []
    for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        epochs = sorted(trial.intermediate_values)
        values = tuple(trial.intermediate_values[epoch] for epoch in epochs)
        table.append(Recorded(values, tuple(seconds[trial.number][epoch] for epoch in epochs)))
    full = max(len(row.values) for row in table)
    return [row for row in table if len(row.values) == full]


def replay(
    table: list[Recorded], pruner: str, target: float, seed: int, reduction_factor: int
) -> tuple[int, float]:
    """Epochs and seconds until a report reaches the target, or of the whole sweep."""
    objective = get_objective("val_accuracy")
    budget = len(table[0].values)

    def sample(hp: Any) -> dict[str, Any]:
        hp.Choice("point", list(range(len(table))))
        return active_values(hp)

    space = Space("recorded", "", sample, None, lambda params, shape: ())  # type: ignore[arg-type]
    engine = OptunaEngine(
        space, objective, optuna.storages.InMemoryStorage(), "replay", "grid", seed,
        pruner=pruner, rungs=make_rungs(Fraction(1), budget, reduction_factor),
    )  # fmt: skip
    board = Board("replay", objective, len(table), 1, None)
    with tempfile.TemporaryDirectory() as folder:
        paths = SweepPaths(Path(folder), "replay")
        data = PreparedData(
            "recorded", folder, "0" * 64, "", "", (1, 1, 1), 1, ("a",), {"train": 1}
        )
        recorder = Recorder(Spool(paths.spool), space, data, paths, BestModels(objective, 0))
        plan = LoopPlan(
            space=space, data=data, num_trials=len(table), schedule=Schedule(budget),
            seed=seed, slots=(Slot(0, 1),), paths=paths, rules=StopRules(target=target),
        )  # fmt: skip
        executor = ReplayExecutor(table)
        loop = SweepLoop(plan, board, engine, executor, recorder, QuietView(), Interrupts())
        stop = loop.run()
        assert stop in (StopReason.TARGET, StopReason.TRIALS), stop
    seconds = sum(
        sum(table[int(row.params["point"])].seconds[: row.step]) for row in board.rows.values()
    )
    return board.num_epochs_trained(), seconds


Replay = Generator[TrialReport, Decision, TrialResult]


class ReplayExecutor:
    """Answers with recorded epochs, at once; a trial that goes on goes on where it was."""

    def __init__(self, table: list[Recorded]) -> None:
        self._table = table
        self._jobs: dict[str, Replay] = {}
        self._events: list[Event] = []

    def start(self, job_id: str, job: Job, argument: Any, slot: Slot, log_path: str) -> None:
        """Starts a trial; pictures are not drawn."""
        if not job_id.startswith("trial-"):
            self._events.append(Raised(job_id, "NotDrawn", "nothing to draw", ""))
            return
        self._jobs[job_id] = self._trial(argument)
        self._events.append(Reported(job_id, next(self._jobs[job_id])))

    def _trial(self, task: TrialTask) -> Replay:
        row = self._table[int(task.params["point"])]
        decision, epoch = Decision.GO_ON, max(1, task.reported_step)
        while True:
            value = row.values[epoch - 1]
            decision = yield TrialReport(task.number, epoch, metrics_of(value))
            if decision is not Decision.GO_ON or epoch == task.schedule.num_epochs:
                break
            epoch += 1
        best = max(range(epoch), key=lambda k: row.values[k]) + 1
        stopped_by = "epochs" if decision is Decision.GO_ON else decision.value
        return TrialResult(
            task.number, row.values[best - 1], best, epoch, metrics_of(row.values[best - 1]),
            0, 0, sum(row.seconds[:epoch]), "recorded", stopped_by,
        )  # fmt: skip

    def events(self, timeout_seconds: float) -> list[Event]:
        """What has happened."""
        del timeout_seconds
        found, self._events = self._events, []
        return found

    def answer(self, job_id: str, answer: Any) -> None:
        """Lets a trial go on to its next report or to its end."""
        try:
            self._events.append(Reported(job_id, self._jobs[job_id].send(answer)))
        except StopIteration as end:
            del self._jobs[job_id]
            self._events.append(Returned(job_id, end.value))

    def process_id(self, job_id: str) -> None:
        """Nothing runs."""

    def stop(self, job_id: str) -> None:
        """Ends a trial."""
        self._jobs.pop(job_id, None)

    def keep_warm(self, slots: Sequence[Slot]) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Ends all trials."""
        self._jobs.clear()


def metrics_of(value: float) -> dict[str, float]:
    """The metrics that the loop looks at."""
    return {"val_accuracy": value, "val_loss": 0.0, "accuracy": value, "loss": 0.0}


if __name__ == "__main__":
    main()
