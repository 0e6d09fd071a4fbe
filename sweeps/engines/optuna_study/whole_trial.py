"""A new trial with all its parameters, written into Optuna's tables in five statements.

Optuna's storage asks the database three times for each parameter: for the trial, for an earlier
trial that has the parameter, and to insert it. With twenty parameters that was half of all that a
trial cost the driver (docs/log.md). Who is the only writer of a study knows the answers.
"""

from __future__ import annotations

import json

from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

try:  # No interface of Optuna: where a later version has them elsewhere, it writes itself.
    from optuna.storages._rdb import models
    from optuna.storages._rdb.storage import _create_scoped_session
except ImportError:
    models = None  # type: ignore[assignment]

KNOWN_SCHEMA = 12
"""Of Optuna's tables: into those of a later one Optuna writes itself."""


def can_insert(storage: BaseStorage, template: FrozenTrial | None) -> bool:
    """Whether `insert_trial` does what the storage would: for a trial that has only its point."""
    if models is None or not isinstance(storage, RDBStorage) or template is None:
        return False
    is_new = template.state in (TrialState.RUNNING, TrialState.WAITING)
    has_results = template.values is not None or bool(template.intermediate_values)
    return models.SCHEMA_VERSION == KNOWN_SCHEMA and is_new and not has_results


def insert_trial(storage: RDBStorage, study_id: int, template: FrozenTrial) -> int:
    """Writes the rows that `RDBStorage.create_new_trial` writes, as one commit; returns the id.

    Whether a parameter's distribution goes with that of earlier trials is for the caller to see.

    Raises:
        KeyError: There is no such study.
        StorageInternalError: The database did not take it.
    """
    with _create_scoped_session(storage.scoped_session) as session:
        # Locks the study, so that the trial's number is its own.
        models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
        trial = models.TrialModel(
            study_id=study_id, state=template.state, datetime_start=template.datetime_start
        )
        session.add(trial)
        session.flush()
        trial_id = int(trial.trial_id)
        trial.number = trial.count_past_trials(session)
        session.add_all(
            models.TrialParamModel(
                trial_id=trial_id,
                param_name=name,
                param_value=distribution.to_internal_repr(template.params[name]),
                distribution_json=distribution_to_json(distribution),
            )
            for name, distribution in template.distributions.items()
        )
        for model, attributes in (
            (models.TrialUserAttributeModel, template.user_attrs),
            (models.TrialSystemAttributeModel, template.system_attrs),
        ):
            session.add_all(
                model(trial_id=trial_id, key=key, value_json=json.dumps(value))
                for key, value in attributes.items()
            )
    return trial_id
