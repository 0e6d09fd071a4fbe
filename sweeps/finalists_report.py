"""The table of a final comparison, for the terminal and for MLflow. Pure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from pipelines.objectives import Objective
from search_spaces.registry import all_baselines
from sweeps.choice import CONFIDENCE, Estimate, Standing, estimate
from sweeps.finalists import FinalistsFile
from sweeps.formatting import count, params_text

WIDTH = 120


def finalists_columns(
    file: FinalistsFile,
    objective: Objective,
    standings: Sequence[Standing],
    tests: Mapping[int, Sequence[float]],
) -> tuple[dict[str, list[object]], dict[str, float]]:
    """The table by columns, best first, and the winner's figures as metrics.

    Args:
        tests: finalist -> the test accuracy of each of its models.
    """
    names = ("mean", "sd", "low", "high")
    columns: dict[str, list[object]] = {
        "rank": list(range(1, len(standings) + 1)),
        "trial": [file.finalists[s.key].trial for s in standings],
        "probability_best": [s.probability_best for s in standings],
        "num_seeds": [s.estimate.num for s in standings],
        "params": [params_text(file.finalists[s.key].params) for s in standings],
    }
    measured = {
        objective.metric: [s.estimate for s in standings],
        "test_accuracy": [estimate(tests[s.key]) for s in standings],
    }
    metrics = {"winner_probability_best": standings[0].probability_best}
    for metric, estimates in measured.items():
        for name in names:
            columns[f"{metric}_{name}"] = [getattr(e, name) for e in estimates]
            metrics[f"winner_{metric}_{name}"] = float(getattr(estimates[0], name))
    return columns, metrics


def render_report(
    file: FinalistsFile,
    objective: Objective,
    data_name: str,
    standings: Sequence[Standing],
    tests: Mapping[int, Sequence[float]],
    chosen: int,
    chosen_metrics: Mapping[str, float],
) -> str:
    """The report as text.

    Args:
        chosen: the training whose model is kept.
        chosen_metrics: what that model reached.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    interval = f"{CONFIDENCE:.0%} interval"
    table = Table(
        "#", "configuration", objective.metric, interval, "sd", "P(best)", "test accuracy",
        interval, box=box.SIMPLE_HEAD, title_justify="left",
        title=f"Finalists: {count(len(file.finalists), 'configuration')} x "
        f"{count(file.num_seeds, 'fresh seed')}, {count(file.num_epochs, 'epoch')} each",
    )  # fmt: skip
    for rank, standing in enumerate(standings, start=1):
        test = estimate(tests[standing.key])
        table.add_row(
            str(rank), file.finalists[standing.key].name, *_cells(standing.estimate),
            f"{standing.estimate.sd:.4f}", f"{standing.probability_best:.0%}", *_cells(test),
        )  # fmt: skip
    winner = file.finalists[standings[0].key]
    test = estimate(tests[standings[0].key])
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, markup=False)
    console.print(table)
    console.print(
        f"Winner: {winner.name}. Its test accuracy is {test.mean:.4f} ({test.low:.4f} to "
        f"{test.high:.4f}, n = {test.num}); its search had shown {objective.metric} "
        f"{winner.value:.4f} (n = 1).",
        highlight=False,
    )
    if chosen == file.retrained_number:
        kept = f"trained on all data, test accuracy {chosen_metrics['test_accuracy']:.4f}"
    else:
        kept = f"of the median seed, test accuracy {chosen_metrics['test_accuracy']:.4f}"
    console.print(f"Its model is kept: {kept}.", highlight=False)
    published = [b for b in all_baselines() if b.dataset == data_name]
    if published:
        figures = ", ".join(f"{b.name} {b.accuracy:.4f}" for b in published)
        console.print(f"Published test accuracies: {figures}.", highlight=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _cells(found: Estimate) -> tuple[str, str]:
    return f"{found.mean:.4f}", f"{found.low:.4f} to {found.high:.4f}"
