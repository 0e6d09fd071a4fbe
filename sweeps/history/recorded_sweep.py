"""A sweep as its own records tell it: every trial, its reports, its times, and how it ended.

A sweep that runs elsewhere is read as far as it has come. Nothing heavy is imported, and the pages
that a sweep's end carries are not parsed, so that thousands of runs are read within a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipelines.objectives import Objective, get_objective
from search_spaces.errors import InputError
from search_spaces.files import UnusableFileError, check_regular
from search_spaces.hyperparameters.parameter import INACTIVE, RUN_PARAMS, Value
from search_spaces.user_spaces.reference import is_reference
from sweeps.engines.base import TrialState
from sweeps.state.lock import is_driven
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import FINISHED, INTERRUPTED, RUNNING, SweepFile, read_sweep_file
from tracking.spool.records import (
    EpochRecord,
    Record,
    SweepEnd,
    SweepRecord,
    SweepStateRecord,
    SweepTagsRecord,
    TagsRecord,
    TrialEnd,
    TrialRecord,
    TrialStateRecord,
)
from tracking.spool.spool import damaged_line, lost_lines, read_answer, read_aside, read_record
from tracking.tags import Tag

T = TypeVar("T")

_LARGE_FIELDS = b', "texts": {'
"""Where a sweep's end begins to hold whole pages; within a JSON text the quotes were escaped."""


@dataclass(frozen=True)
class Report:
    """What a trial measured.

    Attributes:
        epochs: trained until then, whole or parts of one.
        at_ms: milliseconds since 1970.
    """

    epochs: float
    at_ms: int
    metrics: Mapping[str, float]


@dataclass
class RecordedTrial:
    """A trial as its records tell it.

    Attributes:
        state: the latest; what ran in a sweep that nothing drives any more is PAUSED.
        params: its active parameters.
        steps_per_epoch: the unit of its reports (`pipelines.training.reports.Reports`).
        reports: in the order of the epochs trained.
        metrics: the final ones; empty before its end.
        stretches: (begin, end) of each stretch on a slot, in ms; the end is None while it runs.
        run_id: its run in MLflow; empty where nothing was sent yet.
    """

    number: int
    name: str
    params: Mapping[str, Value]
    num_epochs: int
    begun_ms: int
    steps_per_epoch: int = 1
    state: TrialState = TrialState.RUNNING
    reports: list[Report] = field(default_factory=list)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    stretches: list[tuple[int, int | None]] = field(default_factory=list)
    run_id: str = ""

    @property
    def baseline(self) -> str:
        """The published model that it is, or the space's defaults; empty for other points."""
        return self.tags.get(Tag.BASELINE, "")

    @property
    def reason(self) -> str:
        """Why it ended, or what it waits for; empty where it was trained to its end."""
        return self.tags.get(Tag.REASON, "")

    @property
    def is_duplicate(self) -> bool:
        """Whether an earlier trial had its point, so that it was not trained."""
        return Tag.DUPLICATE_OF in self.tags

    @property
    def epochs(self) -> float:
        """Epochs trained so far."""
        return self.reports[-1].epochs if self.reports else 0.0

    def seconds(self, now_ms: int) -> float:
        """Time on slots so far."""
        return sum((end or now_ms) - begin for begin, end in self.stretches) / 1000

    def value(self, objective: Objective) -> float | None:
        """The objective that it reached; None unless it is complete."""
        if self.state is not TrialState.COMPLETE or self.is_duplicate:
            return None
        return self.metrics.get(f"best_{objective.metric}")

    def last_value(self, objective: Objective) -> float | None:
        """What it reported last; None before the first report."""
        found = self.reports[-1].metrics.get(objective.metric) if self.reports else None
        return None if found is None or math.isnan(found) else found


