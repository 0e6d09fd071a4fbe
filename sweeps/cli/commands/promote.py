"""`promote`: a sweep's winner becomes the champion if it is better; history; rollback."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.models.scoring import Score
from pipelines.runtime.compute import installed_backends
from search_spaces.errors import InputError
from sweeps.cli.exit_codes import DONE, EXIT_CODES
from sweeps.cli.notification import Notifier, add_notify_option, notifier_of
from sweeps.cli.shared_options import argument_type
from sweeps.interrupts import Interrupts
from sweeps.option_values import fraction, level, margin, path, positive_int, positive_number
from sweeps.promotion.gate import DEFAULT_ALPHA, Limits, Rule
from sweeps.promotion.start import check_reason, exclusive, promote
from sweeps.reporting.console import say, table_console
from tracking.addresses import redacted
from tracking.stores import DEFAULT_URI, check_existing_store, resolve_uri

if TYPE_CHECKING:
    from sweeps.promotion.promotion import PromotionResult
    from tracking.models.registry import ChampionHistory, Registry

DESCRIPTION = (
    "Register a model, and make it the champion if it is better than the present champion."
)
EXAMPLES = """
examples:
  {prog} nightly
  {prog} nightly --min-accuracy 0.99 --max-latency-ms 20 --dry-run
  {prog} 3f2a9c0d5b6e47a18c9d0e1f2a3b4c5d --model digits
  {prog} nightly --force 'the old one was trained on wrong labels'
  {prog} --history
  {prog} --rollback
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `promote`."""
    add = parser.add_argument
    add(
        "name",
        nargs="?",
        metavar="NAME",
        help="a sweep (its winner is promoted) or a run's id (default: the latest sweep)",
    )
    add("--model", metavar="NAME", help="the registered model (default: from space and data set)")
    add(
        "--tracking-uri", metavar="URI", help="MLflow server or database (default: the sweep's own)"
    )
    add(
        "--work-dir",
        type=argument_type(path),
        default=".sweeps",
        metavar="DIR",
        help="prepared data, and the sweeps' own files (default: %(default)s)",
    )
    add("--dry-run", action="store_true", help="compare and print the decision; write nothing")
    test = parser.add_argument_group("checks")
    test.add_argument(
        "--alpha",
        type=argument_type(level),
        default=DEFAULT_ALPHA,
        metavar="P",
        help="significance level of McNemar's exact test that the candidate is better "
        "(default: %(default)s)",
    )
    test.add_argument(
        "--margin",
        type=argument_type(margin),
        default=None,
        metavar="X",
        help="require that accuracy is at most X lower (95%% interval) instead of higher, for a "
        "smaller or faster model",
    )
    limit = test.add_argument
    share, count = argument_type(fraction), argument_type(positive_int)
    limit("--min-accuracy", type=share, metavar="X", help="minimum test accuracy, 0 to 1")
    limit("--max-recall-drop", type=share, metavar="X",
          help="maximum drop of any class's recall below the champion's")  # fmt: skip
    limit("--max-latency-ms", type=argument_type(positive_number), metavar="MS",
          help="maximum median latency for one image on this machine")  # fmt: skip
    limit("--max-parameters", type=count, metavar="N", help="maximum number of parameters")
    limit("--max-bytes", type=count, metavar="N", help="maximum size of the model file")
    limit("--force", metavar="WHY",
          help="promote even if checks fail; WHY and your user name are recorded")  # fmt: skip
    look = parser.add_argument_group("champions")
    look.add_argument("--history", action="store_true", help="list every change of champion")
    look.add_argument(
        "--rollback",
        nargs="?",
        const="asked for",
        metavar="WHY",
        help="make the previous champion the champion again",
    )
    add_notify_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    _check_together(arguments)
    notifier = notifier_of(arguments)
    if arguments.history or arguments.rollback is not None:
        uri = resolve_uri(arguments.tracking_uri)
        check_existing_store(uri)
        from tracking.errors import store_errors

        with store_errors(uri):
            return _champions(arguments, uri, notifier)
    with Interrupts() as interrupts:
        result = promote(
            arguments.name,
            interrupts,
            PrintedPromotion(),
            model=arguments.model,
            tracking_uri=arguments.tracking_uri,
            work_dir=Path(arguments.work_dir),
            limits=_limits(arguments),
            force=arguments.force,
            dry_run=arguments.dry_run,
        )
    print_result(result)
    if not arguments.dry_run:
        _tell(notifier, result)
    return EXIT_CODES[result.outcome]


def _tell(notifier: Notifier, result: PromotionResult) -> None:
    """Tells how a promotion ended, whatever that was."""
    document = {
        "outcome": result.outcome.value,
        "model": result.name,
        "version": result.version,
        "is_new_champion": result.changed,
        "tracking_uri": redacted(result.tracking_uri),
    }
    notifier.tell("promotion", result.text or f"{result.name}: {result.outcome.value}", document)


def _limits(arguments: argparse.Namespace) -> Limits:
    return Limits(
        alpha=arguments.alpha,
        margin=arguments.margin,
        min_accuracy=arguments.min_accuracy,
        max_latency_ms=arguments.max_latency_ms,
        max_parameters=arguments.max_parameters,
        max_bytes=arguments.max_bytes,
        max_recall_drop=arguments.max_recall_drop,
    )


def _check_together(arguments: argparse.Namespace) -> None:
    """Raises InputError for options that exclude each other or are empty."""
    looks = arguments.given & {"history", "rollback"}
    others = arguments.given - {
        "history", "rollback", "model", "tracking_uri", "work_dir", "notify",
    }  # fmt: skip
    if len(looks) > 1 or (looks and others):
        names = ", ".join(
            option if option == "name" else f"--{option.replace('_', '-')}"
            for option in sorted(looks | others)
        )
        raise InputError(
            "--history and --rollback go with --model, --tracking-uri and --work-dir only. "
            f"Received: {names}. Leave the others out."
        )
    check_reason("rollback", arguments.rollback)
    if {"alpha", "margin"} <= arguments.given:
        raise exclusive("alpha", "margin")


def _champions(arguments: argparse.Namespace, uri: str, notifier: Notifier) -> int:
    from tracking.models.registry import Registry

    registry = Registry(uri)
    name = arguments.model or _only_model(registry, uri)
    if arguments.rollback is not None:
        from sweeps.promotion.rollback import roll_back

        with Interrupts() as interrupts:
            result = roll_back(uri, registry, name, arguments.rollback, interrupts)
        print_result(result)
        _tell(notifier, result)
        return EXIT_CODES[result.outcome]
    history = registry.champion_history(name)
    if not history.changes:
        if history.alias is None:
            why = "never had a champion: no model was promoted under that name"
        else:
            why = f"has version {history.alias} as champion, set outside keras-sweeps: no history"
        raise InputError(f"'{name}' {why}.")
    print_history(name, history)
    return DONE


def _only_model(registry: Registry, uri: str) -> str:
    names = registry.names()
    if len(names) != 1:
        if not names:
            raise InputError(
                f"No model has been promoted in {redacted(uri)} yet. `keras-sweeps promote` does."
            )
        raise InputError(
            f"{redacted(uri)} has several registered models: {', '.join(names)}. Name one with "
            "--model."
        )
    return names[0]


class PrintedPromotion:
    """Prints what happens while a promotion runs."""

    def say(self, text: str) -> None:
        """Prints the line."""
        say(text)

    def compared(self, candidate: Score, champion: Score | None) -> None:
        """Prints the two models side by side on the test split."""
        _print_comparison(candidate, champion)

    def judged(self, rules: Sequence[Rule]) -> None:
        """Prints one line per rule of the gate."""
        print("gate")
        for rule in rules:
            print(f"  {'passed ' if rule.passed else 'REFUSED'}  {rule.name}: {rule.text}")


def print_result(result: PromotionResult) -> None:
    """How it ended, and the commands that use a new champion."""
    if result.text:
        say(result.text)
    if result.changed:
        _print_serving(result.tracking_uri, result.name, result.backend)


def _print_comparison(candidate: Score, champion: Score | None) -> None:
    from rich import box
    from rich.table import Table

    columns = ["test split", "candidate"] + (["champion"] if champion else [])
    table = Table(*columns, box=box.SIMPLE_HEAD)
    scores = [candidate] + ([champion] if champion else [])
    for name, cells in (
        ("accuracy", [f"{s.accuracy:.4f}" for s in scores]),
        ("loss", [f"{s.loss:.4f}" for s in scores]),
        ("lowest recall of a class", [f"{min(s.recalls):.4f}" for s in scores]),
        ("one image, warm", [f"{s.latency_ms:.2f} ms" for s in scores]),
        ("parameters", [f"{s.num_parameters:,}" for s in scores]),
        ("file", [f"{s.num_bytes:,} bytes" for s in scores]),
    ):
        table.add_row(name, *cells)
    table_console().print(table)


def _print_serving(uri: str, name: str, trained_on: str) -> None:
    where = "" if uri == DEFAULT_URI else f" --tracking-uri {shlex.quote(redacted(uri))}"
    there = installed_backends()
    # Its own, on which it predicts what was measured; a model of one backend runs on each.
    served_on = trained_on if trained_on in there or not there else there[0]
    backend = "" if served_on == "tensorflow" else f"KERAS_BACKEND={served_on} "
    print("\nNext:")
    print(f"  keras-sweeps predict IMAGE... --model '{name}@champion'{where}")
    print(f"  {backend}MLFLOW_TRACKING_URI={shlex.quote(redacted(uri))} mlflow models serve "
          f"-m 'models:/{name}@champion' --env-manager local")  # fmt: skip


def print_history(name: str, history: ChampionHistory) -> None:
    """Every change of champion, the latest first."""
    from rich import box
    from rich.table import Table

    now = "no champion" if history.alias is None else f"champion is version {history.alias}"
    table = Table(
        "#", "when", "champion", "before", "how", "by", "why", box=box.SIMPLE_HEAD,
        title=f"{name}: {now}", title_justify="left",
    )  # fmt: skip
    for entry in reversed(history.changes):
        when = f"{datetime.fromtimestamp(entry.at_ms / 1000):%Y-%m-%d %H:%M:%S}"
        before = f"version {entry.previous}" if entry.previous is not None else "none"
        table.add_row(
            str(entry.generation), when, f"version {entry.version}", before, entry.kind, entry.by,
            entry.why,
        )  # fmt: skip
    table_console().print(table)
    if history.moved:
        was = history.changes[-1].version
        print(f"The alias was set outside keras-sweeps since then: it was version {was}.")
