"""Restores the invariants of a sweep from what its study and its spool hold."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.training.checkpoints import CHECKPOINT_FILE
from sweeps.engines.base import PastTrial, TrialState
from sweeps.finalists.selection import (
    read_finalists,
    sweep_run_id,
)
from sweeps.integrity.checks import Checkup, study_of, swept_space
from sweeps.integrity.damage import damage_of
from sweeps.outcome import Outcome
from sweeps.setup.stores import connect_tracker
from sweeps.state.lock import driving, is_driven
from sweeps.state.sweep_file import StoredSweep
from tracking.spool.records import SweepStateRecord, TrialEnd, TrialStateRecord
from tracking.tags import Tag

if TYPE_CHECKING:
    from tracking.runs.tracker import MlflowTracker
    from tracking.spool.history import TrialHistory
    from tracking.spool.spool import Spool

NUM_LOOKS, LOOK_SECONDS = 3, 1.0
"""So often, and so much later, is looked again at a running sweep that seems to have problems."""
PATIENCE_SECONDS = 60.0
"""How long to wait until everything is sent."""


@dataclass(frozen=True)
class CheckResult:
    """What a sweep's study, spool and runs say of each other.

    Attributes:
        outcome: FAILED where there are problems.
        problems: those that there are now, a line each.
        repaired: those that there were before they were repaired.
        summary: what holds, in one line; empty where there are problems.
        is_driven: whether a process drives the sweep; then what is on its way is no problem.
        is_damaged: whether something of it cannot be read; then the problems are all that is, and
            nothing was compared or repaired.
    """

    outcome: Outcome
    problems: tuple[str, ...]
    repaired: tuple[str, ...]
    summary: str
    is_driven: bool
    is_damaged: bool = False


def check_sweep(
    sweep: StoredSweep, *, repairs: bool = False, given: Collection[str] = ()
) -> CheckResult:
    """Holds a sweep's study, spool and MLflow runs against each other.

    Args:
        repairs: whether to restore what can be restored; takes the sweep's lock.
        given: as `damage_of` takes it.

    Raises:
        InputError: A given store cannot be used, or somebody drives the sweep that is to be
            repaired.
    """
    is_now_driven = is_driven(sweep.paths)
    if is_now_driven and repairs:
        with driving(sweep.paths):  # Raises, and says who drives it.
            pass
    damage = damage_of(sweep, given)
    if damage:
        return CheckResult(Outcome.FAILED, tuple(damage), (), "", is_now_driven, is_damaged=True)
    checkup = Checkup(sweep)
    found = checkup.examine()
    for _ in range(NUM_LOOKS if is_now_driven else 0):
        if not found:
            break
        # Study and MLflow are not read at one moment: what lasts is a problem.
        time.sleep(LOOK_SECONDS)
        checkup = Checkup(sweep)
        again = checkup.examine()
        found = [problem for problem in found if problem in again]
    repaired: tuple[str, ...] = ()
    if repairs and found:
        repaired = tuple(found)
        with driving(sweep.paths):
            repair(sweep)
        checkup = Checkup(sweep)
        found = checkup.examine()
    outcome = Outcome.FAILED if found else Outcome.DONE
    summary = "" if found else checkup.summary()
    return CheckResult(outcome, tuple(found), repaired, summary, is_now_driven)


def repair(sweep: StoredSweep) -> None:
    """Tells MLflow everything again that the spool holds, and closes what is left open.

    Safe to repeat: the same record changes nothing. The sweep's lock must be held.

    Raises:
        InputError: The tracking store cannot be used.
    """
    from tracking.spool.history import TrialHistory
    from tracking.spool.sender import Sender
    from tracking.spool.spool import Spool

    spool = Spool(sweep.paths.spool)
    history, trials = TrialHistory(spool), study_of(sweep, swept_space(sweep))
    tracker = connect_tracker(sweep.file.settings, sweep.file.data_name, spool)
    # When the driver died, as far as is known: not now, which would be time of the sweep.
    died_ms = spool.last_ms()
    for trial in trials:
        _close(history, trial, died_ms)
    if not sweep.file.is_finished and spool.has("sweep"):
        tags = {Tag.STOPPED_BY: "a kill"}
        spool.put(SweepStateRecord("SCHEDULED", tags, at_ms=died_ms))
    sender = Sender(spool, lambda: tracker)
    sent = sender.drain(PATIENCE_SECONDS)
    sender.close()
    if sent:
        _record_again(spool, tracker)
    _close_finalists(sweep)
    for trial in trials:
        if trial.state.is_end:
            checkpoint = sweep.paths.trial(trial.number) / CHECKPOINT_FILE
            checkpoint.unlink(missing_ok=True)


def _record_again(spool: Spool, tracker: MlflowTracker) -> None:
    """Records what was acknowledged and is gone nevertheless. Files are gone for good."""
    from tracking.spool.sender import RejectedError

    aside = spool.reasons_aside()
    known = {answer["key"]: answer.get("id") for answer in spool.answers()}
    for record in spool.replay():
        is_aside = record.key in aside  # Also for a run that was lost, and is here again by now.
        try:
            answer = tracker.apply(record, again=True)
        except RejectedError:
            continue
        except Exception:  # Whatever it was set aside for: it stays there, named with its reason.
            if is_aside:
                continue
            raise
        if is_aside or (answer and answer.get("id") != known.get(record.key)):
            spool.sent_after_all(record, answer)  # Else the next session knows a lost run.
    tracker.remove_doubles()


def _close(history: TrialHistory, trial: PastTrial, at_ms: int) -> None:
    """Puts what the spool lacks: an end that the study has, or that a trial waits."""
    recorded = history.last_state(trial.number)
    if recorded is None:
        return  # Proposed and not started: the sweep records it when it is resumed.
    if trial.state.is_end:
        if recorded != trial.state:
            tags = {Tag.REASON: trial.reason}
            history.put_end(TrialEnd(trial.number, trial.state.value, {}, tags, at_ms=at_ms))
    elif recorded != TrialState.PAUSED:
        tags = {Tag.REASON: "waits for the sweep to be resumed"}
        history.put_state(
            TrialStateRecord(trial.number, TrialState.PAUSED.value, tags, at_ms=at_ms)
        )


def _close_finalists(sweep: StoredSweep) -> None:
    """Notes that what was running waits, and sends what was not sent."""
    from tracking.spool.history import TrialHistory
    from tracking.spool.sender import Sender
    from tracking.spool.spool import Spool

    path = sweep.paths.finalists.spool
    if not path.exists():
        return
    spool = Spool(path)
    died_ms, history = spool.last_ms(), TrialHistory(spool)
    open_trials = history.running()
    for number in open_trials:
        tags = {Tag.REASON: "waits for the comparison to go on"}
        history.put_state(TrialStateRecord(number, TrialState.PAUSED.value, tags, at_ms=died_ms))
    file = read_finalists(sweep.paths.finalists_file)
    if file is not None and not file.finished:
        tags = {Tag.STOPPED_BY: "a kill"}
        spool.put(SweepStateRecord("SCHEDULED", tags, at_ms=died_ms))
    tracker = connect_tracker(
        sweep.file.settings, sweep.file.data_name, spool,
        sweep_run_id(sweep.paths),
    )  # fmt: skip
    sender = Sender(spool, lambda: tracker)
    sent = sender.drain(PATIENCE_SECONDS)
    sender.close()
    if sent:
        _record_again(spool, tracker)
