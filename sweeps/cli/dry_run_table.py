"""What a dry run found out: the points with their cost, and the estimate."""

from __future__ import annotations

from rich import box
from rich.table import Column, Table

from sweeps.engines.pruners.registry import HALVING
from sweeps.formatting import count, duration, params_text
from sweeps.outcome import Outcome
from sweeps.reporting.console import table_console
from sweeps.setup.dry_run import DryRun

MAX_CAUSE = 300
MAX_POINT = 160
"""Characters of a point that are shown."""


def print_dry_run(found: DryRun) -> None:
    """Prints the table and the estimate; nothing after an interrupt."""
    if found.outcome is not Outcome.DONE:
        return
    right = {"justify": "right", "no_wrap": True}
    table = Table(
        "trial", Column("parameters", **right), Column("memory", **right),  # type: ignore[arg-type]
        Column("epoch", **right), "point",  # type: ignore[arg-type]
        box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for point in found.points:
        what = point.proposal.baseline or params_text(point.proposal.params)
        table.add_row(
            str(point.proposal.number),
            f"{point.cost.num_parameters:,}",
            f"{point.cost.memory_bytes / 2**20:.0f} MiB",
            duration(point.cost.epoch_seconds),
            what if len(what) <= MAX_POINT else f"{what[: MAX_POINT - 3]}...",
        )
    table_console().print(table)
    _print_failed(found)
    measured = f"(measured in {duration(found.measuring_seconds)})"
    print(f"\n{_estimate_text(found)} {measured}.")


def _print_failed(found: DryRun) -> None:
    """The points whose trials would fail, by what they raise."""
    causes: dict[str, list[int]] = {}
    for point in found.failed:
        said = " ".join(f"{point.failure.kind}: {point.failure.reason}".split())[:MAX_CAUSE]
        causes.setdefault(said, []).append(point.proposal.number)
    for cause, numbers in causes.items():
        names = ", ".join(map(str, numbers))
        print(f"{count(len(numbers), 'trial')} would fail ({names}): {cause}")


def _estimate_text(found: DryRun) -> str:
    text = f"about {duration(found.seconds)} for this sweep on this machine"
    epochs, pruner = found.num_epochs, found.settings.pruner
    if found.budget.num_trials is None:
        points = count(found.num_trials, "point")
        return f"{text}, which tries about {points}: {epochs:.0f} epochs in all"
    if found.is_cut:
        return f"{text}, where the time limit ends it before all of {epochs:.0f} epochs"
    if pruner in HALVING:
        return f"{text}: {epochs:.0f} epochs, as pruning of random curves would leave them"
    return f"{text}: {epochs:.0f} epochs" + (", if nothing is pruned" * (pruner != "none"))