@dataclass
class RecordedSweep:
    """A sweep as its records tell it.

    Attributes:
        state: `running` where a process drives it, `interrupted` if it can continue, `finished`.
        params, tags: those of its run.
        data: what its data set is: `profile` has `num_images` by part.
        stopped_by: why it ended or waits, in words; empty before.
        sessions: (begin, latest record) of each session, in ms.
        run_id: its run in MLflow; empty where nothing was sent yet.
        num_left_out: trials that were not read from a server; those that were include the best.
    """

    paths: SweepPaths
    file: SweepFile
    state: str
    objective: Objective
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    stopped_by: str = ""
    trials: dict[int, RecordedTrial] = field(default_factory=dict)
    sessions: list[tuple[int, int]] = field(default_factory=list)
    run_id: str = ""
    num_left_out: int = 0

    @property
    def name(self) -> str:
        """Its name, which is its study's, too."""
        return self.paths.name

    @property
    def task(self) -> str:
        """What is searched on which data: `cnn on mnist`; a user's space by its short name."""
        space = self.file.settings.space
        if is_reference(space):  # Where its file lies is nobody else's matter.
            space = self.tags.get(Tag.SPACE) or space
        return f"{space or 'published models'} on {self.file.data_name}"

    @property
    def begun_ms(self) -> int:
        """When it began, in ms since 1970; 0 where nothing is recorded yet."""
        return self.sessions[0][0] if self.sessions else 0

    @property
    def latest_ms(self) -> int:
        """When its latest record was made."""
        return self.sessions[-1][1] if self.sessions else 0

    @property
    def seconds(self) -> float:
        """Wall time of all its sessions, up to the latest record."""
        return sum(end - begin for begin, end in self.sessions) / 1000

    def seconds_so_far(self, now_ms: int) -> float:
        """The same; of a sweep that runs, up to now."""
        since = max(0, now_ms - self.latest_ms) if self.state == RUNNING and self.sessions else 0
        return self.seconds + since / 1000

    @property
    def nodes(self) -> dict[str, str]:
        """Machine of a cluster -> what it has, when it joined and left; empty without one."""
        begin = f"{Tag.NODE}."
        return {k.removeprefix(begin): v for k, v in self.tags.items() if k.startswith(begin)}

    @property
    def moved(self) -> tuple[int, float]:
        """How many trials lost their node and went on elsewhere, and seconds of training lost."""
        rows = [trial.tags for trial in self.trials.values() if Tag.NUM_MOVES in trial.tags]
        return len(rows), sum(float(tags.get(Tag.LOST_SECONDS, 0)) for tags in rows)

    def num_on(self, node: str) -> int:
        """How many trials ran on a machine last."""
        return sum(trial.tags.get(Tag.NODE) == node for trial in self.trials.values())

    @property
    def note(self) -> str:
        """What somebody wrote of it; empty for nothing."""
        return self.tags.get(Tag.NOTE, "")

    @property
    def trained(self) -> list[RecordedTrial]:
        """The trials but those of a point that an earlier trial had."""
        return [trial for trial in self.trials.values() if not trial.is_duplicate]

    def num_in(self, *states: TrialState) -> int:
        """How many trials are in these states."""
        return sum(trial.state in states for trial in self.trained)

    def ranking(self) -> list[RecordedTrial]:
        """The complete trials, best first; of equals the earlier one."""
        key = self.objective.sort_key
        values = {trial.number: trial.value(self.objective) for trial in self.trained}
        complete = [trial for trial in self.trained if values[trial.number] is not None]
        return sorted(complete, key=lambda trial: (key(values[trial.number] or 0.0), trial.number))

    def ordered(self) -> list[RecordedTrial]:
        """All trials: complete ones, best first, then by how far they came and what they reported.

        Values are compared among trials of equal epochs only.
        """
        key, objective = self.objective.sort_key, self.objective
        ranking = self.ranking()
        complete = {trial.number for trial in ranking}

        def rank_key(trial: RecordedTrial) -> tuple[float, float, int]:
            value = trial.last_value(objective)
            return -trial.epochs, math.inf if value is None else key(value), trial.number

        rest = [trial for trial in self.trials.values() if trial.number not in complete]
        return ranking + sorted(rest, key=rank_key)

    @property
    def best(self) -> RecordedTrial | None:
        """The best complete trial."""
        return next(iter(self.ranking()), None)

    @property
    def varying(self) -> list[str]:
        """The parameters that differ between its trials, in the order of the space."""
        names = dict.fromkeys(name for trial in self.trained for name in trial.params)
        return [
            name for name in names
            if len({repr(trial.params.get(name)) for trial in self.trained}) > 1
        ]  # fmt: skip


