"""What the spool is told of finalists' trainings, and what it tells of earlier sessions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from pipelines.objectives import Objective, get_objective
from pipelines.runtime.compute import Compute
from pipelines.training.checkpoints import MODEL_FILE
from pipelines.training.trial import TrialResult
from search_spaces.space import Space
from sweeps.driver.keeping import BestModels
from sweeps.driver.recorder import Recorder
from sweeps.driver.status import Board, TrialRow
from sweeps.engines.base import PastTrial, TrialState
from sweeps.finalists.selection import FinalistsFile
from sweeps.state.paths import SweepPaths
from tracking.spool.records import EpochRecord, TrialEnd
from tracking.spool.trial_history import TrialLives
from tracking.tags import Tag

if TYPE_CHECKING:
    from tracking.spool.spool import Spool


class FinalistRecorder(Recorder):
    """Records trainings of finalists; keeps every model, in `models`, until the winner is known."""

    def __init__(
        self,
        file: FinalistsFile,
        models: Path,
        spool: Spool,
        space: Space,
        data: PreparedData,
        paths: SweepPaths,
        compute: Compute,
    ) -> None:
        none = BestModels(get_objective("val_accuracy"), 0)
        super().__init__(spool, space, data, paths, none, compute)
        self._file, self._models_folder = file, models

    def models_known(self, board: Board) -> None:
        """Nothing is kept by rank."""

    def progress(self, board: Board) -> None:
        """The best single value is what a comparison does not go by."""

    def _tags_of(self, row: TrialRow) -> dict[str, str]:
        finalist = self._file.finalist_of(row.number)
        return {
            **super()._tags_of(row),
            Tag.KIND: "finalist",
            Tag.FINALIST_OF: str(finalist.trial),
        }

    def _keep_model(self, row: TrialRow, result: TrialResult, end: TrialEnd) -> None:
        del end, result
        self._models_folder.mkdir(exist_ok=True)
        path = self._paths.trial(row.number) / MODEL_FILE
        if not path.exists():
            return  # A user's model with code of its own is not stored.
        path.replace(self._models_folder / f"{row.number}.keras")


def past_trainings(
    spool: Spool, file: FinalistsFile, objective: Objective, models: Path
) -> list[PastTrial]:
    """The trainings that the spool holds, as the loop takes them over.

    A complete one whose model is not where it belongs was interrupted between the two, and one
    that was killed, or failed in an earlier session, is wanted still: they go on.
    """
    lives, plan = TrialLives(spool), {proposal.number: proposal for proposal in file.plan()}
    curves: dict[int, dict[int, float]] = {}
    ends: dict[int, TrialEnd] = {}
    for record in spool.replay():
        if isinstance(record, EpochRecord) and record.number in plan:
            curves.setdefault(record.number, {})[record.epoch] = objective.value(record.metrics)
        elif isinstance(record, TrialEnd):
            ends[record.number] = record
    found = []
    for number, proposal in plan.items():
        told = lives.last_state(number)
        if told is None:
            continue
        state = TrialState(told)
        is_kept = number in ends and "model_bytes" in ends[number].metrics
        missing = is_kept and not (models / f"{number}.keras").exists()
        lost = state is TrialState.COMPLETE and missing
        if lost or state is not TrialState.COMPLETE:
            state = TrialState.RUNNING
        end = ends[number] if state.is_end else None
        metrics = dict(end.metrics) if end else {}
        found.append(
            PastTrial(
                number=number,
                params=proposal.params,
                state=state,
                value=metrics.get(f"best_{objective.metric}"),
                curve=curves.get(number, {}),
                reason=end.tags.get(Tag.REASON, "") if end else "",
                facts={
                    "best_epoch": int(metrics.get("best_epoch", 0)) or None,
                    "num_parameters": int(metrics.get("num_parameters", 0)) or None,
                    "seconds": metrics.get("training_seconds", 0.0),
                },
                ended_at=end.at_ms / 1000 if end else None,
                name=proposal.name,
            )
        )
    return found
