"""The Optuna engine keeps the contract, tells states truthfully and knows its samplers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import engine_contract
import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from pipelines.objectives import OBJECTIVES
from search_spaces.errors import InputError
from search_spaces.hyperparameters import HyperParameters, active_values, parameters_of
from search_spaces.registry import get_space
from search_spaces.space import Space
from sweeps.engines.base import DEFAULTS, TrialState
from sweeps.engines.optuna_study import samplers
from sweeps.engines.optuna_study.engine import OptunaEngine, StudyExistsError
from sweeps.engines.optuna_study.hyperparameters import OptunaHyperParameters, storage_values
from sweeps.engines.optuna_study.replayable_sampler import STATE_ATTRIBUTE
from sweeps.engines.optuna_study.storage import open_storage, past_trial
from sweeps.settings import SweepSettings, budget_for
from sweeps.setup import stores


def make_engine(**options: Any) -> OptunaEngine:
    defaults: dict[str, Any] = {
        "space": get_space("cnn"), "objective": OBJECTIVES["val_accuracy"],
        "storage": optuna.storages.InMemoryStorage(), "name": "study", "sampler": "tpe", "seed": 0,
    }  # fmt: skip
    return OptunaEngine(**{**defaults, **options})


class TestTpe(engine_contract.EngineContract):
    def make_engine(self, **options: Any) -> OptunaEngine:
        return make_engine(**options)


class TestPrior(engine_contract.EngineContract):
    def make_engine(self, **options: Any) -> OptunaEngine:
        return make_engine(sampler="prior", **options)


class TestRandom(engine_contract.EngineContract):
    def make_engine(self, **options: Any) -> OptunaEngine:
        return make_engine(sampler="random", **options)


class TestCmaes(engine_contract.EngineContract):
    def make_engine(self, **options: Any) -> OptunaEngine:
        return make_engine(sampler="cmaes", **options)


class TestQmc(engine_contract.EngineContract):
    def make_engine(self, **options: Any) -> OptunaEngine:
        return make_engine(sampler="qmc", **options)


class TestGrid(engine_contract.EngineContract):
    takes_points = False

    def make_engine(self, **options: Any) -> OptunaEngine:
        return make_engine(sampler="grid", **options)


def tiny_space() -> Space:
    def sample(hp: HyperParameters) -> dict[str, Any]:
        hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", ["b"]):
            hp.Int("size", 1, 3)
        return active_values(hp)

    return Space("tiny", "", sample, None, lambda params, shape: ())  # type: ignore[arg-type]


def test_a_grid_visits_every_point_once_and_ends():
    engine = make_engine(space=tiny_space(), sampler="grid")
    points = []
    while (proposal := engine.ask()) is not None:
        points.append(tuple(sorted(proposal.params.items())))
        engine.tell(proposal.number, TrialState.COMPLETE, 0.1)
    assert len(points) == len(set(points)) == 4


@pytest.mark.parametrize(
    ("state", "value", "stored"),
    [
        (TrialState.COMPLETE, 0.5, OptunaState.COMPLETE),
        (TrialState.PRUNED, None, OptunaState.PRUNED),
        (TrialState.FAILED, None, OptunaState.FAIL),
        (TrialState.KILLED, None, OptunaState.FAIL),
    ],
)
def test_each_state_is_told_truthfully(state, value, stored, tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    engine = make_engine(storage=storage)
    proposal = engine.ask()
    engine.report(proposal.number, 1, 0.4)
    engine.tell(proposal.number, state, value, "because")
    (trial,) = optuna.load_study(study_name="study", storage=storage).trials
    assert trial.state is stored
    assert trial.user_attrs["state"] == state.value
    assert trial.user_attrs["reason"] == "because"
    assert trial.intermediate_values == {1: 0.4}


def test_optuna_dashboard_shows_the_baselines_name_and_a_link_to_the_run(tmp_path):
    get_note = pytest.importorskip("optuna_dashboard._note").get_note_from_system_attrs
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    ((names, point), *_) = get_space("cnn").distinct_baselines()
    engine = make_engine(storage=storage, baselines=[(names, point)])
    page = {"run_page": "http://127.0.0.1:5000/#/runs/ab"}
    numbers = [engine.ask().number for _ in range(3)]
    (study_id,) = [study._study_id for study in storage.get_all_studies()]
    ids = [trial._trial_id for trial in storage.get_all_trials(study_id)]
    storage.set_study_system_attr(study_id, f"dashboard:{ids[2]}:note_ver", 1)
    storage.set_study_system_attr(study_id, f"dashboard:{ids[2]}:note_str:0", "somebody's")
    for number, facts in zip(numbers, (page, {"run_page": ""}, page), strict=True):
        engine.tell(number, TrialState.COMPLETE, 0.5, facts=facts)
    attributes = storage.get_study_system_attrs(study_id)
    assert [get_note(attributes, trial_id)["body"] for trial_id in ids] == [
        f"Baseline: {', '.join(names)}\n\n[Run in MLflow](http://127.0.0.1:5000/#/runs/ab)",
        "", "somebody's",
    ]  # fmt: skip


def test_the_point_of_a_users_defaults_is_known_as_such_though_it_is_a_baseline():
    engine = make_engine(
        space=tiny_space(), baselines=[(("default",), {"kind": "a"}), (("other",), {"kind": "b"})]
    )
    first, second = engine.ask(), engine.ask()
    assert (first.baseline, first.proposed_by) == ("default", DEFAULTS)
    assert (second.baseline, second.proposed_by) == ("other", "")


def test_a_used_name_is_refused(tiny_data, tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    make_engine(storage=storage)
    with pytest.raises(StudyExistsError, match="study"):
        make_engine(storage=storage)
    settings = SweepSettings("cnn")
    with pytest.raises(InputError, match="'study' is already used .*--resume --name study"):
        stores.make_engine(
            settings, get_space("cnn"), tiny_data, storage, "study", budget_for(settings, 100), 1
        )


def test_tables_of_another_optuna_are_named_with_the_command_that_upgrades_them(tmp_path):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    open_storage(url)
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
        database.commit()
    with pytest.raises(InputError, match="optuna.db .*optuna storage upgrade --storage"):
        open_storage(url)


def test_params_are_stored_under_their_own_names():
    engine = make_engine(baselines=get_space("cnn").distinct_baselines())
    params = engine.ask().params
    trial = engine._study.trials[0]
    assert trial.params == params


def test_what_optuna_has_no_twin_for_is_asked_as_an_index_or_a_unit():
    def sample(hp: Any) -> dict[str, Any]:
        hp.Int("steps", 1, 64, step=2, sampling="log")
        hp.Float("late", 0.1, 0.9, sampling="reverse_log")
        hp.Float("share", 0.0, 0.5, step=0.1)
        hp.Int("odd", 1, 10, step=4)
        hp.Fixed("constant", 3)
        return active_values(hp)

    parameters = {p.name: p for p in parameters_of(sample)}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: dict[str, set[Any]] = {name: set() for name in parameters}
    for _ in range(60):
        trial = study.ask()
        for name, value in sample(OptunaHyperParameters(trial)).items():
            assert parameters[name].contains(value), (name, value)
            seen[name].add(value)
    assert seen["steps"] == {1, 2, 4, 8, 16, 32, 64}
    assert seen["share"] == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert seen["odd"] == {1, 5, 9}
    assert {"steps__index", "late__unit"} <= set(study.trials[0].params)
    stored = storage_values({"steps": 16, "share": 0.3, "late": 0.7}, sample)
    assert stored == {
        "steps__index": 4, "share": 0.3, "odd": 1, "late__unit": parameters["late"].to_unit(0.7),
    }  # fmt: skip
    assert parameters["late"].from_unit(stored["late__unit"]) == 0.7


def test_unknown_samplers_and_missing_packages_are_refused(monkeypatch):
    with pytest.raises(InputError, match="Did you mean 'tpe'"):
        samplers.check_sampler("tpa")
    monkeypatch.setattr(samplers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs PyTorch"):
        samplers.check_sampler("gp")


def test_a_trial_that_waits_says_so_in_the_next_session_too():
    study = optuna.create_study()
    study.ask().set_user_attr(STATE_ATTRIBUTE, "PAUSED")
    study.ask()
    waits, runs = (past_trial(trial, {}) for trial in study.trials)
    assert (waits.state.value, waits.reason) == ("PAUSED", "waits at a rung with its checkpoint")
    assert (runs.state.value, runs.reason) == ("RUNNING", "")


def test_a_study_whose_file_is_removed_meanwhile_ends_with_an_error(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'o.db'}")
    study = optuna.create_study(storage=storage)
    study.tell(study.ask(), 1.0)
    (tmp_path / "o.db").rename(tmp_path / "away.db")
    with pytest.raises(OSError, match=r"o\.db was removed or replaced"):
        study.ask()
