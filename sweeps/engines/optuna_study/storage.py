"""Opens Optuna's storage and reads a study's trials back from it, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from sqlalchemy import event

from search_spaces.errors import InputError
from search_spaces.hyperparameters import Params
from search_spaces.space import Space
from sweeps.engines.base import AT_RUNG, PastTrial, TrialState
from sweeps.engines.optuna_study.forecasts import MEASURED
from sweeps.engines.optuna_study.hyperparameters import Grid, OptunaHyperParameters, StoredNames
from sweeps.engines.optuna_study.prior_sampler import origin_of
from sweeps.engines.optuna_study.replayable_sampler import FACTS, STATE_ATTRIBUTE
from sweeps.formatting import error_text
from tracking.addresses import redacted, scrubbed
from tracking.mlflow_server.schema_lock import first_alone
from tracking.stores import OPTUNA_TABLES, WatchedFile, check_owner, is_there

optuna.logging.set_verbosity(optuna.logging.ERROR)  # Its hints are not for our users.

Study: TypeAlias = optuna.Study
SAMPLED, BASELINE = "sampled", "baseline"
"""User attributes of a trial."""


def open_storage(url: str, *, existing: bool = False) -> optuna.storages.BaseStorage:
    """Opens the storage of studies; makes its file and tables where there are none.

    Args:
        existing: whether it must be there: for who only reads.

    Raises:
        InputError: It cannot be opened, is MLflow's, or is not there.
    """
    check_owner(url, "--storage", OPTUNA_TABLES)
    if existing and not is_there(url, OPTUNA_TABLES):
        raise InputError(
            f"The storage {redacted(url)} holds no studies. Change into the folder that the sweep "
            "was started in, or name its storage with --storage."
        )
    engine: dict[str, Any] = {}
    if url.startswith("sqlite"):
        engine = {"connect_args": {"timeout": 60}}
    elif url.startswith("postgresql"):
        # A server that was restarted, or a proxy, has closed what was open; that is found out here.
        engine = {"pool_pre_ping": True}
    try:
        with first_alone(url):  # Two that make the tables at once collide.
            if engine:
                storage = optuna.storages.RDBStorage(url, engine_kwargs=engine)
                watched = WatchedFile(url)
                event.listen(storage.engine, "checkout", lambda *found: watched.check())
                return storage
            return optuna.storages.get_storage(url)  # type: ignore[return-value]
    except Exception as error:  # SQLAlchemy, the driver and Optuna each raise their own.
        # Of tables of another version Optuna says which command upgrades them, without the address;
        # the texts of the others may hold a password, unless the database is a file.
        is_file = url.startswith("sqlite")
        reason = error_text(error) if is_file else type(error).__name__
        reason = str(error) if type(error) is RuntimeError else reason
        raise InputError(
            "--storage must be a database that Optuna can use. Received: "
            f"{redacted(url)} ({reason})."
        ) from error


@contextmanager
def study_errors(url: str) -> Iterator[None]:
    """What a database does not do is said as it says it, in one line.

    Raises:
        InputError: The storage at `url` cannot be read or written.
    """
    try:
        yield
    except StorageInternalError as error:
        raise InputError(
            f"The study in {redacted(url)} cannot be used: {scrubbed(error_text(error), url)}."
        ) from error


def study_exists(storage: optuna.storages.BaseStorage, name: str) -> bool:
    """Whether the storage holds a study of that name."""
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return False
    return True


def delete_study(url: str, name: str) -> None:
    """Deletes a study with its trials; raises InputError where the storage cannot be opened."""
    optuna.delete_study(study_name=name, storage=open_storage(url, existing=True))


def open_study(url: str, name: str) -> Study:
    """A study in its storage, as it is.

    Raises:
        InputError: The storage cannot be opened, or does not hold it.
    """
    try:
        with study_errors(url):
            storage = open_storage(url, existing=True)
            return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise InputError(
            f"The storage {redacted(url)} has no study '{name}'. Load the sweep in the folder that "
            "it was started in."
        ) from None


def read_study(
    storage: optuna.storages.BaseStorage, name: str, space: Space | None, sampler: str | None
) -> list[PastTrial]:
    """The trials of a study, which is not changed.

    Args:
        space: None where it cannot be asked; then a trial that was killed while it was sampled has
            no params.

    Raises:
        KeyError: The storage does not hold it.
    """
    study = optuna.load_study(study_name=name, storage=storage)
    points = [params for _, params in study.user_attrs.get("baselines", [])]
    grid = Grid(points) if sampler == "grid" else None
    return [
        past_trial(trial, stored_params(trial, space, grid))
        for trial in study.get_trials(deepcopy=False)
        if trial.state is not OptunaState.WAITING
    ]


def damaged_trials(storage: optuna.storages.BaseStorage, name: str) -> list[str]:
    """One line for each trial of a study that cannot be read, whatever it is that was changed.

    Raises:
        KeyError: The storage does not hold the study.
    """
    study, found = optuna.load_study(study_name=name, storage=storage), []
    for trial in study.get_trials(deepcopy=False):
        try:
            past_trial(trial, stored_params(trial, None, None))
        except Exception as error:  # Attributes of any type, where somebody edited them.
            found.append(
                f"trial {trial.number} of the study is damaged ({error_text(error)}). Restore the "
                "database from a copy."
            )
    return found


def stored_params(trial: FrozenTrial, space: Space | None, grid: Grid | None) -> Params:
    """The point of a trial; empty where it is not sampled in full."""
    known = trial.user_attrs.get(SAMPLED)
    if isinstance(known, dict):
        return known
    if space is None:
        return {}
    try:
        return space.sample(OptunaHyperParameters(trial, grid, StoredNames(space.parameters)))
    except ValueError:
        return {}


def past_trial(
    trial: FrozenTrial, params: Params, first: int | None = None, breaks_limit: str = ""
) -> PastTrial:
    """A stored trial as the loop takes it over.

    Args:
        first: the trial whose point it repeats, if any.
        breaks_limit: the limit that its point breaks, if any.
    """
    origin = origin_of(trial.user_attrs)
    stored = TrialState(trial.user_attrs.get(STATE_ATTRIBUTE, TrialState.RUNNING))
    state = _actual_state(trial, stored)
    return PastTrial(
        number=trial.number,
        params=params,
        state=state,
        value=trial.value if trial.state is OptunaState.COMPLETE else None,
        curve=dict(sorted(trial.intermediate_values.items())),
        baseline=trial.user_attrs.get(BASELINE),
        reason=trial.user_attrs.get("reason", AT_RUNG if state is TrialState.PAUSED else ""),
        facts=trial.user_attrs.get(FACTS, {}),
        duplicate_of=first,
        ended_at=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        proposed_by=origin.text if origin else "",
        breaks_limit=breaks_limit,
        measured=trial.user_attrs.get(MEASURED, {}),
    )


def _actual_state(trial: FrozenTrial, stored: TrialState) -> TrialState:
    """The state that holds where a kill came between the attribute and the end itself."""
    if trial.state is OptunaState.RUNNING:
        return TrialState.PAUSED if stored is TrialState.PAUSED else TrialState.RUNNING
    if trial.state is OptunaState.FAIL:
        return TrialState.KILLED if stored is TrialState.KILLED else TrialState.FAILED
    return TrialState(trial.state.name)
