"""The stores of a sweep: checked before anything is started or written, then opened."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipelines.data.prepared import PreparedData
from pipelines.objectives import get_objective
from pipelines.runtime.filesystem import check_writable
from search_spaces.cost import quantities_of
from search_spaces.errors import InputError
from search_spaces.hyperparameters import Params
from search_spaces.registry import short_name
from search_spaces.space import Space
from sweeps.engines.limits import parse_limits
from sweeps.executors.credentials import check_passed
from sweeps.settings import Budget, SweepSettings, budget_for
from sweeps.state.paths import SweepPaths, used_name
from sweeps.state.sweep_file import StoredSweep, SweepFile
from tracking.addresses import redacted
from tracking.mlflow_server.options import LOOPBACK, UI_PORT
from tracking.stores import (
    EXPERIMENT_ID_VARIABLE,
    EXPERIMENT_VARIABLE,
    OPTUNA_TABLES,
    check_database,
    check_owner,
    check_store,
    is_server,
    public_address,
    resolve_experiment,
    resolve_uri,
    sqlite_path,
)
from tracking.views.links import run_link

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from sweeps.engines.base import Engine
    from tracking.runs.tracker import MlflowTracker
    from tracking.spool.spool import Spool

STORE_SECONDS = 10.0
"""How soon a server must respond."""
FILE_SECONDS = 120.0
"""The same for a file, whose tables another sweep may be making this very moment."""
FULL_TRAINING_SHARE = 0.2
"""With a time limit nothing is proposed whose full training is expected to take more of it: a few
are to fit. Wider networks are better after a third of an epoch, so mutations of the best would be
slower and slower, until none could be trained in full (docs/adr/0019-a-plan-for-the-time.md)."""
T = TypeVar("T")


def check_locations(
    settings: SweepSettings, *, with_study: bool = True, resume: bool = False
) -> None:
    """Looks at folders, the tracking store, the study's storage, and whether the name is new.

    Args:
        with_study: whether there will be a study; the published baselines need none.
        resume: whether the sweep has begun: then its name is known, and a tracking store that is
            away delays nothing.

    Raises:
        InputError: The first of them that cannot be used.
    """
    if not resume:
        check_passed(settings.pass_env)
    root = Path(settings.work_dir)
    for folder in (root, root / "data", root / "sweeps"):
        check_writable(folder, "--work-dir")
    uri, storage = resolve_uri(settings.tracking_uri), settings.storage
    if not settings.offline and not resume:
        within(STORE_SECONDS, f"--tracking-uri ({redacted(uri)})", lambda: check_store(uri))
    if with_study:
        what = f"--storage ({redacted(storage)})"
        within(STORE_SECONDS, what, lambda: check_storage(storage))
        files = [path and path.absolute() for path in map(sqlite_path, (uri, storage))]
        if not settings.offline and files[0] is not None and files[0] == files[1]:
            raise InputError(
                "--storage and --tracking-uri must be two databases. Received: "
                f"{redacted(storage)} for both. Leave one of them out."
            )
    if settings.name is None or resume:
        return
    paths = SweepPaths(root, settings.name)
    if paths.state.exists():
        raise used_name(settings.name)
    if with_study and _exists(storage):
        from sweeps.engines.optuna_study.storage import open_storage, study_errors, study_exists

        name = settings.name
        with study_errors(storage):
            known = within(
                _seconds(storage), what, lambda: study_exists(open_storage(storage), name)
            )
        if known:
            raise used_name(name)
    if not settings.offline and _exists(uri):
        from tracking.runs.tracker import sweep_exists

        if sweep_exists(uri, settings.name):
            raise used_name(settings.name)


def chosen_experiment(settings: SweepSettings, say: Callable[[str], None]) -> str | None:
    """The experiment of a new sweep: as given, else as MLflow's variables say; None for neither.

    Raises:
        InputError: A variable has the id of an experiment that the store does not have.
    """
    name, variable = resolve_experiment(settings.experiment), EXPERIMENT_VARIABLE
    experiment_id = os.environ.get(EXPERIMENT_ID_VARIABLE)
    if name is None and experiment_id:
        variable = EXPERIMENT_ID_VARIABLE
        if settings.offline:
            raise InputError(
                f"{variable} is set, and an id cannot be looked up with --offline. Name the "
                "experiment: --experiment NAME."
            )
        from tracking.runs.experiments import name_of_experiment

        name = name_of_experiment(resolve_uri(settings.tracking_uri), experiment_id, variable)
    if name != settings.experiment:
        say(f"experiment {name}, as {variable} says")
    return name


def check_storage(url: str) -> None:
    """Raises InputError unless a database can hold a study, as `check_database`."""
    check_database(url, "--storage")
    check_owner(url, "--storage", OPTUNA_TABLES)


def check_tracking(sweep: StoredSweep) -> None:
    """Opens the store of a recorded sweep, so that nothing is decided before it can be told.

    Raises:
        InputError: It cannot be used.
    """
    if sweep.file.settings.offline:
        return
    check_store(sweep.uri)
    if _exists(sweep.uri):
        from tracking.runs.tracker import sweep_exists

        sweep_exists(sweep.uri, sweep.paths.name)


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
        raise InputError(f"{what} did not respond within {seconds:g} seconds.")
    return results[0]


def _seconds(store: str) -> float:
    return STORE_SECONDS if sqlite_path(store) is None else FILE_SECONDS


def _exists(store: str) -> bool:
    """Whether a store can hold anything: a SQLite file that is not there holds nothing."""
    path = sqlite_path(store)
    return path is None or path.exists()


def open_engine(
    settings: SweepSettings,
    space: Space,
    data: PreparedData,
    file: SweepFile,
    num_parallel: int,
    *,
    begun: bool,
) -> Engine:
    """The study in its storage: the one of this sweep where it has begun, else a new one.

    Raises:
        InputError: The storage cannot be used, lacks the study of a sweep that has begun, or has
            another sweep's under its name.
    """
    from sweeps.engines.optuna_study.storage import open_storage, study_errors, study_exists

    assert settings.name is not None
    name = settings.name
    what = f"--storage ({redacted(settings.storage)})"
    storage = within(
        _seconds(settings.storage), what, lambda: open_storage(settings.storage, existing=begun)
    )
    budget = budget_for(settings, data.num_images["train"])
    with study_errors(settings.storage):
        resume = begun or study_exists(storage, name)
        return make_engine(
            settings, space, data, storage, name, budget, num_parallel, resume=resume, uid=file.uid
        )


def make_engine(
    settings: SweepSettings,
    space: Space,
    data: PreparedData,
    storage: BaseStorage,
    name: str,
    budget: Budget,
    num_parallel: int,
    *,
    resume: bool = False,
    uid: str = "",
) -> Engine:
    """The engine that settings mean, over an opened storage.

    Raises:
        InputError: As `OptunaEngine`.
    """
    from sweeps.engines.optuna_study.engine import OptunaEngine, StudyExistsError

    objective = get_objective(settings.objective)
    try:
        record = OptunaEngine(
            space,
            objective,
            storage,
            name,
            settings.sampler or "random",  # An oracle's study samples nothing.
            settings.seed,
            num_parallel=num_parallel,
            baselines=space.distinct_baselines() if settings.baselines else (),
            pruner=settings.pruner,
            rungs=budget.rungs,
            warmup_epochs=budget.warmup_epochs,
            protect_baselines=settings.protect_baselines,
            limits=parse_limits(settings.limits),
            quantities=partial(_quantities, space, data),
            cost=partial(_multiply_adds, space, data) if space.cost_of else None,
            is_timed=budget.timeout_seconds is not None,
            longest_epoch=_longest_epoch(budget),
            resume=resume,
            uid=uid,
        )
    except StudyExistsError:
        raise used_name(name) from None
    if settings.oracle is None:
        return record
    from sweeps.engines.keras_tuner_oracles.engine import KerasTunerEngine
    from sweeps.setup.space import make_executor
    from sweeps.workers.hosts import OracleHost

    host = OracleHost(partial(make_executor, settings.training.backend))
    atexit.register(host.close)
    return KerasTunerEngine(
        record, space, objective, settings.oracle, settings.seed, budget.num_epochs,
        settings.reduction_factor, host.propose,
    )  # fmt: skip


def _longest_epoch(budget: Budget) -> float | None:
    """Seconds of an epoch with which a full training takes `FULL_TRAINING_SHARE` of the time."""
    limit = budget.timeout_seconds
    return None if limit is None else FULL_TRAINING_SHARE * limit / budget.num_epochs


def _quantities(space: Space, data: PreparedData, params: Params) -> dict[str, float]:
    """What limits may be about, as far as it is known before a point is trained."""
    return quantities_of(space.cost(params, data.input_shape, data.num_classes))


def _multiply_adds(space: Space, data: PreparedData, params: Params) -> float | None:
    cost = space.cost(params, data.input_shape, data.num_classes)
    return None if cost is None else float(cost.multiply_adds)


class Destination:
    """The tracking store of a session: opened when it is first needed, again where it was away.

    Attributes:
        tracker: the store, once it was there.
    """

    def __init__(
        self,
        settings: SweepSettings,
        data_name: str,
        spool: Spool,
        parent_run_id: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._open: Callable[[], MlflowTracker] = lambda: connect_tracker(
            settings, data_name, spool, parent_run_id()
        )
        self._begun, self._uri = spool.has("sweep"), resolve_uri(settings.tracking_uri)
        self.tracker: MlflowTracker | None = None

    def __call__(self) -> MlflowTracker:
        """Returns the store.

        Raises:
            InputError: It cannot be used.
        """
        if self.tracker is None:
            self.tracker = self._open()
        return self.tracker

    def run_page(self, number: int) -> str:
        """The address of a trial's run: on the server, or where `ui` shows an embedded store."""
        run_id = self.tracker.run_id(number) if self.tracker else None
        base = public_address(self._uri) if is_server(self._uri) else f"http://{LOOPBACK}:{UI_PORT}"
        return run_link(base, run_id) if run_id else ""

    def check(self) -> None:
        """Opens the store; raises InputError where a new sweep's cannot be used.

        A sweep that has begun goes on while it is away.
        """
        try:
            self()
        except InputError:
            if not self._begun:
                raise


def connect_tracker(
    settings: SweepSettings, data_name: str, spool: Spool, parent_run_id: str | None = None
) -> MlflowTracker:
    """The tracking store of a sweep, knowing what earlier sessions sent.

    Args:
        parent_run_id: the run that the sweep's own is a child of, if any.

    Raises:
        InputError: It cannot be used.
    """
    from tracking.runs.tracker import MlflowTracker
    from tracking.spool.records import SweepRecord

    experiment = settings.experiment or f"{short_name(settings.space)}-{data_name}"
    uri = resolve_uri(settings.tracking_uri)
    tracker = MlflowTracker(uri, experiment, spool.folder_of, spool.answers())
    first = next(spool.replay(), None)
    if isinstance(first, SweepRecord):
        tracker.knows(first)
    if parent_run_id is not None:
        tracker.belongs_to(parent_run_id)
    return tracker