def read_sweep(paths: SweepPaths) -> RecordedSweep:
    """Reads what a sweep has recorded so far.

    Raises:
        InputError: Its description or its records are damaged.
    """
    file = read_sweep_file(paths.state)
    state = FINISHED if file.is_finished else INTERRUPTED
    if is_driven(paths):
        state = RUNNING
    sweep = RecordedSweep(paths, file, state, get_objective(file.settings.objective))
    num_records = 0
    for path, number, record in _records(paths.spool):
        num_records = number
        try:
            _take(sweep, record)
        except (ValueError, TypeError):  # Params are what a space made of them.
            raise damaged_line(path, number, UnusableFileError("no such values")) from None
    if state != RUNNING:
        _suspend(sweep)
    for trial in sweep.trials.values():
        trial.reports.sort(key=lambda report: report.epochs)
    _take_run_ids(sweep, paths.spool, num_records)
    return sweep


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file with their numbers; a torn last one is left out."""
    try:
        check_regular(path)
    except FileNotFoundError:
        return
    except UnusableFileError as error:
        raise InputError(f"{path} must be a plain file, but {error}. Restore it.") from None
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n"):
                yield number, line


def _records(spool: Path) -> Iterator[tuple[Path, int, Record]]:
    """Each whole record, with its file and line."""
    path = spool / "records.jsonl"
    for number, whole in _lines(path):
        line = whole
        if len(line) > 65_536 and (place := line.find(_LARGE_FIELDS)) > 0:
            line = line[:place] + b"}}"
        try:
            yield path, number, read_record(line)[1]
        except UnusableFileError as error:
            raise damaged_line(path, number, error) from None


def _take(sweep: RecordedSweep, record: Record) -> None:
    """Adds one record to what is known of the sweep."""
    at_ms = record.at_ms
    is_running = isinstance(record, SweepStateRecord) and record.status == "RUNNING"
    if isinstance(record, SweepRecord) or is_running:
        sweep.sessions.append((at_ms, at_ms))
    elif sweep.sessions and not isinstance(record, SweepTagsRecord):
        # A note may come days after a session.
        sweep.sessions[-1] = (sweep.sessions[-1][0], at_ms)
    if isinstance(record, SweepRecord):
        sweep.params = {**sweep.params, **record.params}
        sweep.data = asdict(record.data)
    if isinstance(record, SweepRecord | SweepStateRecord | SweepTagsRecord | SweepEnd):
        sweep.tags |= record.tags
        stopped_by = sweep.tags.get(Tag.STOPPED_BY, "")
        sweep.stopped_by = "" if stopped_by == "not yet" else stopped_by
    elif isinstance(record, TrialRecord):
        sweep.trials[record.number] = _trial(record)
    elif (trial := sweep.trials.get(getattr(record, "number", -1))) is not None:
        _take_of_trial(trial, record)


def _take_of_trial(trial: RecordedTrial, record: Record) -> None:
    """Adds one record to what is known of a trial."""
    if isinstance(record, TrialStateRecord | TagsRecord | TrialEnd):
        trial.tags |= record.tags
    if isinstance(record, EpochRecord):
        epochs = record.metrics.get("epoch", record.epoch)
        trial.reports.append(Report(epochs, record.at_ms, record.metrics))
    elif isinstance(record, TrialStateRecord):
        _change(trial, TrialState(record.state), record.at_ms)
    elif isinstance(record, TrialEnd):
        trial.metrics = record.metrics
        _change(trial, TrialState(record.state), record.at_ms)


def _trial(record: TrialRecord) -> RecordedTrial:
    params: Mapping[str, Any] = record.params
    return RecordedTrial(
        record.number, record.name, point_of(params), int(params.get("max_epochs", 0)),
        record.at_ms, int(params.get("steps_per_epoch", 1)), tags=dict(record.tags),
    )  # fmt: skip


def point_of(params: Mapping[str, object]) -> dict[str, Value]:
    """The active parameters among the params of a run, as the values that they were."""
    return {
        name: typed(value)
        for name, value in params.items()
        if value != INACTIVE and name not in RUN_PARAMS
    }


def _suspend(sweep: RecordedSweep) -> None:
    """What still ran when nothing drove the sweep any more waits for it to be resumed."""
    for trial in sweep.trials.values():
        if trial.state is TrialState.RUNNING:
            _change(trial, TrialState.PAUSED, max(sweep.latest_ms, trial.begun_ms))
            trial.tags[Tag.REASON] = "waits for the sweep to be resumed"


def _change(trial: RecordedTrial, state: TrialState, at_ms: int) -> None:
    """The trial begins, or ends, a stretch on a slot."""
    trial.state = state
    if trial.stretches and trial.stretches[-1][1] is None:
        begin = trial.stretches[-1][0]
        # What a kill cut off ended no later than its last report.
        end = max(begin, trial.reports[-1].at_ms if trial.reports else begin)
        trial.stretches[-1] = (begin, end if state is TrialState.RUNNING else at_ms)
    if state is TrialState.RUNNING:
        trial.stretches.append((at_ms, None))


def typed(text: object) -> Value:
    """A recorded value as the kind that it was: `"0.001"` -> 0.001, `"True"` -> True."""
    if not isinstance(text, str):
        return text  # type: ignore[return-value]
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _take_run_ids(sweep: RecordedSweep, spool: Path, num_records: int) -> None:
    sent, aside = spool / "sent.jsonl", spool / "rejected.jsonl"
    for line_number, line in _lines(sent):
        _take_run_id(sweep, _read(read_answer, sent, line_number, line))
        if line_number > num_records and not is_driven(sweep.paths):
            raise lost_lines(spool / "records.jsonl")  # What runs has sent more since.
    # What was set aside, or made again, has a later answer in the other file.
    for line_number, line in _lines(aside):
        found = _read(read_aside, aside, line_number, line)
        _take_run_id(sweep, {"key": found["key"], **found.get("sent", {})})


def _read(read: Callable[[bytes], T], path: Path, line_number: int, line: bytes) -> T:
    try:
        return read(line)
    except UnusableFileError as error:
        raise damaged_line(path, line_number, error) from None


def _take_run_id(sweep: RecordedSweep, answer: Mapping[str, str]) -> None:
    if "id" not in answer:
        return
    _, _, number = answer["key"].partition("trial-")
    if answer["key"] == "sweep":
        sweep.run_id = answer["id"]
    elif number.isdecimal() and int(number) in sweep.trials:
        sweep.trials[int(number)].run_id = answer["id"]
