"""Everything that can be checked before anything is started or written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipelines.runtime.filesystem import check_writable
from search_spaces.errors import InputError
from sweeps.settings import SweepSettings
from sweeps.state.paths import SweepPaths, used_name
from tracking.addresses import redacted
from tracking.stores import check_database, check_store, resolve_uri, sqlite_path

STORE_SECONDS = 10.0
T = TypeVar("T")


def check_places(settings: SweepSettings, *, with_study: bool = True, resume: bool = False) -> None:
    """Looks at folders, the tracking store, the study's storage, and whether the name is new.

    Args:
        with_study: whether there will be a study; the published baselines need none.
        resume: whether the sweep has begun: then its name is known, and a tracking store that is
            away delays nothing.

    Raises:
        InputError: The first of them that cannot be used.
    """
    root = Path(settings.work_dir)
    for folder in (root, root / "data", root / "sweeps"):
        check_writable(folder, "--work-dir")
    uri, storage = resolve_uri(settings.tracking_uri), settings.storage
    if not settings.offline and not resume:
        within(STORE_SECONDS, f"--tracking-uri ({redacted(uri)})", lambda: check_store(uri))
    if with_study:
        what = f"--storage ({redacted(storage)})"
        within(STORE_SECONDS, what, lambda: check_database(storage, "--storage"))
    if settings.name is None or resume:
        return
    paths = SweepPaths(root, settings.name)
    if paths.state.exists() or (paths.sweep.exists() and not with_study):
        raise used_name(settings.name)
    if with_study and _exists(storage):
        from sweeps.engines.optuna_study.storage import open_storage, study_exists

        name = settings.name
        if within(STORE_SECONDS, what, lambda: study_exists(open_storage(storage), name)):
            raise used_name(name)
    if not settings.offline and _exists(uri):
        from tracking.runs.tracker import sweep_exists

        if sweep_exists(uri, settings.name):
            raise used_name(settings.name)


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """The result of a call, or InputError when it has none in time."""
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # Raised again below, in the caller's thread.
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if thread.is_alive():
        raise InputError(f"{what} must answer within {seconds:g} seconds, and did not.")
    return results[0]


def _exists(store: str) -> bool:
    """Whether a store can hold anything: a SQLite file that is not there holds nothing."""
    path = sqlite_path(store)
    return path is None or path.exists()
