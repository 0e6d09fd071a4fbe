"""The saved views of a sweep's trials, of its finalists, and of the sweeps beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tracking.filters import tag_is
from tracking.metric_names import MetricNames
from tracking.tags import Tag
from tracking.views.links import SWEEPS_VIEW, trials_view
from tracking.views.saved_views import (
    Chart,
    SavedView,
    Section,
    bar,
    line,
    metric,
    parallel,
    param,
    scatter,
    tag,
    view_tag,
)

MAX_PARAMS = 24
"""Columns; what does not fit into a tag is left out anyway."""
MAX_AXES = 9
"""Of parallel coordinates: more names cannot be read beside each other."""
MAX_ON_LOG_AXIS = 4
"""Charts of one parameter each."""


@dataclass(frozen=True)
class TrialsView:
    """What the views of a sweep's trials, or of its finalists, show.

    Attributes:
        name: of the sweep.
        uid: the sweep's, or that of the comparison of its finalists.
        metric: the plain name of the objective.
        params: parameters that differ between trials, the most important first.
        names: what the metrics are called.
        log_params: those of the parameters whose axis is logarithmic.
        minimize: whether less is better.
        has_steps: whether trials report within epochs, too.
        frame: what the curves show of the objective, from and to: the worst guess alone would hide
            all differences. None for all of it.
    """

    name: str
    uid: str
    metric: str
    params: Sequence[str]
    names: MetricNames
    log_params: Sequence[str] = ()
    minimize: bool = False
    has_steps: bool = False
    frame: Sequence[float] | None = None

    @property
    def best(self) -> str:
        """The objective of a trial's best epoch."""
        return self.names.of_end(f"best_{self.metric}")

    @property
    def curve(self) -> Chart:
        """The objective over its epochs; a step is an epoch where trials report no earlier."""
        by_metric = self.has_steps or not self.names.is_grouped
        epochs = self.names.of_report("epoch") if by_metric else "step"
        return line(self.names.of_report(self.metric), epochs, self.frame)

    @property
    def shown(self) -> list[str]:
        """The parameters that have a column."""
        return list(self.params)[:MAX_PARAMS]


def trials_tags(view: TrialsView, at_ms: int) -> dict[str, str]:
    """The view of a sweep's trials, as tags of the experiment.

    Args:
        at_ms: when it was made, in ms since 1970.
    """
    of_end, best = view.names.of_end, view.best
    seconds, size = of_end("training_seconds"), of_end("num_parameters")
    on_log_axis = [name for name in view.shown if name in view.log_params][:MAX_ON_LOG_AXIS]
    against = [scatter(size, best), scatter(seconds, best)]
    against += [scatter(name, best, is_param=True, scale="log") for name in on_log_axis]
    sections = [
        Section(f"{view.metric} over epochs", [view.curve], 1),
        Section("Parameters", [parallel(view.shown[:MAX_AXES], best)] if view.params else [], 1),
        Section(f"What {view.metric} goes with", against, 2),
    ]
    saved = SavedView(
        trials_view(view.uid),
        f"Sweep {view.name}",
        # Its own trials, without the run of the sweep itself.
        f"{tag_is(Tag.UID, view.uid)} AND tags.`{Tag.KIND}` = 'trial'",
        [
            metric(best), metric(of_end("num_epochs")), metric(size), metric(seconds),
            tag(Tag.STATE), tag(Tag.BASELINE), *map(param, view.shown),
        ],
        sections,
        view.minimize,
    )  # fmt: skip
    return view_tag(saved, at_ms) or _shorter(view, at_ms, trials_tags)


def finalists_tags(view: TrialsView, at_ms: int) -> dict[str, str]:
    """The view of a comparison of finalists, each averaged over its seeds; else as `trials_tags`.

    Params are those in which the finalists differ.
    """
    best, test = view.best, view.names.of_end("test_accuracy")
    sections = [  # MLflow draws no parallel coordinates of groups.
        Section("Means over the fresh seeds", [bar(best), bar(test)], 2),
        Section(f"{view.metric} over epochs", [view.curve], 1),
    ]
    saved = SavedView(
        trials_view(view.uid),
        f"Finalists of {view.name}",
        # Without the comparison's own run, and the winner's on all data, which has no fellows.
        f"{tag_is(Tag.UID, view.uid)} AND tags.`{Tag.KIND}` = 'finalist'",
        [
            metric(best), metric(test), metric(view.names.of_end("training_seconds")),
            tag(Tag.FINALIST_OF), tag(Tag.SEED), tag(Tag.WINNER), *map(param, view.shown),
        ],
        sections,
        view.minimize,
        Tag.FINALIST_OF,
    )  # fmt: skip
    return view_tag(saved, at_ms) or _shorter(view, at_ms, finalists_tags)


def _shorter(
    view: TrialsView, at_ms: int, tags_of: Callable[[TrialsView, int], dict[str, str]]
) -> dict[str, str]:
    """The same with half of the parameters, whose names may be long; nothing without any."""
    half = replace(view, params=view.params[: len(view.params) // 2])
    return tags_of(half, at_ms) if view.params else {}


def sweeps_tags(
    objective: str, names: MetricNames, at_ms: int, *, minimize: bool = False
) -> dict[str, str]:
    """The view of all sweeps of an experiment, by the objective of the one that writes it."""
    of_end, best = names.of_end, names.of_end(f"best_{objective}")
    figures = (
        "num_complete", "num_pruned", "num_failed", "total_epochs", "total_training_seconds",
        "wall_seconds",
    )  # fmt: skip
    saved = SavedView(
        SWEEPS_VIEW,
        "All sweeps",
        f"tags.`{Tag.KIND}` = 'sweep'",
        [
            metric(best), *(metric(of_end(name)) for name in figures),
            tag(Tag.SPACE), tag(Tag.DATA), tag(Tag.BEST_TRIAL), tag(Tag.NOTE),
            *map(param, ("sampler", "pruner", "num_trials", "num_epochs", "seed")),
        ],
        [
            Section(f"{objective} of the best trial so far", [
                line(best), line(best, "time-relative"),
            ], 2),
            Section(f"{objective} and what it cost", [
                bar(best), scatter(of_end("wall_seconds"), best),
                scatter(of_end("total_epochs"), best),
            ]),
        ],
        minimize,
    )  # fmt: skip
    return view_tag(saved, at_ms)
