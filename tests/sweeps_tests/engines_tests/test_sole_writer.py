"""Several writes as one commit: all of it or nothing, and nobody waits for it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial
from sqlalchemy import text

from pipelines.objectives import OBJECTIVES
from search_spaces.registry import get_space
from sweeps.engines.base import TrialState
from sweeps.engines.optuna_study import whole_trial
from sweeps.engines.optuna_study.engine import OptunaEngine
from sweeps.engines.optuna_study.sole_writer import SoleWriterStorage
from sweeps.engines.optuna_study.whole_trial import can_insert

SPACE = get_space("mlp")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "optuna.db"


def opened(path: Path) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(
        f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 0.1}}
    )


def make_engine(path: Path, space: Any = SPACE, **options: Any) -> OptunaEngine:
    settings: dict[str, Any] = {"name": "s", "sampler": "random", "seed": 0, **options}
    return OptunaEngine(space, OBJECTIVES["val_accuracy"], opened(path), **settings)


def states(path: Path) -> list[str]:
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{path}")
    return [trial.state.name for trial in study.trials]


def test_an_end_that_could_not_be_written_is_told_again(path):
    engine = make_engine(path)
    number = engine.ask().number
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM trials").fetchone()  # Whoever reads keeps commits waiting.
    with pytest.raises(StorageInternalError, match="locked"):
        engine.tell(number, TrialState.COMPLETE, 0.5)
    assert states(path) == ["RUNNING"]
    reader.rollback()
    engine.tell(number, TrialState.COMPLETE, 0.5)
    assert states(path) == ["COMPLETE"]


def test_an_error_among_several_writes_leaves_none_of_them_anywhere(path):
    storage = SoleWriterStorage(opened(path))
    trial = optuna.create_study(storage=storage, study_name="s").ask()
    with pytest.raises(ZeroDivisionError), storage.at_once():
        trial.set_user_attr("one", 1)
        assert storage.get_trial(trial._trial_id).user_attrs == {"one": 1}
        raise ZeroDivisionError
    assert storage.get_trial(trial._trial_id).user_attrs == {}
    with storage.at_once(), storage.at_once():
        storage.set_trial_user_attr(trial._trial_id, "two", (2,))
    assert storage.get_trial(trial._trial_id).user_attrs == {"two": [2]}, "as the database has it"
    (stored,) = optuna.load_study(study_name="s", storage=f"sqlite:///{path}").trials
    assert stored.user_attrs == {"two": [2]}


def test_a_write_that_optuna_takes_back_is_an_error_and_no_silent_loss(path, monkeypatch):
    storage = SoleWriterStorage(opened(path))
    trial = optuna.create_study(storage=storage, study_name="s").ask()

    def taken_back(trial_id: int, key: str, value: Any) -> None:
        session = storage._backend.scoped_session()
        session.execute(text("SELECT 1"))
        session.rollback()

    monkeypatch.setattr(storage._backend, "set_trial_user_attr", taken_back)
    with pytest.raises(StorageInternalError, match="rolled back"), storage.at_once():
        trial.set_user_attr("one", 1)


@pytest.mark.parametrize("sampler", ["random", "tpe", "prior"])
def test_others_can_write_into_the_database_while_a_point_is_drawn(path, sampler):
    tries = []

    def sample(hp: Any) -> Any:
        params = SPACE.sample(hp)
        if path.exists():
            with sqlite3.connect(path, timeout=0) as other:
                other.execute("BEGIN IMMEDIATE")
            tries.append(1)
        return params

    engine = make_engine(path, replace(SPACE, sample=sample), sampler=sampler)
    assert engine.ask() is not None and tries


def test_a_point_that_cannot_be_drawn_fails_and_the_next_session_has_another(path):
    def sample(hp: Any) -> Any:
        params = SPACE.sample(hp)
        if broken:
            raise ValueError("no such layer")
        return params

    broken: list[int] = []
    space = replace(SPACE, sample=sample)
    engine = make_engine(path, space)
    broken.append(1)
    with pytest.raises(ValueError, match="no such layer"):
        engine.ask()
    assert states(path) == ["FAIL"]
    broken.clear()
    assert make_engine(path, space, resume=True).ask().number == 1


def test_of_no_states_there_are_no_trials(path):
    study = optuna.create_study(storage=SoleWriterStorage(opened(path)))
    study.ask()
    assert study.get_trials(states=()) == [] and len(study.get_trials()) == 1


DISTRIBUTIONS = {
    "rate": FloatDistribution(1e-4, 1e-1, log=True), "units": IntDistribution(8, 64, step=8),
    "kind": CategoricalDistribution(["a", "b", None, True, 3]),
}  # fmt: skip
TEMPLATES = [
    create_trial(
        state=OptunaState.RUNNING, params={"rate": 0.01, "units": 16, "kind": True},
        distributions=DISTRIBUTIONS, user_attrs={"sampled": {"rate": 0.01}},
    ),
    create_trial(state=OptunaState.WAITING, system_attrs={"fixed_params": {"rate": 0.1}}),
    create_trial(state=OptunaState.RUNNING, user_attrs={"sampled": True, "of": [1, None, "ä"]}),
    create_trial(state=OptunaState.COMPLETE, value=0.5, intermediate_values={1: 0.25}),
]  # fmt: skip


def rows(path: Path) -> dict[str, list[Any]]:
    """All that a database holds of trials."""
    with sqlite3.connect(path) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE name LIKE 'trial%'")
        return {
            name: database.execute(f"SELECT * FROM {name}").fetchall()
            for (name,) in names.fetchall()
        }


def test_whole_trials_are_the_rows_that_optuna_would_write(tmp_path):
    """Its tables are no interface: this fails where a later version of it writes others."""
    paths = tmp_path / "ours.db", tmp_path / "optunas.db"
    ours, optunas = SoleWriterStorage(opened(paths[0])), opened(paths[1])
    for storage in (ours, optunas):
        study = optuna.create_study(storage=storage, study_name="s")
        for template in TEMPLATES:
            storage.create_new_trial(study._study_id, template)
    assert rows(paths[0]) == rows(paths[1])
    assert can_insert(opened(paths[0]), TEMPLATES[0]) and len(rows(paths[0])["trial_params"]) == 3
    again = optuna.load_study(study_name="s", storage=f"sqlite:///{paths[0]}").trials
    assert again == [ours.get_trial(trial._trial_id) for trial in again]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_parameter_that_was_of_another_kind_is_refused_as_by_optuna(path, resumed):
    def add(storage: SoleWriterStorage, study: optuna.Study, choices: list[str]) -> int:
        template = create_trial(
            state=OptunaState.RUNNING, params={"kind": choices[0]},
            distributions={"kind": CategoricalDistribution(choices)},
        )  # fmt: skip
        return storage.create_new_trial(study._study_id, template)

    storage = SoleWriterStorage(opened(path))
    study = optuna.create_study(storage=storage, study_name="s")
    add(storage, study, ["a", "b"])
    if resumed:
        storage = SoleWriterStorage(opened(path))
    with pytest.raises(ValueError, match="dynamic value space"):
        add(storage, study, ["a", "c"])
    asked = optuna.load_study(study_name="s", storage=storage).ask()
    asked.suggest_int("units", 1, 3)
    other = create_trial(
        state=OptunaState.RUNNING, params={"units": 1.0},
        distributions={"units": FloatDistribution(1, 3)},
    )  # fmt: skip
    with pytest.raises(ValueError, match="distribution kind"):
        storage.create_new_trial(study._study_id, other)
    assert len(states(path)) == 2


def test_a_trial_of_a_study_that_is_gone_is_an_error(path):
    storage = SoleWriterStorage(opened(path))
    study = optuna.create_study(storage=storage, study_name="s")
    assert study.trials == []
    optuna.delete_study(study_name="s", storage=f"sqlite:///{path}")
    with pytest.raises(KeyError):
        storage.create_new_trial(study._study_id, TEMPLATES[0])


def test_an_optuna_whose_tables_are_elsewhere_writes_them_itself(path, monkeypatch):
    monkeypatch.setattr(whole_trial, "models", None)
    storage = SoleWriterStorage(opened(path))
    study = optuna.create_study(storage=storage, study_name="s")
    assert not can_insert(opened(path), TEMPLATES[0])
    storage.create_new_trial(study._study_id, TEMPLATES[0])
    assert len(rows(path)["trial_params"]) == 3
