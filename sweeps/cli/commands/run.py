"""`run`: one line to a finished sweep."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from search_spaces.errors import InputError
from search_spaces.registry import stored_name
from sweeps.cli.commands.finalize import output, print_comparison
from sweeps.cli.config_file import config_text
from sweeps.cli.exit_codes import EXIT_CODES, FAILED
from sweeps.cli.main import make_parser
from sweeps.cli.run_options import RESUME_AUTO, add_options, settings_from
from sweeps.options import settings_given
from sweeps.outcome import Outcome
from sweeps.reporting.console import say, speaker, warn
from sweeps.reporting.leaderboard import print_next_steps, print_summary
from sweeps.reporting.views import make_view
from sweeps.settings import FinalOptions, SweepSettings, check_name
from sweeps.setup.resolved import CONFIG_FILE, option_values
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import (
    BASELINES,
    SEARCH,
    StoredSweep,
    SweepFile,
    find_sweep,
    read_sweep_file,
)

if TYPE_CHECKING:
    from search_spaces.space import Shape, Space
    from sweeps.driver.search import SweepResult
    from sweeps.setup.start import StartedSweep
    from tracking.runs.tracker import MlflowTracker

__all__ = ["DESCRIPTION", "EXAMPLES", "add_options", "run"]
DESCRIPTION = "Search a space of image models; compare every trial in MLflow."
EXAMPLES = """
examples:
  {prog} --space cnn
  {prog} --space mlp --dataset digits --trials 20 --epochs 10
  {prog} --space cnn --dataset mnist --timeout 2h --trials 200 --name nightly
  {prog} --space cnn --target 'val_accuracy>=0.995' --max-total-epochs 100
  {prog} --space cnn --dataset photos/ --image-size 64x64 --objective val_macro_f1
  {prog} --space cnn --finalists 3 --finalist-seeds 5
  {prog} --space cnn --gpus 0,1 --trials-per-gpu 2
  {prog} --config sweep.yaml --seed 3
  {prog} --resume
  {prog} --space cnn --name nightly --resume auto
  {prog} --space cnn --describe
  {prog} --baselines-only
