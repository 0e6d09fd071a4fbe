"""The table of published against reproduced figures, on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

from sweeps.baselines.report import BaselinesReport
from sweeps.baselines.session import BaselinesResult
from sweeps.cli.exit_codes import EXIT_CODES, FAILED
from sweeps.formatting import duration, in_work_dir
from sweeps.outcome import Outcome
from sweeps.reporting.console import table_console, warn
from tracking.addresses import redacted
from tracking.stores import resolve_uri, ui_command


def print_baselines(result: BaselinesResult, say: Callable[[str], None]) -> int:
    """Prints the table, what failed and what comes next; returns the exit status."""
    settings = result.file.settings
    print_report(result.report)
    for line in result.problems:
        warn(line)
    if result.outcome is Outcome.FAILED:
        for line in [result.error] if result.error else result.report.problems():
            print(f"error: {line}", file=sys.stderr)
    lines: list[str] = []
    uri, where = resolve_uri(settings.tracking_uri), in_work_dir(settings.work_dir)
    if result.outcome is Outcome.INTERRUPTED or result.error:
        lines.append(f"keras-sweeps run --baselines-only --resume --name {settings.name}{where}")
    if settings.offline:
        lines.append(f"keras-sweeps sync {settings.name}{where}   # send it all to {redacted(uri)}")
    command = ui_command(uri)
    if command:
        lines.append(f"{command}   # the curves, in experiment {settings.experiment}")
    if lines:
        say("\nNext:")
    for line in lines:
        say(f"  {line}")
    lost = result.outcome is Outcome.DONE and not result.recorded
    return FAILED if lost else EXIT_CODES[result.outcome]


def print_report(report: BaselinesReport) -> None:
    """Prints test accuracy and loss as published and as reproduced; differences in points."""
    from rich import box
    from rich.table import Column, Table

    table = Table(
        Column("baseline", no_wrap=True), "parameters", "published", "reproduced", "points",
        "published loss", "reproduced loss", "difference", Column("time", no_wrap=True),
        box=box.SIMPLE_HEAD, title=f"Test accuracy on {report.dataset}", title_justify="left",
    )  # fmt: skip
    for baseline in report.chosen:
        result = report.median(baseline)
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
            f"{result.difference_points(baseline):+.2f}",
            loss,
            f"{result.test_loss:.4f}",
            gap,
            duration(result.training_seconds),
        )
    table_console().print(table)
    for name, seeds in report.results.items():
        if len(seeds) > 1:
            values = ", ".join(f"{seed.test_accuracy:.4f}" for seed in seeds)
            print(f"{name}: the median of {len(seeds)} seeds is shown ({values}).")
    if any(baseline.dataset != report.dataset for baseline in report.chosen):
        dataset = report.dataset
        print(f"The published figures are those on mnist; {dataset} is another data set.")
