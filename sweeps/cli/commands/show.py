"""`show`: a sweep, or one of its trials, in words and a table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from search_spaces.errors import InputError
from sweeps.cli.exit_codes import DONE
from sweeps.cli.shared_options import add_name, add_place_options, recorded_sweep, trial_number
from sweeps.formatting import count, difference_text, duration, moment, param_text
from sweeps.history.export import trial_row
from sweeps.history.listing import leader_of
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial
from sweeps.history.references import recorded_references
from sweeps.reporting.console import say, table_console, warn
from sweeps.state.sweep_file import FINISHED
from tracking.spool.records import now_ms
from tracking.tags import Tag

DESCRIPTION = "Show a sweep: how it stands, its best trials, and how they differ from the defaults."
EXAMPLES = """
examples:
  {prog}
  {prog} nightly
  {prog} nightly --trial 3
  {prog} nightly --all
"""
NUM_SHOWN = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `show`."""
    add_name(parser)
    add_place_options(parser)
    parser.add_argument("--trial", type=trial_number, metavar="N", help="show this trial alone")
    parser.add_argument("--all", action="store_true", help="list every trial, not the best ten")
    parser.add_argument("--json", action="store_true", help="print JSON instead")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    sweep = _read(arguments)
    if arguments.trial is not None and arguments.trial not in sweep.trials:
        there = f"0 to {max(sweep.trials)}" if sweep.trials else "none yet"
        raise InputError(
            f"Sweep '{sweep.name}' has no trial {arguments.trial}. There are: {there}."
        )
    if arguments.json:
        trials = list(sweep.trials.values())
        if arguments.trial is not None:
            trials = [sweep.trials[arguments.trial]]
        print(json.dumps([trial_row(sweep, trial) for trial in trials], indent=1))
    elif arguments.trial is not None:
        _print_trial(sweep, sweep.trials[arguments.trial])
    else:
        _print_sweep(sweep, None if arguments.all else NUM_SHOWN)
    return DONE


def _read(arguments: argparse.Namespace) -> RecordedSweep:
    """The sweep; of a server's, only what is printed."""
    if arguments.tracking_uri is None:
        return recorded_sweep(arguments)
    from sweeps.history.server import part_on_server

    best = None if arguments.all or arguments.json else NUM_SHOWN
    return part_on_server(
        arguments.tracking_uri, arguments.name, warn, best=best, trial=arguments.trial
    )


def _print_sweep(sweep: RecordedSweep, limit: int | None) -> None:
    from rich import box
    from rich.table import Table

    settings, metric = sweep.file.settings, sweep.objective.metric
    stopped = f" ({sweep.stopped_by})" if sweep.stopped_by and sweep.state != "running" else ""
    say(f"{sweep.name}: {sweep.task}, {sweep.state}{stopped}")
    took, is_over = duration(sweep.seconds_so_far(now_ms())), sweep.state == FINISHED
    took = f"took {took}" if is_over else f"{took} so far"
    say(f"began {moment(sweep.begun_ms)}, {took}, seed {settings.seed}")
    if sweep.note:
        say(f"note: {sweep.note}")
    _print_nodes(sweep)
    references = recorded_references(sweep)
    best = leader_of(sweep)
    if best is not None:
        value = best.value(sweep.objective)
        so_far = f" after epoch {best.epochs:.3g} of {best.num_epochs}" if value is None else ""
        reached = best.last_value(sweep.objective) if value is None else value
        say(f"best: {best.name}, {metric} {reached or 0:.4f}{so_far}")
        say(f"      {difference_text(best.params, references)}")
    rows = sweep.ordered()
    table = Table("trial", "state", metric, "epochs", "time", "parameters", box=box.SIMPLE_HEAD)
    for trial in rows[:limit]:
        reached = trial.value(sweep.objective)
        reached = trial.last_value(sweep.objective) if reached is None else reached
        table.add_row(
            str(trial.number), trial.state.value, "-" if reached is None else f"{reached:.4f}",
            f"{trial.epochs:.3g}/{trial.num_epochs}", duration(trial.seconds(now_ms())),
            difference_text(trial.params, references),
        )  # fmt: skip
    if rows:
        table_console(heeds_columns=True).print(table)
    num_trials = len(rows) + sweep.num_left_out
    if limit is not None and num_trials > limit:
        say(f"{count(num_trials - limit, 'more trial')}: --all lists them, --trial N shows one")


def _print_nodes(sweep: RecordedSweep) -> None:
    """The machines of a cluster that trials ran on."""
    if sweep.num_left_out:
        for name, text in sorted(sweep.nodes.items()):
            say(f"node {name}: {text}")
        if sweep.nodes:
            say("trials of each node, and those that moved: --all reads and counts them")
        return
    for name, text in sorted(sweep.nodes.items()):
        say(f"node {name}: {count(sweep.num_on(name), 'trial')}; {text}")
    moved, lost = sweep.moved
    if moved:
        say(f"{count(moved, 'trial')} moved to another node, {duration(lost)} of training lost")


def _moves_text(trial: RecordedTrial) -> str:
    """`2 times, 31 s of training lost: node a was lost`; empty for never."""
    moves = trial.tags.get(Tag.NUM_MOVES, "")
    if not moves:
        return ""
    lost = float(trial.tags.get(Tag.LOST_SECONDS, "0"))
    times = "once" if moves == "1" else f"{moves} times"
    return f"{times}, {duration(lost)} of training lost: {trial.tags.get(Tag.MOVE_REASON, '')}"


def _print_trial(sweep: RecordedSweep, trial: RecordedTrial) -> None:
    from rich import box
    from rich.table import Table

    say(f"{sweep.name}, {trial.name}: {trial.state.value}")
    if trial.reason:
        say(trial.reason)
    facts: dict[str, Any] = {
        "began": moment(trial.begun_ms),
        "time on slots": duration(trial.seconds(now_ms())),
        "epochs": f"{trial.epochs:.3g} of {trial.num_epochs}",
        "device": trial.tags.get(Tag.DEVICE, ""),
        "node": trial.tags.get(Tag.NODE, ""),
        "moved": _moves_text(trial),
        "seed": trial.tags.get(Tag.SEED, ""),
        "drawn from": trial.tags.get(Tag.PROPOSED_BY, ""),
        "MLflow run": trial.run_id,
    }
    _print_pairs({name: value for name, value in facts.items() if value})
    say(f"\nparameters: {difference_text(trial.params, recorded_references(sweep))}")
    _print_pairs(trial.params)
    if trial.reports:
        metrics = [name for name in trial.reports[-1].metrics if name != "epoch"]
        shown = [sweep.objective.metric, "val_loss", "accuracy", "loss", "learning_rate"]
        shown = [name for name in dict.fromkeys(shown) if name in metrics]
        table = Table("epoch", *shown, box=box.SIMPLE_HEAD)
        for report in trial.reports:
            values = [report.metrics.get(name) for name in shown]
            table.add_row(
                f"{report.epochs:.3g}",
                *("-" if value is None else f"{value:.4g}" for value in values),
            )
        table_console(heeds_columns=True).print(table)
    if trial.metrics:
        say("at its end:")
        _print_pairs(trial.metrics)


def _print_pairs(pairs: Mapping[str, Any]) -> None:
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        say(f"  {name:<{width}}  {param_text(value)}")