"""
NOMINAL: tuple[Shape, int] = ((28, 28, 1), 10)
"""What a user's space is described for where no data set is named: MNIST's images."""


def _given(arguments: argparse.Namespace) -> set[str]:
    """Names of the settings that the command line or the file holds."""
    return settings_given(arguments.given)


def check(arguments: argparse.Namespace) -> None:
    """Raises InputError for settings that break a rule; looks at nothing but them and the data."""
    settings = settings_from(arguments)
    if arguments.space is not None and not arguments.baselines_only:
        settings.validate(resumed=bool(arguments.resume))


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    if arguments.list_spaces or arguments.describe is not None or arguments.config_schema:
        return _look(arguments)
    if arguments.dry_run and (arguments.resume or arguments.baselines_only):
        other = "--resume" if arguments.resume else "--baselines-only"
        raise InputError(f"--dry-run and {other} exclude each other. Leave one out.")
    if arguments.baselines_only or arguments.dry_run or arguments.write_config:
        _check_no_result(arguments)
    if arguments.baselines_only:
        return _baselines(arguments)
    resume = arguments.resume is True
    if arguments.space is None and not resume:
        raise InputError(
            "--space is required, such as --space cnn or --space mlp. --list-spaces describes them."
        )
    settings = settings_from(arguments)
    given = _given(arguments)
    if arguments.resume == RESUME_AUTO:
        ended = _ended(settings, given)
        if ended is not None:
            return _tell_end(ended, arguments)
    if arguments.space is not None:
        from sweeps.setup.resume import in_names_of_now

        settings = in_names_of_now(settings, given, resume=resume)
        # A name may be that of a sweep which goes on, and its source may have moved.
        settings.validate(resumed=resume or "name" in given)
    if arguments.write_config:
        return _write_config(settings, given, resume=resume)
    if arguments.dry_run:
        return _dry_run(settings, objective_asked="objective" in given)
    return _run(settings, given, arguments)


def _ended(settings: SweepSettings, given: set[str]) -> StoredSweep | None:
    """The sweep of that name where it has ended.

    Raises:
        InputError: There is no name to know it by.
    """
    if settings.name is None or "name" not in given:
        raise InputError(
            "--resume auto needs the sweep's name, or every call would begin another one. Add "
            "--name NAME."
        )
    check_name(settings.name)
    paths = SweepPaths(Path(settings.work_dir).absolute(), settings.name)
    file = read_sweep_file(paths.state) if paths.state.exists() else None
    is_it = file is not None and file.kind == SEARCH and file.is_finished
    return StoredSweep(paths, file) if file is not None and is_it else None


def _tell_end(sweep: StoredSweep, arguments: argparse.Namespace) -> int:
    """Tells how a sweep has ended, and ends what was asked for after it; returns its status."""
    from sweeps.finalists.start import finalize_stored
    from sweeps.interrupts import Interrupts
    from sweeps.setup.resume import how_it_ended

    outcome, reason = how_it_ended(sweep.paths)
    say(f"{sweep.paths.name} has ended: {reason}")
    settings = sweep.file.settings
    if outcome is not Outcome.DONE or not settings.num_finalists:
        return EXIT_CODES[outcome]
    options = FinalOptions(settings.num_finalists, settings.num_finalist_seeds, settings.retrain)
    comparison = finalize_stored(sweep, options, output(quiet=arguments.quiet), Interrupts())
    return print_comparison(comparison, sweep)


def _check_no_result(arguments: argparse.Namespace) -> None:
    if arguments.result:
        raise InputError(
            f"--result is written by a search. Received: {arguments.result}, and no search. Leave "
            "it out."
        )


def _dry_run(settings: SweepSettings, *, objective_asked: bool) -> int:
    from sweeps.cli.dry_run_table import print_dry_run
    from sweeps.setup.dry_run import dry_run
    from sweeps.workers.start import JobFailedError

    try:
        found = dry_run(settings, say, objective_asked=objective_asked)
    except JobFailedError as error:
        print(f"{error.details}\nerror: {error}".lstrip(), file=sys.stderr)
        return FAILED
    print_dry_run(found)
    return EXIT_CODES[found.outcome]


def _run(settings: SweepSettings, given: set[str], arguments: argparse.Namespace) -> int:
    """Runs a sweep, or goes on with one, and what was asked for after it."""
    from sweeps.cli.notification import notifier_of
    from sweeps.cli.result_file import ResultFile
    from sweeps.finalists.start import run_sweep
    from sweeps.setup.resume import sweep_to_resume
    from sweeps.setup.start import Start

    earlier = sweep_to_resume(settings, given, resume=arguments.resume is True)
    if earlier is not None and earlier.kind == BASELINES:
        if arguments.space is None:
            _check_no_result(arguments)
            return _baselines(arguments, earlier)
        name = earlier.settings.name
        raise InputError(
            f"The name '{name}' belongs to a sweep of published models (--baselines-only). "
            f"Continue that one with --baselines-only --resume --name {name}, or choose another "
            "--name."
        )
    written = ResultFile(
        Path(arguments.result) if arguments.result else None, notifier_of(arguments)
    )
    start = Start(
        say=speaker(arguments.quiet),
        config=lambda settings, data: {CONFIG_FILE: resolved_config(settings, data)},
        given=given,
        earlier=earlier,
        accept_changes=arguments.accept_changes,
        began=written.began,
    )

    def print_search(result: SweepResult, started: StartedSweep) -> None:
        written.searched(result, started.tracker)
        written.status = _print_result(result, started.opened.settings, started.tracker)

    with written:
        result = run_sweep(settings, start, output(quiet=arguments.quiet), print_search)
        if result.comparison is not None:
            written.compared(result.comparison)
            written.status = print_comparison(result.comparison, result.sweep)
    return written.status


def _print_result(
    result: SweepResult, settings: SweepSettings, tracker: MlflowTracker | None
) -> int:
    """Prints what a sweep found, what failed and what comes next; returns the exit status."""
    print_summary(result.board, result.reason)
    if result.outcome is Outcome.FAILED:
        _print_failure(result)
    for line in result.problems:
        warn(line)
    print_next_steps(settings, result.board, tracker, unfinished=result.unfinished)
    lost = result.outcome is Outcome.DONE and not result.recorded
    return FAILED if lost else EXIT_CODES[result.outcome]


def _print_failure(result: SweepResult) -> None:
    trial = result.failed_trial
    if result.error:
        print(f"error: {result.error}", file=sys.stderr)
    elif trial is not None:
        print(trial.details.rstrip(), file=sys.stderr)
        print(f"error: no trial completed. Latest: {trial.reason}", file=sys.stderr)
    elif result.board.rows:
        print(
            "error: no trial completed within the limits. Raise --timeout or lower --epochs.",
            file=sys.stderr,
        )


def _print_schema() -> int:
    import json

    from sweeps.cli.config_file import config_schema

    print(json.dumps(config_schema(make_parser("run")), indent=1))
    return 0


def _write_config(settings: SweepSettings, given: set[str], *, resume: bool) -> int:
    """Prints the settings of a new sweep, or of the one that would be resumed."""
    from search_spaces.user_spaces.reference import is_reference
    from sweeps.setup.data import sweep_data
    from sweeps.setup.resume import merged, sweep_to_resume

    earlier = sweep_to_resume(settings, given, resume=resume)
    if earlier is not None and earlier.kind == BASELINES:
        raise InputError(
            f"'{earlier.settings.name}' trains the published models, so it has no settings of a "
            "search that --write-config could print. Name a search, or leave --resume out."
        )
    if earlier is not None:
        settings = merged(earlier, settings, given, accept=True)
    settings.validate(resumed=earlier is not None)
    values = option_values(settings, sweep_data(settings, earlier))
    if earlier is None and is_reference(settings.space) and "objective" not in given:
        values["objective"] = None  # Only its `fit`, which is not looked at here, decides it.
    print(config_text(make_parser("run"), values), end="")
    return 0


def _look(arguments: argparse.Namespace) -> int:
    from sweeps.reporting.descriptions import print_space, print_spaces

    if arguments.list_spaces:
        print_spaces()
        return 0
    if arguments.describe is None:
        return _print_schema()
    name = arguments.describe or arguments.space
    if not name:
        raise InputError("--describe needs a space. Name one: --describe cnn or --describe mlp.")
    print_space(_space_to_describe(replace(settings_from(arguments), space=stored_name(name))))
    return 0


def _space_to_describe(settings: SweepSettings) -> Space:
    """The space, narrowed by the settings' rules; a user's is made for their data set.

    Raises:
        InputError: Unknown space, or one that cannot be narrowed so.
    """
    from search_spaces.hyperparameters.narrowing import narrowed
    from search_spaces.registry import get_space
    from search_spaces.user_spaces.reference import is_reference
    from sweeps.setup.data import prepare_data
    from sweeps.setup.space import open_space

    if not is_reference(settings.space):
        return narrowed(get_space(settings.space), settings.narrowing)
    shape, num_classes = NOMINAL
    if settings.dataset is not None:
        data = prepare_data(
            settings.dataset, Path(settings.work_dir) / "data", settings.image_options
        )
        shape, num_classes = data.input_shape, data.num_classes
    training = settings.training
    return open_space(
        settings.space, settings.narrowing, shape, num_classes, training.compute, training.pixels,
        pass_env=settings.pass_env,
    )  # fmt: skip


def _check_baselines(arguments: argparse.Namespace) -> None:
    """Raises InputError for options that published models leave no room for."""
    from search_spaces.registry import get_space

    if arguments.resume == RESUME_AUTO:
        raise InputError("--resume auto is for searches: --baselines-only goes on with --resume.")
    if arguments.no_baselines:
        raise InputError("--baselines-only and --no-baselines exclude each other. Leave one out.")
    if arguments.space is not None and get_space(arguments.space).reference:
        raise InputError(
            f"Space {arguments.space} has no published models, so --baselines-only has nothing to "
            "train. Use --space cnn or mlp, or leave --space out."
        )
    if arguments.executor != "local":
        raise InputError(
            "--executor ray is for the trials of a search, and --baselines-only trains on this "
            "machine. Leave one out."
        )
    if arguments.set or arguments.fix:
        raise InputError("--baselines-only trains models as published: leave --set and --fix out.")


def _baselines(arguments: argparse.Namespace, earlier: SweepFile | None = None) -> int:
    """Trains the published models, or goes on with them, and prints the comparison."""
    from sweeps.baselines.session import BaselinesStart, reproduce_baselines
    from sweeps.cli.baseline_table import print_baselines
    from sweeps.setup.resume import sweep_to_resume

    _check_baselines(arguments)
    settings, given, quiet = settings_from(arguments), _given(arguments), arguments.quiet
    if earlier is None and arguments.resume is True:
        earlier = read_sweep_file(
            find_sweep(Path(settings.work_dir), settings.name, kind=BASELINES).state
        )
    elif earlier is None:
        named = sweep_to_resume(settings, given, resume=False)
        earlier = named if named is not None and named.kind == BASELINES else None
    start = BaselinesStart(
        speaker(quiet), partial(make_view, quiet), given, earlier, arguments.accept_changes
    )
    return print_baselines(reproduce_baselines(settings, start), speaker(quiet))


def resolved_config(settings: SweepSettings, data: PreparedData) -> str:
    """The file, with what depends on the data filled in; passwords in addresses are left out."""
    parser = make_parser("run")
    return config_text(parser, option_values(settings, data))
