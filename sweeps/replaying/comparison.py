"""Recorded against replayed numbers, bit for bit, and what may explain a difference."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipelines.runtime.compute import LIBRARIES as BACKEND_LIBRARIES
from pipelines.training.reports import EVERY_EPOCH, Reports
from sweeps.executors.failures import FailureKind
from sweeps.formatting import count
from sweeps.replaying.recipe import Device
from sweeps.state.recorded_options import tagged_compute
from tracking.metric_names import SYSTEM
from tracking.tags import Tag

NOT_TRAINED = frozenset(
    {"epoch", "epoch_seconds", "images_per_second", "compile_seconds", "latency_ms"}
)
"""No two trainings take the same time, and which epoch it is follows from no training."""
COMMIT_TAG = "mlflow.source.git.commit"
LIBRARIES = ("keras", "numpy", "keras-sweeps")
"""Those that a trained number can follow from, beside its backend's; Optuna and MLflow only choose
and remember."""


@dataclass(frozen=True)
class Difference:
    """A metric that differs in a report; `replayed` is None where it is missing."""

    epoch: str
    metric: str
    recorded: float
    replayed: float | None

    @property
    def text(self) -> str:
        """All of it in one line, every digit that a double has."""
        return f"epoch {self.epoch}, {self.values_text}"

    @property
    def values_text(self) -> str:
        """The metric with both values, without the epoch."""
        if self.replayed is None:
            return f"{self.metric}: recorded {self.recorded!r}, not replayed"
        return (
            f"{self.metric}: recorded {self.recorded!r}, replayed {self.replayed!r}, difference "
            f"{self.replayed - self.recorded:+.3g}"
        )


class Comparison:
    """Holds replayed reports against the recorded ones, bit for bit."""

    def __init__(
        self, recorded: Mapping[int, Mapping[str, float]], reports: Reports = EVERY_EPOCH
    ) -> None:
        self._recorded, self._reports = recorded, reports
        self.first: Difference | None = None
        self.num_reports = 0
        self.num_differing = 0
        self._metrics: set[str] = set()

    def add(self, step: int, metrics: Mapping[str, float]) -> list[Difference]:
        """What differs in a report, in the order in which it measures.

        What only the replay measures is no difference, and a report that was never recorded is
        not counted.
        """
        if step not in self._recorded:
            return []
        values = self._recorded[step].items()
        recorded = {name: value for name, value in values if _follows_from_training(name)}
        found = [
            Difference(self._reports.text(step), name, recorded[name], metrics.get(name))
            for name in [*metrics, *sorted(recorded.keys() - metrics.keys())]
            if name in recorded and not _same(recorded[name], metrics.get(name))
        ]
        self.num_reports += 1
        self.num_differing += bool(found)
        self._metrics |= recorded.keys()
        if found and self.first is None:
            self.first = found[0]
        return found

    @property
    def extent(self) -> str:
        """What was compared: `3 epochs, 5 metrics`."""
        return f"{count(self.num_reports, 'report')}, {count(len(self._metrics), 'metric')}"


def _follows_from_training(name: str) -> bool:
    return name not in NOT_TRAINED and not name.startswith(SYSTEM)


def _same(recorded: float, replayed: float | None) -> bool:
    if replayed is None:
        return False
    return recorded == replayed or (math.isnan(recorded) and math.isnan(replayed))


class CauseKind(StrEnum):
    """What the results of a training depend on, beside params and seed."""

    DATA = "other data"
    VERSION = "other library version"
    PYTHON = "other Python"
    COMMIT = "other commit"
    DIRTY = "uncommitted changes"
    DEVICE = "other device"
    THREADS = "another number of threads"
    MODE = "deterministic mode"
    DETERMINISM = "not deterministic"
    MEMORY = "smaller prediction steps"


@dataclass(frozen=True)
class Cause:
    """Why numbers may differ; `text` is one line for people."""

    kind: CauseKind
    detail: str

    @property
    def text(self) -> str:
        """The cause with what was and what is."""
        return f"{self.kind.value}: {self.detail}"


@dataclass(frozen=True)
class Circumstances:
    """Under what a run is trained.

    Attributes:
        tags: versions, commit and whether there were uncommitted changes, as runs are tagged.
        deterministic: None where it is not known.
    """

    data_fingerprint: str
    device: Device
    deterministic: bool | None
    tags: Mapping[str, str] = field(default_factory=dict)


def causes(then: Circumstances, now: Circumstances) -> list[Cause]:
    """What has changed since the run was recorded, the most likely cause first."""
    found = []
    if then.data_fingerprint != now.data_fingerprint:
        found.append(_changed(CauseKind.DATA, then.data_fingerprint[:12],
                              now.data_fingerprint[:12]))  # fmt: skip
    backend = tagged_compute(then.tags).backend
    for library in (*BACKEND_LIBRARIES[backend], *LIBRARIES):
        was, is_now = (c.tags.get(Tag.VERSION_PREFIX + library) for c in (then, now))
        if was != is_now:
            found.append(_changed(CauseKind.VERSION, was, is_now, f"{library} "))
    was, is_now = (c.tags.get(Tag.VERSION_PREFIX + "python") for c in (then, now))
    if was != is_now:
        found.append(_changed(CauseKind.PYTHON, was, is_now))
    found += _code(then, now) + _device(then, now) + _determinism(then, now)
    retried = then.tags.get(Tag.RETRY_REASON, "")
    if _ran_out_of_memory(then):
        found.append(Cause(CauseKind.MEMORY, f"when it was tried again after: {retried}"))
    return found


def _ran_out_of_memory(then: Circumstances) -> bool:
    """Whether a run was tried again after its memory ran out: it predicts in smaller steps then."""
    kind = then.tags.get(Tag.RETRY_KIND)
    if kind is not None:
        return kind == FailureKind.OUT_OF_MEMORY
    # Runs of earlier releases have the message alone, which is TensorFlow's, JAX's or PyTorch's.
    reason = then.tags.get(Tag.RETRY_REASON, "")
    return re.search("memory|exhausted", reason, re.IGNORECASE) is not None


def _code(then: Circumstances, now: Circumstances) -> list[Cause]:
    found = []
    was, is_now = (c.tags.get(COMMIT_TAG) for c in (then, now))
    if was != is_now:
        found.append(_changed(CauseKind.COMMIT, was and was[:12], is_now and is_now[:12]))
    if then.tags.get(Tag.GIT_DIRTY) == "true":
        detail = f"when it ran, on top of commit {str(was)[:12]}; they were not recorded"
        found.append(Cause(CauseKind.DIRTY, detail))
    if now.tags.get(Tag.GIT_DIRTY) == "true":
        found.append(Cause(CauseKind.DIRTY, f"now, on top of commit {str(is_now)[:12]}"))
    return found


def _device(then: Circumstances, now: Circumstances) -> list[Cause]:
    was, is_now = then.device, now.device
    if was.gpu != is_now.gpu:
        return [_changed(CauseKind.DEVICE, was.text, is_now.text)]
    if was.gpu is None and was.num_threads != is_now.num_threads:
        return [_changed(CauseKind.THREADS, was.num_threads, is_now.num_threads)]
    return []


def _determinism(then: Circumstances, now: Circumstances) -> list[Cause]:
    if then.deterministic is None:
        return [Cause(CauseKind.MODE, "was unknown, because the run of its sweep is gone")]
    if then.deterministic != now.deterministic:
        words = {False: "off", True: "on", None: None}
        # Also on CPUs: other operations round differently.
        return [_changed(CauseKind.MODE, words[then.deterministic], words[now.deterministic])]
    if now.device.gpu is not None and not now.deterministic:
        # On cores TensorFlow repeats without it, which the tests hold; on a GPU it may not.
        detail = "a GPU may add up in another order each time; run the sweep with --deterministic"
        return [Cause(CauseKind.DETERMINISM, detail)]
    return []


def _changed(kind: CauseKind, was: object, is_now: object, what: str = "") -> Cause:
    unknown = "not recorded"
    return Cause(kind, f"{what}was {was or unknown}, is {is_now or 'unknown'}")
