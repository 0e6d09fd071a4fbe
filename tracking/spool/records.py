"""What a tracker receives: plain values, so that a record can be stored and sent later.

Every record has a key that names what happened, once; `kind` is its class's name. Times are
milliseconds since 1970, taken when it happened, so that a record that is sent twice, or a week
later, says the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from search_spaces.errors import shown
from search_spaces.files import UnusableFileError
from search_spaces.stored_values import as_kind

RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]

# A pruned trial did what the sweep wanted of it: MLflow marks KILLED and FAILED with a red cross,
# and a sweep whose trials are mostly pruned would look broken. The tag `sweeps.state` tells it from
# a complete one. A paused trial, or one that waits for its sweep to be resumed, is SCHEDULED: it
# will run at a later time.
_STATUS: dict[str, RunStatus] = {
    "RUNNING": "RUNNING",
    "PAUSED": "SCHEDULED",
    "COMPLETE": "FINISHED",
    "PRUNED": "FINISHED",
    "FAILED": "FAILED",
    "KILLED": "KILLED",
}


def run_status(state: str) -> RunStatus:
    """MLflow's status for a trial's state; raises KeyError for any other."""
    return _STATUS[state]


def earlier_statuses(state: str) -> tuple[RunStatus, ...]:
    """What earlier versions called that state in MLflow, beside `run_status`."""
    return ("KILLED",) if state == "PRUNED" else ()


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class DataRecord:
    """The data set of a sweep, for MLflow's dataset inputs."""

    name: str
    fingerprint: str
    origin: str
    schema: Mapping[str, object]
    profile: Mapping[str, object]


@dataclass(frozen=True)
class SweepRecord:
    """A sweep that starts: the parent run. `uid` names it among all sweeps everywhere."""

    name: str
    params: Mapping[str, object]
    tags: Mapping[str, str]
    data: DataRecord
    uid: str = ""
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened."""
        return "sweep"


@dataclass(frozen=True)
class SweepStateRecord:
    """A sweep that runs again (RUNNING), or waits to be resumed (SCHEDULED)."""

    status: RunStatus
    tags: Mapping[str, str] = field(default_factory=dict)
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened, and when: it may happen often."""
        return f"sweep/{self.status.lower()}/{self.at_ms}"


@dataclass(frozen=True)
class SweepTagsRecord:
    """Tags and files to add to the sweep's run, or to replace there."""

    tags: Mapping[str, str]
    at_ms: int = field(default_factory=now_ms)
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What happened, and when: it may happen often."""
        return f"sweep/tags/{self.at_ms}"


@dataclass(frozen=True)
class ViewRecord:
    """A saved view of the sweep's trials: tags of its experiment (`tracking.views`)."""

    tags: Mapping[str, str]
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened, and when: a view is made anew at the end."""
        return f"sweep/view/{self.at_ms}"


@dataclass(frozen=True)
class TrialRecord:
    """A trial that starts: a child run. `params` holds every parameter of the space."""

    number: int
    name: str
    params: Mapping[str, object]
    tags: Mapping[str, str]
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened."""
        return f"trial-{self.number}"


@dataclass(frozen=True)
class EpochRecord:
    """One epoch's metrics."""

    number: int
    epoch: int
    metrics: Mapping[str, float]
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened."""
        return f"trial-{self.number}/epoch-{self.epoch}"


@dataclass(frozen=True)
class TrialStateRecord:
    """A trial that pauses or runs again."""

    number: int
    state: str
    tags: Mapping[str, str] = field(default_factory=dict)
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened, and when: it may happen often."""
        return f"trial-{self.number}/{self.state.lower()}/{self.at_ms}"


