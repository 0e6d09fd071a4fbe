"""All that is damaged in the places of a sweep; they are compared only where all can be read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from pipelines.objectives import get_objective
from search_spaces.errors import InputError
from sweeps.finalists.selection import read_finalists
from sweeps.formatting import error_text
from sweeps.integrity.checks import swept_space
from sweeps.setup.stores import check_storage
from sweeps.state.sweep_file import BASELINES, StoredSweep
from tracking.addresses import scrubbed
from tracking.spool.spool import spool_damage
from tracking.stores import check_store, sqlite_path


def damage_of(sweep: StoredSweep, given: Collection[str] = ()) -> list[str]:
    """One line for each thing that cannot be read; each place is looked at, whatever others hold.

    Args:
        given: of `storage` and `tracking_uri` those that were asked for: no part of the sweep.

    Raises:
        InputError: One of those cannot be used.
    """
    storage = sweep.file.settings.storage
    if "storage" in given and sweep.file.kind != BASELINES:
        _open_study_storage(storage)
    if "tracking_uri" in given:
        check_store(sweep.uri)
    final = sweep.paths.finalists.spool
    found = [*spool_damage(sweep.paths.spool), *spool_damage(final)]

    def look(what: str, find: Callable[[], list[str]]) -> None:
        try:
            found.extend(find())
        except InputError as error:
            found.append(str(error))
        except Exception as error:  # Whatever a damaged store makes its library raise.
            why = scrubbed(scrubbed(error_text(error), sweep.uri), storage)
            found.append(f"{what} cannot be read ({why}). Restore it from a copy.")

    look("the comparison of finalists", lambda: _finalists(sweep))
    if sweep.file.kind != BASELINES:
        look("the study", lambda: _study(sweep))
    look("the space", lambda: _space(sweep))
    look("the MLflow store", lambda: _runs(sweep, sweep.file.uid))
    return list(dict.fromkeys(found))


def _finalists(sweep: StoredSweep) -> list[str]:
    file = read_finalists(sweep.paths.finalists_file)
    return [] if file is None else _runs(sweep, file.uid)


def _study(sweep: StoredSweep) -> list[str]:
    from sweeps.engines.optuna_study.storage import damaged_trials, study_errors

    storage, name = sweep.file.settings.storage, sweep.paths.name
    try:
        with study_errors(storage):
            return damaged_trials(_open_study_storage(storage), name)
    except KeyError:
        return [f"The Optuna study of sweep '{name}' is not in its storage. Name the storage that "
                "the sweep began with: --storage URL."]  # fmt: skip


def _open_study_storage(storage: str) -> Any:
    from sweeps.engines.optuna_study.storage import open_storage

    check_storage(storage)
    return open_storage(storage, existing=True)


def _space(sweep: StoredSweep) -> list[str]:
    swept_space(sweep)
    return []


def _runs(sweep: StoredSweep, uid: str) -> list[str]:
    check_store(sweep.uri)
    path = sqlite_path(sweep.uri)
    if path is not None and not path.exists():
        return []  # It was lost as a whole, which a repair restores; MLflow would make it here.
    from tracking.runs.run_reader import RunReader

    metric = get_objective(sweep.file.settings.objective).metric
    return RunReader(sweep.uri, uid, metric).damage()
