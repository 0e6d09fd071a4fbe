"""`--baselines-only`: every published model trained as published, beside what was published."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pipelines.prepared import PreparedData, prepare
from pipelines.reproduction import ReproductionResult, ReproductionTask
from pipelines.trial import EpochReport
from search_spaces.registry import all_baselines
from search_spaces.space import Baseline
from sweeps.cli import DONE, FAILED, INTERRUPTED
from sweeps.devices import allot, detect_machine
from sweeps.executors.base import Executor, Raised, Reported, Returned, Slot
from sweeps.formatting import count, duration
from sweeps.interrupts import Interrupts
from sweeps.jobs import reproduce_job
from sweeps.preflight import check_places
from sweeps.recorder import data_record
from sweeps.settings import SweepPaths, SweepSettings, new_name
from sweeps.sweep import WAIT_SECONDS, trial_seed
from tracking.records import SweepEnd, SweepRecord, TrialEnd, TrialRecord
from tracking.stores import redacted, resolve_uri, ui_command

TOLERANCE_POINTS = 0.3
"""Seeds alone scatter these accuracies by about 0.05 points; more than this is another result."""


def run_baselines(settings: SweepSettings, space: str | None, *, quiet: bool) -> int:
    """Trains the baselines of one space, or of all, one after the other; prints the comparison.

    Returns:
        1 where a baseline failed or, on the data set of its publication, differs by more than
        `TOLERANCE_POINTS`.

    Raises:
        InputError: The settings or places cannot be used; nothing was started.
    """
    say: Callable[[str], None] = (lambda text: None) if quiet else _say
    check_places(settings)
    chosen = [b for b in all_baselines() if space in (None, b.space)]
    say(f"keras-sweeps: {count(len(chosen), 'published baseline')}, trained as published")
    from sweeps.session import show_progress

    root = Path(settings.work_dir).absolute()
    data = prepare(settings.dataset or "mnist", root / "data", show_progress)
    allotment = allot(detect_machine(), 1, settings.num_threads)
    name = settings.name or new_name("baselines", data.name, datetime.now())
    say(f"data      {data.name} ({data.origin}): {data.sizes()}")
    say(f"machine   {allotment.reason}")
    say(f"tracking  {redacted(resolve_uri(settings.tracking_uri))}, run {name}")
    with Interrupts() as interrupts:
        command = _Reproduction(settings, name, data, allotment.slots[0], SweepPaths(root, name))
        return command.run(chosen, interrupts, say)


class _Reproduction:
    """One run of the command: its executor, its tracker, and the results so far."""

    def __init__(
        self,
        settings: SweepSettings,
        name: str,
        data: PreparedData,
        slot: Slot,
        paths: SweepPaths,
    ) -> None:
        from sweeps.executors.processes import ProcessExecutor
        from tracking.background import BackgroundCalls

        self._settings, self._name, self._data = settings, name, data
        self._slot, self._paths = slot, paths
        paths.sweep.mkdir(parents=True, exist_ok=True)
        self._executor: Executor = ProcessExecutor("sweeps.preload", paths.server_log)
        try:
            from tracking.mlflow_tracker import MlflowTracker

            uri = resolve_uri(settings.tracking_uri)
            experiment = settings.experiment or f"baselines-{data.name}"
            self._tracker = MlflowTracker(uri, experiment)
        except BaseException:
            self._executor.close()
            raise
        self._calls = BackgroundCalls()

    def run(
        self, chosen: list[Baseline], interrupts: Interrupts, say: Callable[[str], None]
    ) -> int:
        from tracking.context import git_tags, version_tags

        params = {"dataset": self._data.name, "seed": self._settings.seed}
        tags = {
            **git_tags(),
            **version_tags(),
            "sweeps.data_fingerprint": self._data.fingerprint,
            "sweeps.test_split_read": "true",
        }
        record = SweepRecord(self._name, params, tags, data_record(self._data))
        self._calls.put(self._tracker.start_sweep, record)
        results: dict[str, ReproductionResult] = {}
        try:
            for number, baseline in enumerate(chosen):
                result = self._reproduce(number, baseline, interrupts, say)
                if result is not None:
                    results[baseline.name] = result
                if interrupts.received:
                    break
        finally:
            self._executor.close()
        status = self._status(chosen, results, interrupts)
        name = {DONE: "FINISHED", INTERRUPTED: "KILLED"}.get(status, "FAILED")
        self._calls.put(self._tracker.end_sweep, SweepEnd(name))  # type: ignore[arg-type]
        self._calls.drain(60.0)
        print_comparison(chosen, results, self._data.name)
        command = ui_command(resolve_uri(self._settings.tracking_uri))
        if command:
            say(f"\nNext:\n  {command}   # the curves, in experiment baselines-{self._data.name}")
        return status

    def _reproduce(
        self,
        number: int,
        baseline: Baseline,
        interrupts: Interrupts,
        say: Callable[[str], None],
    ) -> ReproductionResult | None:
        folder = self._paths.trial(number)
        folder.mkdir(parents=True)
        epochs = self._settings.num_epochs or baseline.num_epochs
        seed = trial_seed(self._settings.seed, number)
        task = ReproductionTask(number, baseline, self._data, seed, str(folder), epochs)
        params = {**baseline.params, "max_epochs": epochs, "train_on": baseline.train_on}
        tags = {"sweeps.baseline": baseline.name, "sweeps.space": baseline.space,
                "sweeps.seed": str(seed)}  # fmt: skip
        self._calls.put(self._tracker.start_trial, TrialRecord(number, baseline.name, params, tags))
        job_id = f"baseline-{number}"
        log_path = str(self._paths.trial_log(number))
        self._executor.start(job_id, reproduce_job, task, self._slot, log_path)
        say(f"{baseline.name}: training for {count(epochs, 'epoch')} on {baseline.train_on}")
        while not interrupts.received:
            for event in self._executor.events(WAIT_SECONDS):
                if isinstance(event, Reported):
                    self._reported(job_id, baseline, event.message, say)
                elif isinstance(event, Returned):
                    return self._returned(baseline, event.value)
                else:
                    self._failed(number, baseline, event, say)
                    return None
        self._executor.stop(job_id)
        self._calls.put(self._tracker.end_trial, TrialEnd(number, "KILLED"))
        return None

    def _reported(
        self, job_id: str, baseline: Baseline, report: EpochReport, say: Callable[[str], None]
    ) -> None:
        import time

        self._executor.answer(job_id, True)
        now = time.time_ns() // 1_000_000
        self._calls.put(self._tracker.log_epoch, report.number, report.epoch, report.metrics, now)
        seconds = duration(report.metrics["epoch_seconds"])
        accuracy = report.metrics["accuracy"]
        say(f"{baseline.name} epoch {report.epoch}: accuracy {accuracy:.4f} in {seconds}")

    def _returned(self, baseline: Baseline, result: ReproductionResult) -> ReproductionResult:
        metrics = {
            "test_accuracy": result.test_accuracy,
            "test_loss": result.test_loss,
            "published_test_accuracy": baseline.accuracy,
            "num_parameters": result.num_parameters,
            "training_seconds": result.training_seconds,
        }
        if baseline.loss is not None:
            metrics["published_test_loss"] = baseline.loss
        tags = {"sweeps.device": result.device, "sweeps.test_split_read": "true"}
        end = TrialEnd(result.number, "COMPLETE", metrics, tags)
        self._calls.put(self._tracker.end_trial, end)
        return result

    def _failed(
        self, number: int, baseline: Baseline, event: Raised, say: Callable[[str], None]
    ) -> None:
        reason = f"{event.kind}: {event.reason}"
        say(f"{baseline.name} failed: {reason}\n{event.details}")
        end = TrialEnd(
            number, "FAILED", {}, {"sweeps.reason": reason}, {"traceback.txt": event.details}
        )
        self._calls.put(self._tracker.end_trial, end)

    def _status(
        self,
        chosen: list[Baseline],
        results: dict[str, ReproductionResult],
        interrupts: Interrupts,
    ) -> int:
        if interrupts.received:
            return INTERRUPTED
        if len(results) < len(chosen):
            return FAILED
        published = [b for b in chosen if b.dataset == self._data.name]
        as_published = self._settings.num_epochs is None
        off = [b for b in published if abs(_difference(b, results[b.name])) > TOLERANCE_POINTS]
        return FAILED if off and as_published else DONE


def print_comparison(
    chosen: list[Baseline], results: dict[str, ReproductionResult], dataset: str
) -> None:
    """The table of published against reproduced test accuracy and loss; differences in points."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(
        Column("baseline", no_wrap=True), "parameters", "published", "reproduced", "points",
        "published loss", "reproduced loss", "difference", Column("time", no_wrap=True),
        box=box.SIMPLE_HEAD, title=f"Test accuracy on {dataset}", title_justify="left",
    )  # fmt: skip
    for baseline in chosen:
        result = results.get(baseline.name)
        if result is None:
            table.add_row(baseline.name, "", f"{baseline.accuracy:.4f}", "not trained")
            continue
        loss = "" if baseline.loss is None else f"{baseline.loss:.4f}"
        gap = "" if baseline.loss is None else f"{result.test_loss - baseline.loss:+.4f}"
        table.add_row(
            baseline.name,
            f"{result.num_parameters:,}",
            f"{baseline.accuracy:.4f}",
            f"{result.test_accuracy:.4f}",
            f"{_difference(baseline, result):+.2f}",
            loss,
            f"{result.test_loss:.4f}",
            gap,
            duration(result.training_seconds),
        )
    Console(width=None if Console().is_terminal else 120).print(table)
    if any(baseline.dataset != dataset for baseline in chosen):
        print(f"The published figures are those on mnist; {dataset} is another data set.")


def _difference(baseline: Baseline, result: ReproductionResult) -> float:
    """Reproduced minus published test accuracy, in percentage points."""
    return 100.0 * (result.test_accuracy - baseline.accuracy)


def _say(text: str) -> None:
    print(text, flush=True)
