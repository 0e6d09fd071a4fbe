"""What a sweep is going to do, in lines for people."""

from __future__ import annotations

from search_spaces.space import Space
from sweeps.engines.keras_tuner_oracles.protocol import oracle_brackets
from sweeps.engines.pruners.halving import rung_epochs
from sweeps.engines.pruners.registry import schedule_text
from sweeps.formatting import count, duration
from sweeps.settings import Budget, SweepSettings


def trials_text(settings: SweepSettings, budget: Budget) -> str:
    """What is trained at most, in one line."""
    limit = budget.timeout_seconds
    text = (
        f"{settings.num_trials} x {count(budget.num_epochs, 'epoch')}, at most "
        f"{duration(limit) if limit else 'any time'}"
    )
    if settings.max_total_epochs is not None:
        text += f" and {count(settings.max_total_epochs, 'epoch')}"
    if settings.target is not None:
        text += f", until {settings.target}"
    if settings.patience_trials is not None:
        text += f", until {count(settings.patience_trials, 'trial')} bring no new best"
    search = f"sampler {settings.sampler}" if settings.sampler else f"oracle {settings.oracle}"
    return f"{text}; {search}, seed {settings.seed}, objective {settings.objective}"


def pruner_text(settings: SweepSettings, budget: Budget) -> str:
    """Which trials go on, in one line."""
    if settings.oracle == "hyperband":
        return _brackets_text(settings, budget)
    rungs = rung_epochs(settings.min_epochs, budget.num_epochs, settings.reduction_factor)
    text = schedule_text(settings.pruner, rungs, settings.reduction_factor)
    if settings.baselines and settings.pruner != "none":
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
