"""The table of a final comparison, for the terminal and for MLflow. Pure."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.data.prepared import PreparedData
from pipelines.objectives import OBJECTIVES, Objective
from search_spaces.registry import all_baselines
from sweeps.driver.board.leaderboard import param_columns
from sweeps.finalists.estimates import ANY, CONFIDENCE, Estimate, RankedFinalist, Scale, estimate
from sweeps.finalists.selection import FinalistsFile
from sweeps.formatting import count, params_text
from tracking.markdown_text import literal
from tracking.views.links import charts_here, table_here, trials_view

WIDTH = 100
"""Columns of the text, which is an artifact, too."""
NUM_NOTED = 10
"""Finalists in the note of a run."""


def scale_of(metric: str, num_images: int) -> Scale:
    """What values of a metric over so many images can be; nobody knows of one of the user's own."""
    if metric not in OBJECTIVES:
        return ANY
    if metric.endswith("loss"):
        return Scale(low=0.0)
    return Scale(1 / num_images if metric.endswith("accuracy") else 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Compared:
    """A comparison with its result.

    Attributes:
        ranking: the finalists, best first.
        tests: finalist -> the test accuracy of each of its models.
        left_out: why finalists are not among them, a line each.
        chosen: the training whose model is kept.
        chosen_metrics: what that model reached.
    """

    file: FinalistsFile
    objective: Objective
    data: PreparedData
    ranking: Sequence[RankedFinalist]
    tests: Mapping[int, Sequence[float]]
    left_out: Sequence[str]
    chosen: int
    chosen_metrics: Mapping[str, float]

    def test(self, key: int) -> Estimate:
        """A finalist's test accuracy over its seeds."""
        scale = scale_of("test_accuracy", self.data.num_images["test"])
        return estimate(self.tests[key], scale=scale)


def finalists_columns(found: Compared) -> tuple[dict[str, list[object]], dict[str, float]]:
    """The table by columns, best first, and the winner's figures as metrics."""
    file, ranking = found.file, found.ranking
    names = ("mean", "sd", "low", "high")
    columns: dict[str, list[object]] = {
        "rank": list(range(1, len(ranking) + 1)),
        "trial": [file.finalists[s.key].trial for s in ranking],
        "probability_best": [s.probability_best for s in ranking],
        "num_seeds": [s.estimate.num for s in ranking],
        "params": [params_text(file.finalists[s.key].params) for s in ranking],
        **param_columns([file.finalists[s.key].params for s in ranking]),
    }
    measured = {
        found.objective.metric: [s.estimate for s in ranking],
        "test_accuracy": [found.test(s.key) for s in ranking],
    }
    metrics = {
        "winner_probability_best": ranking[0].probability_best,
        "winner_num_seeds": float(ranking[0].estimate.num),
    }
    for metric, estimates in measured.items():
        for name in names:
            columns[f"{metric}_{name}"] = [getattr(e, name) for e in estimates]
            metrics[f"winner_{metric}_{name}"] = float(getattr(estimates[0], name))
    return columns, metrics


def finalists_note(found: Compared) -> str:
    """The winner and the table as the note of the comparison's run, in Markdown."""
    winner = found.file.finalists[found.ranking[0].key].name
    metric = literal(found.objective.metric)
    rows = []
    for ranked in found.ranking[:NUM_NOTED]:
        (mean, interval), (test, _) = _cells(ranked.estimate), _cells(found.test(ranked.key))
        name = literal(found.file.finalists[ranked.key].name)
        rows.append(f"| {name} | {mean} ({interval}) | {test} | {ranked.probability_best:.0%} |")
    view = trials_view(found.file.uid)
    return "\n".join(
        [
            f"**On fresh seeds {literal(winner)} won.**", "",
            f"| finalist | mean {metric} ({CONFIDENCE:.0%} interval) | test accuracy "
            "| probability best |",
            "| --- | --- | --- | --- |", *rows, "",
            f"[Table of the trainings]({table_here(view)}) · [Charts]({charts_here(view)})",
        ]
    )  # fmt: skip


def render_report(found: Compared) -> str:
    """The report as text."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    file, ranking = found.file, found.ranking
    interval = f"{CONFIDENCE:.0%} interval"
    table = Table(
        "#", Column("configuration", no_wrap=True),
        Column(found.objective.metric, overflow="fold"), interval, "sd",
        "P(best)", "test accuracy", interval, "n", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
        title_justify="left",
        title=f"Finalists: {count(len(file.finalists), 'configuration')} x "
        f"{count(file.num_seeds, 'fresh seed')}, {count(file.num_epochs, 'epoch')} each",
    )  # fmt: skip
    for rank, finalist in enumerate(ranking, start=1):
        table.add_row(
            str(rank), file.finalists[finalist.key].name, *_cells(finalist.estimate),
            f"{finalist.estimate.sd:.4f}{'*' * finalist.estimate.is_least}",
            f"{finalist.probability_best:.0%}", *_cells(found.test(finalist.key)),
            str(finalist.estimate.num),
        )  # fmt: skip
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, markup=False, force_jupyter=False, color_system=None)
    console.print(table)
    for line in _sentences(found):
        console.print(line, highlight=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _sentences(found: Compared) -> list[str]:
    file, key = found.file, found.ranking[0].key
    winner, test = file.finalists[key], found.test(key)
    lines = [f"Left out: {line}." for line in found.left_out]
    if any(finalist.estimate.is_least for finalist in found.ranking):
        images = found.data.num_images["validation"]
        lines.append(
            "* The seeds differ by less than one image, so this is the least sd of values that are "
            f"rounded to one of {images:,} validation images."
        )
    lines.append(
        f"Winner: {winner.name}. Its test accuracy is {test.mean:.4f} ({test.low:.4f} to "
        f"{test.high:.4f}, n = {test.num}); its search had shown {found.objective.metric} "
        f"{winner.value:.4f} (n = 1)."
    )
    # Normal approximation of the binomial: how far another test split of this size would be.
    num = found.data.num_images["test"]
    half = 1.96 * math.sqrt(test.mean * (1 - test.mean) / num)
    lines.append(
        f"The intervals are over seeds, on the same images. That there are {num:,} test images "
        f"adds about +-{half:.4f}."
    )
    figure = f"test accuracy {found.chosen_metrics['test_accuracy']:.4f}"
    kind = "trained on all data" if found.chosen == file.retrained_number else "of the median seed"
    lines.append(f"Its model is kept: {kind}, {figure}.")
    published = [b for b in all_baselines() if b.dataset == found.data.name]
    if published:
        figures = ", ".join(f"{b.name} {b.accuracy:.4f}" for b in published)
        lines.append(f"Published test accuracies: {figures}.")
    return lines


def _cells(found: Estimate) -> tuple[str, str]:
    return f"{found.mean:.4f}", f"{found.low:.4f} to {found.high:.4f}"
