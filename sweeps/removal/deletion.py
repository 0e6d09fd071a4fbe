"""Deletes a sweep: its study, its runs and models in MLflow, and its own files.

Its files go last: a deletion that breaks off is begun anew by the same command. Prepared data stay;
other sweeps may use them (`leftovers`).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.runtime.filesystem import folder_bytes
from search_spaces.errors import InputError
from sweeps.finalists.selection import read_finalists
from sweeps.formatting import size_text
from sweeps.state.lock import check_not_driven, driving
from sweeps.state.sweep_file import SEARCH, StoredSweep
from tracking.addresses import redacted
from tracking.stores import OPTUNA_TABLES, is_server, is_there, sqlite_path

if TYPE_CHECKING:
    from tracking.runs.removal import FoundRuns


@dataclass(frozen=True)
class Deletion:
    """What there is of a sweep.

    Attributes:
        runs: what MLflow holds; None where its store is not there.
        has_study: whether the study is in its storage.
        num_bytes: of the sweep's folder.
    """

    sweep: StoredSweep
    runs: FoundRuns | None
    has_study: bool
    num_bytes: int

    @property
    def lines(self) -> list[str]:
        """What will be deleted, one line each."""
        paths, settings = self.sweep.paths, self.sweep.file.settings
        found = [f"{size_text(self.num_bytes)} of files in {paths.sweep}"]
        if self.has_study:
            found.append(f"the study '{paths.name}' in {redacted(settings.storage)}")
        if self.runs and self.runs.run_ids:
            how = " (marked as deleted there)" if is_server(self.sweep.uri) else ""
            found.append(
                f"{len(self.runs.run_ids)} runs with {len(self.runs.model_ids)} models in "
                f"{redacted(self.sweep.uri)}{how}"
            )
        return found


def find_deletion(sweep: StoredSweep) -> Deletion:
    """What deleting the sweep would delete; nothing is changed.

    Raises:
        InputError: It runs, or one of its models is registered.
    """
    check_not_driven(sweep.paths)
    runs = None
    path = sqlite_path(sweep.uri)
    if path is None or path.exists():
        from tracking.errors import store_errors
        from tracking.runs.removal import find_runs

        with store_errors(sweep.uri):
            runs = find_runs(sweep.uri, sweep.paths.name, _uids(sweep))
        if runs.registered:
            raise InputError(
                f"Sweep '{sweep.paths.name}' has models that are registered as "
                f"{', '.join(runs.registered)}. Delete those versions in MLflow first, or keep the "
                "sweep: without its runs nobody can say how a registered model came about."
            )
    return Deletion(sweep, runs, _has_study(sweep), folder_bytes(sweep.paths.sweep))


def delete_sweep(deletion: Deletion) -> None:
    """Deletes what was found.

    Raises:
        InputError: A process drives the sweep meanwhile.
        OSError: A part could not be deleted; the rest is there still.
    """
    sweep = deletion.sweep
    with driving(sweep.paths):
        if deletion.runs is not None and deletion.runs.run_ids:
            from tracking.errors import store_errors
            from tracking.runs.removal import remove_runs

            with store_errors(sweep.uri):
                remove_runs(sweep.uri, deletion.runs)
        if deletion.has_study:
            from sweeps.engines.optuna_study.storage import delete_study

            delete_study(sweep.file.settings.storage, sweep.paths.name)
    shutil.rmtree(sweep.paths.sweep)


def _uids(sweep: StoredSweep) -> set[str]:
    found = {sweep.file.uid}
    finalists = read_finalists(sweep.paths.finalists_file)
    return found if finalists is None else found | {finalists.uid}


def _has_study(sweep: StoredSweep) -> bool:
    storage = sweep.file.settings.storage
    path = sqlite_path(storage)
    if sweep.file.kind != SEARCH or (path is not None and not path.exists()):
        return False
    from sweeps.engines.optuna_study.storage import open_storage, study_exists

    if not is_there(storage, OPTUNA_TABLES):
        return False
    return study_exists(open_storage(storage), sweep.paths.name)
