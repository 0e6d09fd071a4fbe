"""What a sweep's records say, as values: the winner and how sure it is, importance, compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from search_spaces.errors import InputError
from search_spaces.files import UnusableFileError, read_json
from search_spaces.hyperparameters import Parameter
from search_spaces.hyperparameters.narrowing import narrowed
from search_spaces.hyperparameters.parameter import recorded_name
from search_spaces.registry import get_space
from search_spaces.space import DEFAULT_NAME
from search_spaces.stored_values import as_kind
from search_spaces.user_spaces.reference import is_reference
from sweeps.engines.base import TrialState
from sweeps.history.recorded_sweep import RecordedSweep, RecordedTrial
from sweeps.state.paths import SweepPaths
from tracking.spool.spool import Spool

MIN_TRIALS = 12
"""Below that many trials with a value importance is noise (docs/search.md)."""
BORDER = 0.05
"""An optimum so near to an end of its range, in parts of it, may lie beyond."""
FEW_VALUES = 6
MIN_GROUP = 3
"""Trials of a value from which its median is said."""
Z95 = 1.96


@dataclass(frozen=True)
class Finalist:
    """A configuration as its comparison on fresh seeds judged it.

    Attributes:
        mean, low, high: of the objective, with the 95 % interval of the mean.
    """

    name: str
    trial: int
    mean: float
    low: float
    high: float
    num_seeds: int
    probability_best: float
    test_accuracy: float


def finalists_of(paths: SweepPaths) -> list[Finalist]:
    """The finalists, best first; empty where there was no comparison, or it has not ended."""
    try:
        found = read_json(paths.finalists_file)
        ranking = found.get("ranking", []) if isinstance(found, dict) else []
        return [as_kind(Finalist, one, extra=True) for one in ranking]
    except (FileNotFoundError, UnusableFileError):
        return []


def finalists_seconds(paths: SweepPaths) -> float:
    """Wall time of the comparison of finalists; 0 where nothing, or nothing readable, is there."""
    folder = paths.finalists.spool
    try:
        return Spool(folder, read_only=True).active_seconds() if folder.is_dir() else 0.0
    except (InputError, OSError):
        return 0.0


def reached(trial: RecordedTrial, sweep: RecordedSweep) -> float | None:
    """The best that a trial measured on all validation images; None before a whole epoch."""
    metric = sweep.objective.metric
    values = [r.metrics.get(metric, math.nan) for r in trial.reports if r.epochs >= 1]
    values = [value for value in values if not math.isnan(value)]
    return min(values, key=sweep.objective.sort_key) if values else None


def is_published(trial: RecordedTrial) -> bool:
    """Whether it is a published model, not a point of the search or the space's defaults."""
    return bool(trial.baseline) and DEFAULT_NAME not in trial.baseline.split(", ")


def none_published_in_full(sweep: RecordedSweep) -> bool:
    """Whether it has published models, and trained none of them to its end."""
    return any(is_published(trial) for trial in sweep.trained) and not any(
        is_published(trial) for trial in sweep.ranking()
    )


@dataclass(frozen=True)
class BaselineComparison:
    """The winner beside the best published model.

    Attributes:
        epochs: after which both were measured; None where both were trained in full.
    """

    baseline: RecordedTrial
    own: float
    other: float
    epochs: float | None = None


def beside_baseline(
    sweep: RecordedSweep, winner: RecordedTrial | None = None
) -> BaselineComparison | None:
    """The winner and the best published model: in full, or else after as many epochs.

    Args:
        winner: a complete trial; None for the best of the search.
    """
    best, key = winner or sweep.best, sweep.objective.sort_key
    published = [trial for trial in sweep.trained if is_published(trial)]
    value = best.value(sweep.objective) if best is not None else None
    if best is None or value is None or not published:
        return None
    complete = [trial for trial in sweep.ranking() if is_published(trial)]
    if complete:
        other = complete[0].value(sweep.objective)
        return None if other is None else BaselineComparison(complete[0], value, other)
    metric, found = sweep.objective.metric, []
    for trial in published:
        at = {report.epochs: report.metrics.get(metric) for report in best.reports}
        common = [report for report in trial.reports if at.get(report.epochs) is not None]
        if common and metric in common[-1].metrics:
            last = common[-1]
            found.append((-last.epochs, key(last.metrics[metric]), trial.number, trial, last))
    if not found:
        return None
    *_, trial, last = min(found, key=lambda one: one[:3])
    own = next(r.metrics[metric] for r in best.reports if r.epochs == last.epochs)
    return BaselineComparison(trial, own, last.metrics[metric], last.epochs)


def beside(found: BaselineComparison, trial: RecordedTrial, sweep: RecordedSweep) -> float | None:
    """A trial's value less the baseline's, after equal training; None where there is no such."""
    if found.epochs is None:
        value = trial.value(sweep.objective)
    else:
        metric = sweep.objective.metric
        at = {report.epochs: report.metrics.get(metric) for report in trial.reports}
        value = at.get(found.epochs)
    return None if value is None or math.isnan(value) else value - found.other


