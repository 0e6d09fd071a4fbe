"""What a person sees of a promotion, and of a model's history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.models.scoring import Score
from sweeps.promotion.gate import Rule
from sweeps.reporting.console import say, table_console
from tracking.addresses import redacted
from tracking.stores import DEFAULT_URI

if TYPE_CHECKING:
    from sweeps.promotion.promotion import PromotionResult
    from tracking.models.registry import Reign


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


def print_result(result: PromotionResult, uri: str) -> None:
    """How it ended, and the commands that use a new champion."""
    if result.text:
        say(result.text)
    if result.changed:
        _print_serving(uri, result.name)


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


def _print_serving(uri: str, name: str) -> None:
    where = "" if uri == DEFAULT_URI else f" --tracking-uri {redacted(uri)}"
    print("\nNext:")
    print(f"  keras-sweeps predict IMAGE... --model '{name}@champion'{where}")
    print(f"  MLFLOW_TRACKING_URI={redacted(uri)} mlflow models serve -m 'models:/{name}@champion' "
          "--env-manager local")  # fmt: skip


def print_history(name: str, reign: Reign) -> None:
    """Every change of champion, the latest first."""
    from rich import box
    from rich.table import Table

    now = "no champion" if reign.alias is None else f"champion is version {reign.alias}"
    table = Table(
        "#", "when", "champion", "before", "how", "by", "why", box=box.SIMPLE_HEAD,
        title=f"{name}: {now}", title_justify="left",
    )  # fmt: skip
    for entry in reversed(reign.history):
        when = f"{datetime.fromtimestamp(entry.at_ms / 1000):%Y-%m-%d %H:%M:%S}"
        before = f"version {entry.previous}" if entry.previous is not None else "none"
        table.add_row(
            str(entry.generation), when, f"version {entry.version}", before, entry.kind, entry.by,
            entry.why,
        )  # fmt: skip
    table_console().print(table)
    if reign.moved:
        was = reign.history[-1].version
        print(f"The alias was moved by other means since: it was version {was}.")
