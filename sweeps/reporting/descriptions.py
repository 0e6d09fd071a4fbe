"""What there is to sweep and what a sweep is going to do, in tables and lines for people."""

from __future__ import annotations

from rich import box
from rich.table import Table

from pipelines.training.options import FITTED, TRAINED
from search_spaces.hyperparameters import Parameter
from search_spaces.pixels import AUTO, RAW, UNIT
from search_spaces.registry import SPACES
from search_spaces.space import Space
from search_spaces.user_spaces.reference import is_reference
from sweeps.engines.keras_tuner_oracles.protocol import oracle_brackets
from sweeps.engines.pruners.registry import schedule_text
from sweeps.formatting import count, duration, param_text, params_text
from sweeps.reporting.console import table_console
from sweeps.settings import Budget, SweepSettings

MEASURED_TEXTS = {
    FITTED: "with batch normalisation fitted to the weights, and with averaged weights where "
    "there are any",
    TRAINED: "with the weights and statistics that training leaves",
}
"""What every measurement uses, by `TrainingOptions.measured_weights`."""
PIXELS_TEXTS = {
    UNIT: "0 to 1; models that are kept take them from 0 to 255 all the same",
    RAW: "0 to 255, as they are",
}


def pixels_text(settings: SweepSettings, space: Space) -> str:
    """What the models of a user's space are given, and why; empty for our own, which need nothing.

    Other points than the default one may show something else: each trial looks at its own model.
    """
    if not space.pixels:
        return ""
    why = "" if settings.training.pixels == AUTO else f"--pixels {settings.training.pixels}"
    if not why:
        does = "does not rescale" if space.pixels == UNIT else "rescales"
        why = f"the default model {does} them itself; --pixels decides otherwise"
    return f"{PIXELS_TEXTS[space.pixels]} ({why})"


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
            parameter.condition_text() or _without_conditions(space, parameter),
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


def _without_conditions(space: Space, parameter: Parameter) -> str:
    return "always" if space.is_asked_everywhere(parameter) else "at some points only"


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


def trials_text(settings: SweepSettings, budget: Budget) -> str:
    """What is trained at most, in one line."""
    limit = budget.timeout_seconds
    points = "as many as fit" if budget.num_trials is None else count(budget.num_trials, "point")
    time = f"at most {duration(limit)}" if limit else "without a time limit"
    text = f"{points}, of {count(budget.num_epochs, 'epoch')}, {time}"
    if settings.max_total_epochs is not None:
        text += f" and {count(settings.max_total_epochs, 'epoch')}"
    if settings.target is not None:
        text += f", until {settings.target}"
    if settings.patience_trials is not None:
        text += f", until {count(settings.patience_trials, 'trial')} bring no new best"
    search = f"sampler {settings.sampler}" if settings.sampler else f"oracle {settings.oracle}"
    return f"{text}; {search}, seed {settings.seed}, objective {settings.objective}"


def left_text(budget: Budget, spent_seconds: float, *, has_ended: bool) -> str:
    """What is left of a resumed sweep's time limit, in one line; empty where it has none.

    Args:
        spent_seconds: what counts for the limit already.
        has_ended: whether the sweep had come to its end, and not only been interrupted.
    """
    limit = budget.timeout_seconds
    if limit is None:
        return ""
    if has_ended and not spent_seconds:
        return f"the sweep had ended, so it has new time: {duration(limit)}"
    left = max(0.0, limit - spent_seconds)
    text = f"{duration(left)} of {duration(limit)} are left; sessions before took the rest"
    return text if left else f"{text}. More with --timeout"


def pruner_text(settings: SweepSettings, budget: Budget) -> str:
    """Which trials go on, in one line."""
    if settings.oracle == "hyperband":
        return _brackets_text(settings, budget)
    text = schedule_text(settings.pruner, budget.rungs)
    has_published = settings.baselines and not is_reference(settings.space)
    if has_published and settings.pruner != "none":
        kept = "train in full" if settings.protect_baselines else "may be pruned, too"
        text += f"; baselines {kept}"
    return text


def _brackets_text(settings: SweepSettings, budget: Budget) -> str:
    """The brackets of Keras Tuner's Hyperband oracle, from the steepest."""
    found = oracle_brackets(budget.num_epochs, settings.reduction_factor)
    texts = [f"{num} from epoch {epoch}" for num, epoch in found]
    text = f"Keras Tuner's hyperband: brackets of {', then '.join(texts)}, and again"
    return f"{text}; baselines train in full" if settings.baselines else text


def left_out_text(space: Space, whole: Space) -> str:
    """Which baselines of the whole space a narrowed one does not hold; empty for none."""
    kept = {baseline.name for baseline in space.baselines}
    names = [baseline.name for baseline in whole.baselines if baseline.name not in kept]
    return f"; left out, because they lie outside: {', '.join(names)}" if names else ""
