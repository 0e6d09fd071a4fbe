"""Spaces as tables, without importing Keras or Optuna."""

from __future__ import annotations

from rich import box
from rich.table import Table

from search_spaces.registry import SPACES
from search_spaces.space import Space
from sweeps.formatting import param_text, params_text
from sweeps.reporting.console import table_console


def print_spaces() -> None:
    """One line per space."""
    table = Table("space", "parameters", "baselines", "what it varies", box=box.SIMPLE_HEAD)
    for space in SPACES.values():
        names = ", ".join(baseline.name for baseline in space.baselines)
        table.add_row(space.name, str(len(space.parameters)), names, space.summary)
    table_console().print(table)


def print_space(space: Space) -> None:
    """Parameters with ranges, defaults and conditions, then the published baselines."""
    console = table_console()
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
