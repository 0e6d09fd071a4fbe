"""What a sweep would do, need and take, found out without training or recording anything."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import fake_executor

from pipelines.training.cost import FailedPoint, Measurement
from sweeps.cli.main import main
from sweeps.settings import SweepSettings, budget_for
from sweeps.setup.dry_run import simulated_stretches


def silent_job(task: Any, report: Any, slot: Any) -> None:
    report("ready")
    threading.Event().wait(60)


def test_a_dry_run_tells_what_a_sweep_would_do_and_records_nothing(capsys):
    options = ["--space", "mlp", "--dataset", "digits", "--trials", "2", "--epochs", "9"]
    assert main(["run", *options, "--workers", "1", "--dry-run"]) == 0
    out = capsys.readouterr().out
    for words in (
        "rungs at 3, 9 epochs", "14 parameters", "mlp_512x2", "669,706", "MiB", "about ",
        "2 points, of 9 epochs",
    ):  # fmt: skip
        assert words in out
    assert {path.name for path in Path.cwd().iterdir()} <= {".sweeps"}
    assert [path.name for path in Path(".sweeps").iterdir()] == ["data"]


def test_a_dry_run_estimates_less_for_a_sweep_that_prunes():
    def stretches(protected: set[int], pruner: str) -> list[tuple[int, float]]:
        settings = SweepSettings("cnn", num_epochs=9, min_epochs=1, pruner=pruner)
        return simulated_stretches(settings, budget_for(settings, 1_000), 30, protected)

    def epochs(pruner: str) -> float:
        return sum(n for _, n in stretches({0, 1}, pruner))

    assert epochs("asha") < epochs("hyperband") < epochs("none") == 270
    assert (0, 9) in stretches({0}, "asha")
    assert {number for number, _ in stretches({0}, "asha")} == set(range(30))


def test_a_dry_run_measures_for_a_part_of_the_sweeps_time_and_says_how_far_it_is(
    monkeypatch, capsys
):
    monkeypatch.setattr("sweeps.setup.dry_run.MEASURING_SECONDS", 0.0)
    monkeypatch.setattr("sweeps.setup.dry_run.SAID_SECONDS", 0.0)
    options = ["--space", "mlp", "--dataset", "digits", "--workers", "1", "--timeout", "6s"]
    assert main(["run", "--dry-run", *options, "--epochs", "4"]) == 0
    out = capsys.readouterr().out
    assert "measured 0 of 10 points so far" in out
    assert "of 10 points, within a part of the sweep's time; the others are taken for" in out
    assert "this sweep on this machine, which tries about" in out


def test_a_dry_run_counts_what_a_time_limit_is_filled_with():
    def num_full(**options: Any) -> int:
        settings = SweepSettings("cnn", num_epochs=9, min_epochs=1, num_trials=6, **options)
        stretches = simulated_stretches(settings, budget_for(settings, 1_000), 6, set())
        epochs = {n: sum(e for m, e in stretches if m == n) for n in range(6)}
        return sum(found == 9 for found in epochs.values())

    assert num_full(timeout_seconds=None) < num_full(timeout_seconds=180.0) == 3


def test_a_measuring_process_that_hangs_ends_a_dry_run_with_one_line(monkeypatch, capsys):
    executor = fake_executor.InlineExecutor()
    monkeypatch.setattr("sweeps.executors.processes.ProcessExecutor", lambda *_, **__: executor)
    monkeypatch.setattr("sweeps.setup.dry_run.measure_job", silent_job)
    options = ["--space", "mlp", "--dataset", "digits", "--trials", "2", "--jit", "off"]
    assert main(["run", "--dry-run", "--trial-timeout", "1s", *options]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "error: Hang: a measuring process has reported nothing for 1 seconds. Look at the space, "
        "or give it more time with --trial-timeout."
    ]
    assert executor.closed


def test_a_dry_run_copes_with_points_that_cannot_be_trained_as_a_sweep_does(capsys):
    from sweeps.cli.dry_run_table import print_dry_run
    from sweeps.engines.base import Proposal
    from sweeps.outcome import Outcome
    from sweeps.setup.dry_run import DryRun, MeasuredPoint, UntrainedPoint, estimate

    settings = SweepSettings("a.py:b", num_trials=4, num_epochs=1, pruner="none")
    budget = budget_for(settings, 1000)
    points = [Proposal(number, {"n": number}) for number in range(4)]
    cost = Measurement({}, 1, 1, 2.0, 10.0)
    failure = FailedPoint("FailedTrialError", "too\nlarge", "Traceback")
    whole = estimate(settings, budget, 4, 1, points, dict.fromkeys(range(4), cost))
    half = estimate(settings, budget, 4, 1, points, {0: cost, 1: failure, 2: cost, 3: failure})
    assert whole[1] == 4 and half[1] == 2 and half[0] < whole[0]
    assert (
        estimate(settings, budget, 8, 1, points, {0: cost, 1: failure, 2: cost, 3: failure})[1] == 4
    )
    failed = tuple(UntrainedPoint(points[number], failure) for number in (1, 3))
    print_dry_run(DryRun(
        Outcome.DONE, settings, budget, (MeasuredPoint(points[0], cost),), 4, 2.0, failed=failed,
    ))  # fmt: skip
    assert "2 trials would fail (1, 3): FailedTrialError: too large\n" in capsys.readouterr().out


def test_a_dry_run_measures_what_would_be_trained(monkeypatch):
    import fake_loop_parts

    from sweeps.setup.dry_run import first_proposals

    engine = fake_loop_parts.ListEngine([{"n": number} for number in range(9)])
    engine.duplicates, engine.broken_limits = {1: 0}, {2: "parameters 3k > 2k"}
    monkeypatch.setattr("sweeps.setup.stores.make_engine", lambda *_: engine)
    settings = SweepSettings("mlp", num_trials=3)
    found = first_proposals(settings, None, None, budget_for(settings, 1000), 1)
    assert [proposal.number for proposal in found] == [0, 3, 4]