@dataclass(frozen=True)
class FilesRecord:
    """Files of a trial to upload: everything in `folder`, which is the spool's own."""

    number: int
    folder: str
    name: str
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened."""
        return f"trial-{self.number}/files/{self.name}"


@dataclass(frozen=True)
class TagsRecord:
    """Tags to add to a trial's run."""

    number: int
    tags: Mapping[str, str]
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened, and when: it may happen often."""
        return f"trial-{self.number}/tags/{self.at_ms}"


@dataclass(frozen=True)
class TrialEnd:
    """A trial that ended, with final metrics and tags; `life` counts its earlier ends."""

    number: int
    state: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    at_ms: int = field(default_factory=now_ms)
    life: int = 0

    @property
    def key(self) -> str:
        """What happened. An end that the study did not record may be followed by another one."""
        return f"trial-{self.number}/end" + (f"-{self.life}" if self.life else "")


@dataclass(frozen=True)
class ModelRecord:
    """A trained model to keep: a `.keras` file that takes raw pixels; `path` is the spool's own."""

    number: int
    path: str
    input_shape: tuple[int, ...]
    num_classes: int
    metrics: Mapping[str, float]
    step: int
    tags: Mapping[str, str] = field(default_factory=dict)
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened."""
        return f"trial-{self.number}/model"


@dataclass(frozen=True)
class ModelDropRecord:
    """A kept model that a better one replaces."""

    number: int
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened."""
        return f"trial-{self.number}/drop"


@dataclass(frozen=True)
class ProgressRecord:
    """How the sweep stands after `step` trials ended."""

    metrics: Mapping[str, float]
    step: int
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened."""
        return f"sweep/progress-{self.step}"


@dataclass(frozen=True)
class MachineRecord:
    """How busy the machine was; `step` is the sweep's age in seconds, over all its sessions."""

    metrics: Mapping[str, float]
    step: int
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened."""
        return f"sweep/machine-{self.step}"


@dataclass(frozen=True)
class SweepEnd:
    """A sweep that ended."""

    status: RunStatus
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    leaderboard: Mapping[str, list[object]] = field(default_factory=dict)
    at_ms: int = field(default_factory=now_ms)

    @property
    def key(self) -> str:
        """What happened, and when: a sweep that is resumed ends again."""
        return f"sweep/end/{self.at_ms}"


Record = (
    SweepRecord
    | SweepStateRecord
    | SweepTagsRecord
    | ViewRecord
    | TrialRecord
    | EpochRecord
    | TrialStateRecord
    | FilesRecord
    | TagsRecord
    | TrialEnd
    | ModelRecord
    | ModelDropRecord
    | ProgressRecord
    | MachineRecord
    | SweepEnd
)
RECURRING = (SweepTagsRecord, ViewRecord, TagsRecord)
"""Records of which several may be made in one millisecond: each is one of its own."""
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Record.__args__}  # type: ignore[attr-defined]


def to_json(record: Record) -> dict[str, Any]:
    """The record as JSON values."""
    return {"kind": type(record).__name__, "key": record.key, "body": asdict(record)}


def sendable(record: Record) -> Record:
    """The record with names that are not UTF-8 written as escapes: no store takes them as they are.

    Paths of a user's data or space may hold such names.
    """
    line = to_json(record)
    try:
        json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return from_json(_escaped(line))
    return record


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return {_escaped(key): _escaped(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(part) for part in value]
    return value


def from_json(line: object) -> Record:
    """The record that `to_json` wrote.

    Raises:
        UnusableFileError: It is none, or of a kind that only a later version knows.
    """
    if not isinstance(line, Mapping) or not isinstance(line.get("body"), Mapping):
        raise UnusableFileError("no record")
    name, key, body = line.get("kind"), line.get("key"), line["body"]
    if not (isinstance(name, str) and isinstance(key, str)):
        raise UnusableFileError("no record")
    if name not in _KINDS:
        raise UnusableFileError(f"a record of the kind {shown(name)}, which this version does not "
                                "know")  # fmt: skip
    stamp = key.rpartition("/")[2]
    if "at_ms" not in body and stamp.isdecimal():
        body = {**body, "at_ms": int(stamp)}
    record: Record = as_kind(_KINDS[name], body)
    if getattr(record, "state", "RUNNING") not in _STATUS:
        raise UnusableFileError("a state that there is not")
    return record
