"""`compare`: several sweeps side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from search_spaces.errors import InputError
from sweeps.cli.exit_codes import DONE
from sweeps.cli.shared_options import add_place_options, recorded_named
from sweeps.engines.base import TrialState
from sweeps.formatting import difference_text, duration, moment, param_text
from sweeps.history.differences import differing_settings
from sweeps.history.recorded_sweep import RecordedSweep
from sweeps.history.references import recorded_references
from sweeps.reporting.console import say, table_console, warn

DESCRIPTION = "Compare sweeps: what each found, what it took, and which settings differ."
EXAMPLES = """
examples:
  {prog} monday tuesday
  {prog} monday tuesday wednesday
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `compare`."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="two sweeps or more")
    add_place_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    if len(set(arguments.names)) < 2:
        raise InputError(
            f"compare needs two sweeps or more. Received: {' '.join(arguments.names)}. "
            "`keras-sweeps list` shows what there is; `keras-sweeps show NAME` shows one."
        )
    sweeps = [recorded_named(arguments, name) for name in dict.fromkeys(arguments.names)]
    _print_comparison(sweeps)
    return DONE


def _print_comparison(sweeps: list[RecordedSweep]) -> None:
    from rich import box
    from rich.table import Table

    table = Table("", *(sweep.name for sweep in sweeps), box=box.SIMPLE_HEAD)
    rows: dict[str, Callable[[RecordedSweep], str]] = {
        "state": lambda sweep: sweep.state,
        "task": lambda sweep: sweep.task,
        "objective": lambda sweep: sweep.objective.metric,
        "best": _best_value,
        "best trial": lambda sweep: sweep.best.name if sweep.best else "-",
        "trials": lambda sweep: str(len(sweep.trained)),
        "in full": lambda sweep: str(len(sweep.ranking())),
        "failed": lambda sweep: str(sweep.num_in(TrialState.FAILED)),
        "took": lambda sweep: duration(sweep.seconds),
        "to its best": _time_to_best,
        "seed": lambda sweep: str(sweep.file.settings.seed),
        "began": lambda sweep: moment(sweep.begun_ms),
    }
    for label, text in rows.items():
        table.add_row(label, *(text(sweep) for sweep in sweeps))
    for name, values in differing_settings(sweeps).items():
        table.add_row(name, *("-" if value is None else param_text(value) for value in values))
    table_console(heeds_columns=True).print(table)
    for sweep in sweeps:
        if sweep.best:
            point = difference_text(sweep.best.params, recorded_references(sweep))
            say(f"best of {sweep.name}: {point}")
    same = {(s.file.data_fingerprint, s.objective.metric) for s in sweeps}
    if len(same) > 1:
        warn("these sweeps have other data or another objective: their values do not compare")
    elif len([sweep for sweep in sweeps if sweep.best]) > 1:
        say(
            "\nBest values are each of one training, picked among many: `keras-sweeps finalize` "
            "compares points on fresh seeds."
        )


def _best_value(sweep: RecordedSweep) -> str:
    value = sweep.best.value(sweep.objective) if sweep.best else None
    return "-" if value is None else f"{value:.4f}"


def _time_to_best(sweep: RecordedSweep) -> str:
    if sweep.best is None or not sweep.best.stretches:
        return "-"
    end = sweep.best.stretches[-1][1] or sweep.latest_ms
    return duration((end - sweep.begun_ms) / 1000)
