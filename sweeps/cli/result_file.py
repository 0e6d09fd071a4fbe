"""`--result FILE`: how a sweep ended, as JSON for other programs; docs/result.md has its fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pipelines.objectives import get_objective
from pipelines.runtime.filesystem import check_output, write_json_atomically
from search_spaces.errors import InputError
from sweeps.cli.exit_codes import BAD_INPUT, FAILED, INTERRUPTED
from sweeps.cli.notification import Notifier
from sweeps.engines.base import TrialState
from sweeps.formatting import own_version
from sweeps.outcome import Outcome
from sweeps.state.paths import paths_of
from sweeps.state.sweep_file import FINISHED, SweepFile, read_sweep_file
from sweeps.state.sweep_file import INTERRUPTED as CAN_GO_ON
from tracking.addresses import redacted
from tracking.stores import resolve_uri

if TYPE_CHECKING:
    from sweeps.driver.board.row import TrialRow
    from sweeps.driver.search import SweepResult
    from sweeps.finalists.session import ComparisonResult
    from tracking.runs.tracker import MlflowTracker

FORMAT = 1
"""Raised when a field is removed or means something else; new fields do not raise it."""


class ResultFile:
    """Written when its block ends, however it does, if the sweep had begun by then.

    Args:
        path: None writes nothing.
        notifier: who is told the same.

    Raises:
        InputError: There can be no file.

    Attributes:
        status: the exit status; where an exception ends the block it follows from that.
    """

    def __init__(self, path: Path | None, notifier: Notifier | None = None) -> None:
        self._path, self._notifier = path, notifier or Notifier(None)
        self.status = FAILED
        self._file: SweepFile | None = None
        self._search: SweepResult | None = None
        self._comparison: ComparisonResult | None = None
        self._tracker: MlflowTracker | None = None
        if path is None:
            return
        check_output(path, "--result", overwrite=True)

    def began(self, file: SweepFile) -> None:
        """From here on there is a result."""
        self._file = file

    def searched(self, result: SweepResult, tracker: MlflowTracker | None) -> None:
        """The search has ended."""
        self._search, self._tracker = result, tracker

    def compared(self, result: ComparisonResult) -> None:
        """The comparison of finalists has ended."""
        self._comparison = result

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None or not (self._path or self._notifier.is_on):
            return
        if isinstance(error, KeyboardInterrupt):
            self.status = INTERRUPTED
        elif error is not None:
            self.status = BAD_INPUT if isinstance(error, InputError) else FAILED
        document = self._document(self._file, error)
        if self._path is not None:
            write_json_atomically(self._path, document)
        self._notifier.tell("sweep", _text(document), document)

    def _document(self, file: SweepFile, error: BaseException | None) -> dict[str, Any]:
        from sweeps.finalists.selection import sweep_run_id

        settings, paths = file.settings, paths_of(file.settings)
        objective, search = get_objective(settings.objective), self._search
        finished = read_sweep_file(paths.state).is_finished
        return {
            "format": FORMAT,
            "keras_sweeps": own_version(),
            "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "outcome": self._outcome(error).value,
            "exit_status": self.status,
            "state": FINISHED if finished else CAN_GO_ON,
            "reason": search.reason if search is not None else "",
            "error": self._error(error),
            "problems": [
                *(search.problems if search is not None else ()),
                *(self._comparison.problems if self._comparison is not None else ()),
            ],
            "sweep": {
                "name": settings.name,
                "uid": file.uid,
                "folder": str(paths.sweep),
                "space": settings.space,
                "dataset": file.data_name,
                "dataset_fingerprint": file.data_fingerprint,
            },
            "study": {"name": settings.name, "storage": redacted(settings.storage)},
            "mlflow": {
                "tracking_uri": redacted(resolve_uri(settings.tracking_uri)),
                "experiment_id": self._tracker.experiment_id if self._tracker else None,
                "run_id": sweep_run_id(paths),
            },
            "objective": {"name": objective.metric, "direction": objective.direction},
            "best": self._trial(search.board.best()) if search is not None else None,
            "trials": self._counts(),
            "finalists": self._finalists(file),
            "seconds": round(search.board.elapsed_seconds(), 3) if search is not None else None,
            "training_seconds": (
                round(search.board.compute_seconds(), 3) if search is not None else None
            ),
        }

    def _outcome(self, error: BaseException | None) -> Outcome:
        if isinstance(error, KeyboardInterrupt):
            return Outcome.INTERRUPTED
        last = self._comparison or self._search
        return Outcome.FAILED if error is not None or last is None else last.outcome

    def _error(self, error: BaseException | None) -> str:
        if error is not None:
            return " ".join(str(error).split()) or type(error).__name__
        if self._comparison is not None:
            return self._comparison.error
        if self._search is None or self._search.outcome is not Outcome.FAILED:
            return ""
        failed = self._search.failed_trial
        latest = f"no trial completed. Latest: {failed.reason}" if failed is not None else ""
        return self._search.error or latest or "no trial completed"

    def _trial(self, row: TrialRow | None) -> dict[str, Any] | None:
        if row is None:
            return None
        return {
            "trial": row.number,
            "value": row.value if row.value is not None and math.isfinite(row.value) else None,
            "params": row.params,
            "baseline": row.baseline,
            "best_epoch": row.best_epoch,
            "run_id": self._tracker.run_id(row.number) if self._tracker else None,
        }

    def _counts(self) -> dict[str, int]:
        if self._search is None:
            return {}
        counts = {state.value: len(self._search.board.in_state(state)) for state in TrialState}
        return {state: count for state, count in counts.items() if count}

    def _finalists(self, file: SweepFile) -> dict[str, Any] | None:
        from sweeps.finalists.selection import sweep_run_id

        if self._comparison is None:
            return None
        ranking = [asdict(finalist) for finalist in self._comparison.ranking]
        return {
            "outcome": self._comparison.outcome.value,
            "run_id": sweep_run_id(paths_of(file.settings).finalists),
            "winner": ranking[0] if ranking else None,
            "ranking": ranking,
        }


def _text(document: Mapping[str, Any]) -> str:
    """The document in one line."""
    name, best = document["sweep"]["name"], document["best"]
    said = f"Sweep {name} is {document['outcome']}"
    if document["error"]:
        return f"{said}: {document['error']}"
    reached = ""
    if best is not None and best["value"] is not None:
        metric = document["objective"]["name"]
        reached = f", best {metric} {best['value']:.4f} (trial {best['trial']})"
    return f"{said}: {document['reason']}{reached}"
