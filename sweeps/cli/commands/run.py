"""`run`: one line to a finished sweep."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import InputError
from search_spaces.registry import stored_name
from sweeps.cli.run_options import SETTING_OF, add_options, settings_from
from sweeps.settings import (
    SweepSettings,
)

if TYPE_CHECKING:
    from search_spaces.space import Shape, Space

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
  {prog} --space cnn --describe
  {prog} --baselines-only
"""
NOMINAL: tuple[Shape, int] = ((28, 28, 1), 10)
"""What a user's space is described for where no data set is named: MNIST's pictures."""


def check(arguments: argparse.Namespace) -> None:
    """Raises InputError for settings that break a rule; looks at nothing but them and the data."""
    settings = settings_from(arguments)
    if arguments.space is not None and not arguments.baselines_only:
        settings.validate(resumed=arguments.resume)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    if arguments.list_spaces or arguments.describe is not None:
        return _look(arguments)
    if arguments.config_schema:
        return _print_schema()
    if arguments.dry_run and (arguments.resume or arguments.baselines_only):
        other = "--resume" if arguments.resume else "--baselines-only"
        raise InputError(f"--dry-run and {other} exclude each other. Leave one out.")
    if arguments.baselines_only:
        return _baselines(arguments)
    if arguments.space is None and not arguments.resume:
        raise InputError(
            "--space is required. Name one: --space cnn or --space mlp; --list-spaces tells more."
        )
    settings = settings_from(arguments)
    given = {SETTING_OF.get(name, name) for name in arguments.given}
    if arguments.space is not None:
        # A name may be that of a sweep which goes on, and its source may have moved.
        settings.validate(resumed=arguments.resume or "name" in given)
    if arguments.write_config:
        return _write_config(settings, given, resume=arguments.resume)
    if arguments.dry_run:
        from sweeps.setup.dry_run import dry_run

        return dry_run(settings)
    from sweeps.setup.start import Start, run_sweep

    start = Start(given, arguments.resume, arguments.accept_changes, arguments.quiet)
    return run_sweep(settings, start)


def _print_schema() -> int:
    import json

    from sweeps.cli.config_file import config_schema
    from sweeps.cli.main import make_parser

    print(json.dumps(config_schema(make_parser("run")), indent=1))
    return 0


def _write_config(settings: SweepSettings, given: set[str], *, resume: bool) -> int:
    """Prints the settings of a new sweep, or of the one that would be resumed."""
    from sweeps.cli.resolved_config import resolved_config
    from sweeps.setup.data import sweep_data
    from sweeps.setup.resume import merged, sweep_to_resume

    earlier = sweep_to_resume(settings, given, resume=resume)
    if earlier is not None:
        settings = merged(earlier, settings, given, accept=True)
    settings.validate(resumed=earlier is not None)
    print(resolved_config(settings, sweep_data(settings, earlier)), end="")
    return 0


def _look(arguments: argparse.Namespace) -> int:
    from sweeps.reporting.space_tables import print_space, print_spaces

    if arguments.list_spaces:
        print_spaces()
        return 0
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
    return open_space(settings.space, settings.narrowing, shape, num_classes, settings.backend)


def _baselines(arguments: argparse.Namespace) -> int:
    from search_spaces.registry import get_space

    if arguments.no_baselines:
        raise InputError("--baselines-only and --no-baselines exclude each other. Leave one out.")
    if arguments.space is not None and get_space(arguments.space).reference:
        raise InputError(
            "--baselines-only trains published models. Received: --space "
            f"{arguments.space}, which has none. Name cnn or mlp, or leave it out."
        )
    if arguments.set or arguments.fix:
        raise InputError("--baselines-only trains models as published: leave --set and --fix out.")
    from sweeps.baselines.session import run_baselines

    return run_baselines(settings_from(arguments), arguments.space, quiet=arguments.quiet)