def accuracy_margin(sweep: RecordedSweep, value: float) -> float | None:
    """Half the 95 % interval of a share of so many validation images; None for other objectives.

    The normal approximation to the binomial distribution: what other images of the same kind
    would have given, for this one model. How seeds differ is not in it.
    """
    images = sweep.data.get("profile", {}).get("num_images", {}).get("validation")
    if sweep.objective.metric != "val_accuracy" or not images:
        return None
    return Z95 * math.sqrt(max(value * (1 - value), 0.0) / int(images))


@dataclass(frozen=True)
class Compute:
    """Where the time on slots went, in seconds; `idle` is what no trial used."""

    complete: float
    pruned: float
    published: float
    failed: float
    running: float
    idle: float
    num_slots: int

    @property
    def training(self) -> float:
        """What all trials used."""
        return self.complete + self.pruned + self.published + self.failed + self.running

    @property
    def on_slots(self) -> float:
        """The same with what no trial used: all shares of the page are of it."""
        return self.training + self.idle


def compute_of(sweep: RecordedSweep, now_ms: int) -> Compute:
    """Seconds on slots by what became of the trials."""
    totals = dict.fromkeys(("complete", "pruned", "published", "failed", "running"), 0.0)
    for trial in sweep.trained:
        if trial.state in (TrialState.FAILED, TrialState.KILLED):
            kind = "failed"
        elif is_published(trial):
            kind = "published"
        elif trial.state is TrialState.COMPLETE:
            kind = "complete"
        else:
            kind = "pruned" if trial.state is TrialState.PRUNED else "running"
        totals[kind] += trial.seconds(now_ms)
    num_slots = max((lane for *_, lane in lanes(sweep, now_ms)), default=0) + 1
    idle = max(0.0, sweep.seconds * num_slots - sum(totals.values()))
    return Compute(**totals, idle=idle, num_slots=num_slots)


def lanes(sweep: RecordedSweep, now_ms: int) -> list[tuple[RecordedTrial, int, int, int]]:
    """Every stretch of training: its trial, begin and end in ms, and a lane that it has alone."""
    stretches = sorted(
        ((begin, end or now_ms, trial) for trial in sweep.trials.values()
         for begin, end in trial.stretches),
        key=lambda one: (one[0], one[2].number),
    )  # fmt: skip
    free: list[int] = []
    found = []
    for begin, end, trial in stretches:
        lane = next((k for k, until in enumerate(free) if until <= begin), len(free))
        if lane == len(free):
            free.append(end)
        else:
            free[lane] = end
        found.append((trial, begin, end, lane))
    return found


def gaps(
    sweep: RecordedSweep, found: Sequence[tuple[RecordedTrial, int, int, int]]
) -> list[tuple[int, int, int]]:
    """When a lane had no trial within a session: begin and end in ms, and the lane."""
    waits = []
    for lane in range(max((lane for *_, lane in found), default=-1) + 1):
        busy = sorted((begin, end) for _, begin, end, at in found if at == lane)
        for first, last in sweep.sessions:
            free = first
            for begin, end in busy:
                if begin >= last or end <= first:
                    continue
                if begin > free:
                    waits.append((free, begin, lane))
                free = max(free, end)
            if last > free:
                waits.append((free, last, lane))
    return waits


def failures(sweep: RecordedSweep) -> dict[str, list[int]]:
    """Why trials failed -> their numbers, the most frequent reason first."""
    found: dict[str, list[int]] = {}
    for trial in sweep.trained:
        if trial.state is TrialState.FAILED:
            found.setdefault(trial.reason, []).append(trial.number)
    return dict(sorted(found.items(), key=lambda one: -len(one[1])))


@dataclass(frozen=True)
class ParameterFinding:
    """How a parameter relates to the objective, by trials that trained at least an epoch.

    Attributes:
        importance: 0 to 1, all together 1.
        direction: in words: `higher is better (+0.62)`, or the value that did best.
        at_border: the end of the range that the best trials lie at, as text; empty for none.
        widened: what gives the sweep a wider range there, as an option; empty where the space ends.
    """

    name: str
    importance: float
    direction: str
    at_border: str = ""
    widened: str = ""


def parameter_findings(sweep: RecordedSweep) -> list[ParameterFinding]:
    """The parameters that differ, the most important first; empty while there is too little."""
    rows = comparable_trials(sweep)
    if len(rows) < MIN_TRIALS:
        return []
    from sweeps.engines.optuna_study.importance import importance_of

    names = [name for name in sweep.varying if sum(name in t.params for t, _ in rows) >= MIN_TRIALS]
    points = [{name: trial.params.get(name) for name in names} for trial, _ in rows]
    sign = 1.0 if sweep.objective.direction == "maximize" else -1.0
    values = [sign * value for _, value in rows]
    found = importance_of(points, values)
    searched, whole = _parameters(sweep, narrowed_too=True), _parameters(sweep)
    findings = []
    for name, share in sorted(found.items(), key=lambda one: -one[1]):
        direction = _direction([point[name] for point in points], values)
        border = _border(searched.get(name), rows, name, sweep.objective.sort_key)
        widened = _widened(searched[name], whole[name], border) if border else ""
        findings.append(ParameterFinding(name, share, direction, border, widened))
    return findings


