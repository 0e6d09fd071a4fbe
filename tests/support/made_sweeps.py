"""Sweeps that were recorded without training anything: their files as a driver leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sweeps.settings import SweepSettings
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import FINISHED, SweepFile, write_sweep_file
from tracking.spool.records import (
    DataRecord,
    EpochRecord,
    Record,
    SweepEnd,
    SweepRecord,
    TrialEnd,
    TrialRecord,
    TrialStateRecord,
)
from tracking.spool.spool import Spool

BEGAN_MS = 1_795_000_000_000
SECOND = 1_000


def made_trial(
    number: int,
    values: Sequence[float],
    params: Mapping[str, object],
    *,
    state: str = "COMPLETE",
    begun: int = 0,
    tags: Mapping[str, str] | None = None,
) -> list[Record]:
    """A trial's records: ten seconds an epoch, one report after each.

    Args:
        begun: seconds after the sweep's begin.
        state: of its end; RUNNING or PAUSED for one that has none.
    """
    at = BEGAN_MS + begun * SECOND
    found: list[Record] = [
        TrialRecord(number, f"trial {number}", {**params, "max_epochs": 3}, tags or {}, at),
        TrialStateRecord(number, "RUNNING", {"sweeps.device": "cpu"}, at),
    ]
    for epoch, value in enumerate(values, start=1):
        metrics = {"epoch": epoch, "val_accuracy": value, "loss": 1 - value, "epoch_seconds": 10.0}
        found.append(EpochRecord(number, epoch, metrics, at + epoch * 10 * SECOND))
    end = at + len(values) * 10 * SECOND
    if state == "PAUSED":
        found.append(TrialStateRecord(number, "PAUSED", {"sweeps.reason": "waits"}, end))
    elif state != "RUNNING":
        metrics = {"best_val_accuracy": max(values), "num_parameters": 100.0, "best_epoch": 3.0}
        found.append(TrialEnd(number, state, metrics, {"sweeps.reason": ""}, at_ms=end))
    return found


def write_sweep(
    work_dir: Path,
    name: str,
    records: Sequence[Record],
    *,
    status: str = FINISHED,
    page: str = "",
    **settings: object,
) -> SweepPaths:
    """Writes a sweep of space `mlp` on `tiny`.

    Args:
        page: a text that its end carries.
        settings: further ones of `SweepSettings`.
    """
    paths = SweepPaths(work_dir.absolute(), name)
    paths.sweep.mkdir(parents=True)
    given = SweepSettings(space="mlp", name=name, **settings)  # type: ignore[arg-type]
    file = SweepFile(f"uid-{name}", status, given, "tiny", "0" * 64, "1" * 12)
    write_sweep_file(paths.state, file)
    spool = Spool(paths.spool)
    data = DataRecord("tiny", "0" * 64, "made", {}, {})
    params = {"space": "mlp", "seed": 0, "timeout_seconds": 60.0, "num_trials": None}
    spool.put(SweepRecord(name, params, {"sweeps.space": "mlp"}, data, file.uid, BEGAN_MS))
    for record in records:
        spool.put(record)
    if status == FINISHED:
        last = max(record.at_ms for record in records) if records else BEGAN_MS
        tags = {"sweeps.stopped_by": "all trials ended"}
        spool.put(SweepEnd("FINISHED", tags, {}, {"study.html": page}, {}, last))
    spool.close()
    return paths
