"""Spaces as tables, without importing Keras or Optuna."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from search_spaces.hyperparameters.narrowing import narrowed
from search_spaces.registry import SPACES, get_space, stored_name
from search_spaces.space import Shape, Space
from search_spaces.user_spaces.reference import is_reference
from sweeps.formatting import param_text, params_text
from sweeps.settings import SweepSettings
from sweeps.setup.data import prepare_data
from sweeps.setup.space import open_space

NOMINAL: tuple[Shape, int] = ((28, 28, 1), 10)
"""What a user's space is described for where no data set is named: MNIST's pictures."""


def print_spaces() -> None:
    """One line per space."""
    table = Table("space", "parameters", "baselines", "what it varies", box=box.SIMPLE_HEAD)
    for space in SPACES.values():
        names = ", ".join(baseline.name for baseline in space.baselines)
        table.add_row(space.name, str(len(space.parameters)), names, space.summary)
    _console().print(table)


def print_space(settings: SweepSettings, name: str) -> None:
    """Parameters with ranges, defaults and conditions, then the published baselines.

    Args:
        settings: for the rules that narrow the space, and the data that a user's space is made for.

    Raises:
        InputError: Unknown space, or one that cannot be narrowed so.
    """
    space = _opened(replace(settings, space=stored_name(name)))
    console = _console()
    table = Table(
        "parameter", "range", "default", "active when",
        box=box.SIMPLE_HEAD, title=f"Space {space.name}: {space.summary}", title_justify="left",
    )  # fmt: skip
    for parameter in space.parameters:
        table.add_row(
            parameter.name,
            parameter.range_text(),
            param_text(parameter.default),
            parameter.condition_text() or "always",
        )
    console.print(table)
    if space.image_size_note:
        console.print(space.image_size_note, highlight=False)
    for note in space.notes:
        console.print(f"WARNING: {note}", highlight=False)
    if space.baselines:
        console.print(_baselines(space))
    for names, params in space.distinct_baselines():
        console.print(f"{' = '.join(names)}: {params_text(params)}", highlight=False)


def _opened(settings: SweepSettings) -> Space:
    if not is_reference(settings.space):
        return narrowed(get_space(settings.space), settings.narrowing)
    shape, num_classes = NOMINAL
    if settings.dataset is not None:
        data = prepare_data(
            settings.dataset, Path(settings.work_dir) / "data", settings.image_options
        )
        shape, num_classes = data.input_shape, data.num_classes
    return open_space(
        settings.space, settings.narrowing, shape, num_classes, settings.training.backend
    )


def _baselines(space: Space) -> Table:
    table = Table(
        "baseline", "epochs", "trained on", "published test accuracy", "published test loss",
        box=box.SIMPLE_HEAD, title="\nPublished baselines (MNIST)", title_justify="left",
    )  # fmt: skip
    for baseline in space.baselines:
        loss = "" if baseline.loss is None else f"{baseline.loss:.4f}"
        table.add_row(
            baseline.name,
            str(baseline.num_epochs),
            baseline.train_on,
            f"{baseline.accuracy:.4f}",
            loss,
        )
    return table


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 120, markup=False)
