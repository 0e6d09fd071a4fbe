"""A study's storage as its only writer needs it.

What was read or written once is not read again, and several writes can be one commit: with a
database, reading the trials that have not ended and committing are nearly all that a trial costs.
Other processes may read the study meanwhile; whoever writes trials at the same time is not seen.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.engines.optuna_study.whole_trial import can_insert, insert_trial

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy
    from sqlalchemy.orm import Session, sessionmaker

ENDS = tuple(state for state in TrialState if state.is_finished())


class SoleWriterStorage(BaseStorage):
    """Writes through to `backend`, and answers from memory."""

    def __init__(self, backend: BaseStorage) -> None:
        self._backend = backend
        self._trials: dict[int, list[FrozenTrial]] = {}
        self._places: dict[int, tuple[int, int]] = {}
        self._attributes: dict[int, dict[str, Any]] = {}
        self._distributions: dict[int, dict[str, BaseDistribution]] = {}
        self._unfinished: dict[int, set[int]] = {}
        self._directions: dict[int, list[StudyDirection]] = {}
        self._is_joined = False
        self._joined_sessions: sessionmaker[Session] | None = None
        self._study_ids: set[int] = set()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In the block, what is written is one commit, where the backend is a database.

        After an error nothing of it is in the database, and what is known is read anew. It is for
        attributes, values and ends of trials, which nobody else writes: what Optuna itself recovers
        from, a row that another process has made, ends such a block.

        Raises:
            StorageInternalError: The database did not take it.
        """
        if self._is_joined or not isinstance(self._backend, RDBStorage):
            yield
            return
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.orm import scoped_session, sessionmaker

        if self._joined_sessions is None:
            # Optuna commits after every write; that ends no transaction but its own (SQLAlchemy,
            # "Joining a Session into an External Transaction"). Made once: it makes a class.
            self._joined_sessions = sessionmaker(join_transaction_mode="rollback_only")
        own = self._backend.scoped_session
        self._is_joined = True
        try:
            with self._backend.engine.begin() as connection:
                self._joined_sessions.configure(bind=connection)
                self._backend.scoped_session = scoped_session(self._joined_sessions)
                yield
                transaction = connection.get_transaction()
                if transaction is None or not transaction.is_active:
                    raise StorageInternalError("a write was rolled back")
        except SQLAlchemyError as error:
            self._forget()
            raise StorageInternalError(str(error)) from error
        except BaseException:
            self._forget()
            raise
        finally:
            self._backend.scoped_session = own
            self._is_joined = False

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """As Optuna's storages."""
        return self._backend.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """Nothing deletes a study that it writes."""
        raise NotImplementedError

    def get_study_id_from_name(self, study_name: str) -> int:
        """As Optuna's storages."""
        return self._backend.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """As Optuna's storages."""
        return self._backend.get_study_name_from_id(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        """As Optuna's storages."""
        return self._backend.get_all_studies()

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As Optuna's storages."""
        if study_id not in self._directions:
            self._directions[study_id] = self._backend.get_study_directions(study_id)
        return self._directions[study_id]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As Optuna's storages."""
        if study_id not in self._attributes:
            self._attributes[study_id] = self._backend.get_study_user_attrs(study_id)
        return dict(self._attributes[study_id])

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As Optuna's storages; asks each time, as optuna-dashboard writes notes there."""
        return self._backend.get_study_system_attrs(study_id)

    def has_study_system_attr(self, study_id: int, key: str) -> bool:
        """Whether the study has a system attribute now, whoever wrote it.

        A study has some for each trial; they are not all read for that.
        """
        if not isinstance(self._backend, RDBStorage):
            return key in self._backend.get_study_system_attrs(study_id)
        from sqlalchemy import column, literal, select, table
        from sqlalchemy.exc import SQLAlchemyError

        attributes = table("study_system_attributes", column("study_id"), column("key"))
        found = select(literal(1)).select_from(attributes)
        found = found.where(attributes.c.study_id == study_id, attributes.c.key == key)
        try:
            with self._backend.engine.connect() as connection:
                return connection.scalar(found) is not None
        except SQLAlchemyError as error:
            raise StorageInternalError(str(error)) from error

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """As Optuna's storages."""
        self._backend.set_study_user_attr(study_id, key, value)
        self._attributes.pop(study_id, None)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """As Optuna's storages."""
        self._backend.set_study_system_attr(study_id, key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna's storages."""
        known = self._known(study_id)
        if can_insert(self._backend, template_trial):
            assert isinstance(self._backend, RDBStorage) and template_trial is not None
            self._check(study_id, template_trial.distributions)
            trial_id = insert_trial(self._backend, study_id, template_trial)
        else:
            trial_id = self._backend.create_new_trial(study_id, template_trial)
        trial = copy.deepcopy(template_trial) or self._backend.get_trial(trial_id)
        trial.number, trial._trial_id = len(known), trial_id
        trial.user_attrs = _as_stored(trial.user_attrs)
        self._places[trial_id] = study_id, len(known)
        self._distributions[study_id] = trial.distributions | self._distributions[study_id]
        known.append(trial)
        self._note_state(trial_id, trial)
        return trial_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """As Optuna's storages."""
        self._backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        trial = self._changing(trial_id)
        value = distribution.to_external_repr(param_value_internal)
        trial.params = {**trial.params, param_name: value}
        trial.distributions = {**trial.distributions, param_name: distribution}
        self._distributions[self._place(trial_id)[0]].setdefault(param_name, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's storages."""
        if not self._backend.set_trial_state_values(trial_id, state, values):
            return False
        trial = self._changing(trial_id)
        trial.state = state
        self._note_state(trial_id, trial)
        if values is not None:
            trial.values = list(values)
        if state is TrialState.RUNNING:
            trial.datetime_start = datetime.now()
        if state.is_finished():
            trial.datetime_complete = datetime.now()
        return True

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """As Optuna's storages."""
        self._backend.set_trial_intermediate_value(trial_id, step, intermediate_value)
        trial = self._changing(trial_id)
        trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's storages."""
        self._backend.set_trial_user_attr(trial_id, key, value)
        trial = self._changing(trial_id)
        trial.user_attrs = {**trial.user_attrs, key: _as_stored(value)}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's storages."""
        self._backend.set_trial_system_attr(trial_id, key, value)
        trial = self._changing(trial_id)
        trial.system_attrs = {**trial.system_attrs, key: _as_stored(value)}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As Optuna's storages."""
        study_id, number = self._place(trial_id)
        return self._trials[study_id][number]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """As Optuna's storages."""
        found = list(self._known(study_id))
        if states is not None:
            # Asked before every proposal: those that have ended are most of them.
            if not any(state in states for state in ENDS):
                found = [found[place] for place in sorted(self._unfinished[study_id])]
            found = [trial for trial in found if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_n_trials(
        self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None
    ) -> int:
        """As Optuna's storages."""
        if state is None:
            return len(self._known(study_id))
        states = (state,) if isinstance(state, TrialState) else state
        return len(self.get_all_trials(study_id, deepcopy=False, states=states))

    def remove_session(self) -> None:
        """Closes what is open to the backend."""
        self._backend.remove_session()

    def _known(self, study_id: int) -> list[FrozenTrial]:
        if study_id not in self._trials:
            self._study_ids.add(study_id)
            found = sorted(self._backend.get_all_trials(study_id), key=lambda t: t.number)
            self._trials[study_id] = found
            self._distributions[study_id] = {
                name: distribution
                for trial in reversed(found)
                for name, distribution in trial.distributions.items()
            }
            self._unfinished[study_id] = set()
            for place, trial in enumerate(found):
                self._places[trial._trial_id] = study_id, place
                self._note_state(trial._trial_id, trial)
        return self._trials[study_id]

    def _check(self, study_id: int, distributions: Mapping[str, BaseDistribution]) -> None:
        """Raises ValueError, as Optuna does, for a parameter that was of another kind before."""
        known = self._distributions[study_id]
        for name, distribution in distributions.items():
            if name in known:
                check_distribution_compatibility(known[name], distribution)

    def _note_state(self, trial_id: int, trial: FrozenTrial) -> None:
        """Takes in whether a trial has ended."""
        study_id, place = self._places[trial_id]
        if trial.state.is_finished():
            self._unfinished[study_id].discard(place)
        else:
            self._unfinished[study_id].add(place)

    def _place(self, trial_id: int) -> tuple[int, int]:
        """The study of a trial, and its number in it; raises KeyError for one of no known study."""
        if trial_id not in self._places:
            for study_id in self._study_ids:  # They were forgotten after an error.
                self._known(study_id)
        return self._places[trial_id]

    def _forget(self) -> None:
        """What is known may not be what is stored."""
        self._trials.clear()
        self._places.clear()
        self._attributes.clear()

    def _changing(self, trial_id: int) -> FrozenTrial:
        """A new copy of a trial in its place: who was given it before keeps it as it was."""
        study_id, number = self._place(trial_id)
        changed = self._trials[study_id][number] = copy.copy(self._trials[study_id][number])
        return changed


def _as_stored(value: Any) -> Any:
    """An attribute as a database gives it back."""
    return json.loads(json.dumps(value))