def comparable_trials(sweep: RecordedSweep) -> list[tuple[RecordedTrial, float]]:
    """Trials with what they measured after the largest number of epochs that enough of them have.

    Values are compared after equal training only: a third of an epoch says little of eight.
    """
    metric = sweep.objective.metric
    at: dict[float, list[tuple[RecordedTrial, float]]] = {}
    for trial in sweep.trained:
        for report in trial.reports:
            value = report.metrics.get(metric, math.nan)
            if not math.isnan(value):
                at.setdefault(report.epochs, []).append((trial, value))
    enough = [epochs for epochs, rows in at.items() if len(rows) >= MIN_TRIALS]
    if enough:
        return at[max(enough)]
    return at[max(at, key=lambda epochs: (len(at[epochs]), epochs))] if at else []


def _parameters(sweep: RecordedSweep, *, narrowed_too: bool = False) -> dict[str, Parameter]:
    """Ranges by name, for our own spaces; a user's code is not run to look at its results.

    Args:
        narrowed_too: whether the sweep's own `--set` and `--fix` hold.
    """
    settings = sweep.file.settings
    if is_reference(settings.space):
        return {}
    try:
        space = get_space(settings.space)
        if narrowed_too:
            space = narrowed(space, settings.narrowing)
        return {recorded_name(p.name): p for p in space.parameters}
    except InputError:
        return {}


def _widened(searched: Parameter, whole: Parameter, border: str) -> str:
    """`--set NAME=LOW..HIGH` with more of the space's range at that end; empty without more."""
    if border == f"{searched.low:g}":
        low, high = whole.low, searched.high
    else:
        low, high = searched.low, whole.high
    if (low, high) == (searched.low, searched.high):
        return ""
    return f"--set {searched.name}={low:g}..{high:g}"


def _direction(values: Sequence[object], scores: Sequence[float]) -> str:
    """In words, with the rank correlation or by medians.

    A correlation is said where chance alone would show it in one of twenty parameters at most.

    Without any relation Spearman's coefficient of n pairs has the standard deviation
    1 / sqrt(n - 1) (Kendall and Gibbons, Rank Correlation Methods, 1990).
    """
    pairs = [(v, s) for v, s in zip(values, scores, strict=True) if v is not None]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v, _ in pairs):
        rho = _rank_correlation([float(v) for v, _ in pairs], [s for _, s in pairs])  # type: ignore[arg-type]
        if abs(rho) < max(0.2, Z95 / math.sqrt(len(pairs) - 1)):
            return "no clear direction"
        return f"{'higher' if rho > 0 else 'lower'} is better ({rho:+.2f})"
    groups: dict[str, list[float]] = {}
    for value, score in pairs:
        groups.setdefault(str(value).lower(), []).append(score)
    groups = {value: found for value, found in groups.items() if len(found) >= MIN_GROUP}
    if len(groups) < 2:
        return "too few to tell"
    best = max(groups, key=lambda value: sorted(groups[value])[len(groups[value]) // 2])
    return f"{best} did best"


def _rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's, with mean ranks for ties; 0 where one does not vary."""
    first, second = _ranks(one), _ranks(other)
    mean = (len(one) - 1) / 2
    cov = sum((a - mean) * (b - mean) for a, b in zip(first, second, strict=True))
    spread = math.sqrt(sum((a - mean) ** 2 for a in first) * sum((b - mean) ** 2 for b in second))
    return cov / spread if spread else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in order[start : end + 1]:
            ranks[place] = (start + end) / 2
        start = end + 1
    return ranks


def _border(
    parameter: Parameter | None,
    rows: Iterable[tuple[RecordedTrial, float]],
    name: str,
    sort_key: Callable[[float], float],
) -> str:
    """The end of a range that the best three trials lie at."""
    if parameter is None or parameter.kind not in ("int", "float"):
        return ""
    grid = parameter.grid()
    if grid is not None and len(grid) < FEW_VALUES:
        return ""  # Of three values two are ends.
    assert parameter.low is not None and parameter.high is not None
    best = sorted(rows, key=lambda row: sort_key(row[1]))[:3]
    places = [_place(parameter, trial.params[name]) for trial, _ in best if name in trial.params]
    if len(places) < 3:
        return ""
    if all(place <= BORDER for place in places):
        return f"{parameter.low:g}" if parameter.low else ""  # Nothing lies below none at all.
    return f"{parameter.high:g}" if all(place >= 1 - BORDER for place in places) else ""


def _place(parameter: Parameter, value: object) -> float:
    """Where a value lies in its range, 0 to 1, on the parameter's own axis."""
    low, high, at = float(parameter.low or 0), float(parameter.high or 0), float(value)  # type: ignore[arg-type]
    if parameter.sampling == "log":
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low) if high > low else 0.5
