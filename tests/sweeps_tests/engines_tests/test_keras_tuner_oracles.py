"""Keras Tuner's oracles as an engine: the same contract, the same record, nothing lost by a kill."""

from __future__ import annotations

from typing import Any

import engine_contract
import fake_executor
import fake_jobs
import keras_tuner
import optuna
import pytest
import yaml
from driven_commands import drive

from pipelines.objectives import OBJECTIVES
from pipelines.training.trial import Decision
from search_spaces.errors import InputError
from search_spaces.hyperparameters import HyperParameters, active_values
from search_spaces.registry import get_space
from search_spaces.space import Space
from sweeps.engines.base import Proposal, TrialState, Wait
from sweeps.engines.keras_tuner_oracles.engine import KerasTunerEngine
from sweeps.engines.keras_tuner_oracles.protocol import (
    ORACLES,
    OracleAnswer,
    OracleQuestion,
    OracleTrial,
    oracle_brackets,
)
from sweeps.engines.keras_tuner_oracles.worker import propose
from sweeps.engines.optuna_study.engine import OptunaEngine
from sweeps.engines.optuna_study.storage import open_storage
from sweeps.engines.pruners.rungs import Rungs, rung_epochs
from sweeps.settings import SweepSettings, chosen_search
from sweeps.workers.hosts import OracleHost

ACCURACY = OBJECTIVES["val_accuracy"]


def make_engine(oracle: str, **options: Any) -> KerasTunerEngine:
    settings: dict[str, Any] = {
        "space": get_space("cnn"), "objective": ACCURACY, "seed": 0, "name": "study",
        "storage": optuna.storages.InMemoryStorage(), "sampler": "random", "max_epochs": 1,
        "pruner": "none",
    } | options  # fmt: skip
    max_epochs = settings.pop("max_epochs")
    rungs = Rungs(rung_epochs(1, max_epochs, 3))
    record = OptunaEngine(**settings, rungs=rungs)
    return KerasTunerEngine(
        record, settings["space"], ACCURACY, oracle, settings["seed"], max_epochs, 3, propose
    )


class TestRandom(engine_contract.EngineContract):
    takes_points = False

    def make_engine(self, **options: Any) -> KerasTunerEngine:
        return make_engine("random", **options)


class TestBayesian(engine_contract.EngineContract):
    takes_points = False

    def make_engine(self, **options: Any) -> KerasTunerEngine:
        return make_engine("bayesian", **options)


class TestHyperband(engine_contract.EngineContract):
    takes_points = False

    def make_engine(self, **options: Any) -> KerasTunerEngine:
        return make_engine("hyperband", **options)


class TestGrid(engine_contract.EngineContract):
    takes_points = False
    follows_seed = False

    def make_engine(self, **options: Any) -> KerasTunerEngine:
        return make_engine("grid", **options)


def toy_space() -> Space:
    """Every kind of parameter, a condition, and one that is hidden behind a plain `if`."""

    def sample(hp: HyperParameters) -> dict[str, Any]:
        kind = hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", ["b"]):
            hp.Int("size", 8, 64, step=2, sampling="log")
        hp.Float("share", 0.0, 0.5, step=0.1, default=0.2)
        hp.Float("rate", 1e-4, 1e-1, sampling="log")
        if kind == "a":
            hp.Boolean("extra")
        return active_values(hp)

    return Space("toy", "", sample, None, lambda params, shape: ())  # type: ignore[arg-type]


def value_of(params: dict[str, Any], epoch: int) -> float:
    """A made-up surface: the best share is 0.4, longer is better."""
    return (1 - abs(params["share"] - 0.4)) * (1 - 0.6**epoch) + params["rate"] / 10


class Loop:
    """A driver with some slots that can be abandoned at any time; every trial has its epochs."""

    def __init__(self, engine: KerasTunerEngine, max_epochs: int, num_trials: int) -> None:
        self.engine, self.max_epochs, self.num_trials = engine, max_epochs, num_trials
        past = engine.past()
        self.params = {trial.number: trial.params for trial in past}
        self.epochs = {trial.number: len(trial.curve) for trial in past}
        self.running = [t.number for t in past if t.state is TrialState.RUNNING]

    def fill(self) -> bool:
        """Starts one trial; False where there is none."""
        last = len(self.params) >= self.num_trials
        number = self.engine.next_promotion(no_more_trials=last and not self.running)
        if number is None and not last:
            proposal = self.engine.ask()
            if not isinstance(proposal, Proposal):
                return False
            number, self.params[proposal.number] = proposal.number, proposal.params
            self.epochs[proposal.number] = 0
        if number is None:
            return False
        self.running.append(number)
        return True

    def train(self) -> None:
        """Trains the trial that has run longest until it waits or ends."""
        number = self.running.pop(0)
        for epoch in range(self.epochs[number] + 1, self.max_epochs + 1):
            self.epochs[number] = epoch
            value = value_of(self.params[number], epoch)
            if self.engine.report(number, epoch, value) is Decision.PAUSE:
                self.engine.pause(number)
                return
        self.engine.tell(number, TrialState.COMPLETE, value_of(self.params[number], epoch))


def run(engine: KerasTunerEngine, num_trials: int, max_epochs: int, num_slots: int = 1) -> Loop:
    loop = Loop(engine, max_epochs, num_trials)
    while True:
        while len(loop.running) < num_slots and loop.fill():
            pass
        if not loop.running:
            return loop
        loop.train()


def small_space() -> Space:
    """Two numbers, so that the Bayesian oracle searches from its seventh point on."""

    def sample(hp: HyperParameters) -> dict[str, Any]:
        hp.Float("share", 0.0, 0.5, step=0.1)
        hp.Float("rate", 1e-4, 1e-1, sampling="log")
        return active_values(hp)

    return Space("small", "", sample, None, lambda params, shape: ())  # type: ignore[arg-type]


@pytest.mark.parametrize("oracle", list(ORACLES))
def test_a_resumed_study_proposes_what_an_uninterrupted_one_does(tmp_path, oracle):
    space, num_trials = (small_space(), 8) if oracle == "bayesian" else (toy_space(), 18)

    def outcome(resume_after: set[int]) -> Any:
        path = tmp_path / f"{len(resume_after)}.db"
        options = {"space": space, "max_epochs": 9}
        engine = make_engine(oracle, storage=open_storage(f"sqlite:///{path}"), **options)
        loop = Loop(engine, 9, num_trials)
        steps = 0
        while loop.fill():
            if steps in resume_after:  # Between the proposal and its training.
                storage = open_storage(f"sqlite:///{path}")
                engine = make_engine(oracle, storage=storage, resume=True, **options)
                loop = Loop(engine, 9, num_trials)
            loop.train()
            steps += 1
        return loop.params, loop.epochs

    whole = outcome(set())
    assert outcome({2, 6, num_trials - 2}) == whole
    assert len(whole[0]) == num_trials


def test_hyperband_continues_trials_and_keeps_its_brackets():
    """As Keras Tuner's own: 12 configurations from 1 epoch, the best 4 to 3, the best to 9."""
    assert oracle_brackets(9, 3) == ((9, 1), (5, 3), (3, 9))
    loop = run(make_engine("hyperband", space=toy_space(), max_epochs=9), 17, 9, num_slots=2)
    first, second, third = (
        [loop.epochs[n] for n in numbers] for numbers in (range(9), range(9, 14), range(14, 17))
    )
    assert sorted(first) == [1] * 6 + [3] * 2 + [9]
    assert sorted(second) == [3] * 3 + [9] * 2
    assert sorted(third) == [9] * 3
    best = max(range(9), key=lambda n: value_of(loop.params[n], 1))
    assert loop.epochs[best] == 9


@pytest.mark.parametrize("max_epochs", [1, 2, 3, 4, 9, 10, 27, 81, 100])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_brackets_that_are_said_are_keras_tuners(max_epochs, factor):
    space = keras_tuner.HyperParameters()
    oracle = keras_tuner.oracles.HyperbandOracle(
        keras_tuner.Objective("val_accuracy", "max"), max_epochs, factor, hyperparameters=space,
        seed=1,
    )  # fmt: skip
    numbers = reversed(range(oracle._get_num_brackets()))
    found = tuple((oracle._get_size(b, 0), oracle._get_epochs(b, 0)) for b in numbers)
    assert oracle_brackets(max_epochs, factor) == found


def test_a_sweep_that_ends_within_a_bracket_still_has_a_winner():
    loop = run(make_engine("hyperband", space=toy_space(), max_epochs=9), 4, 9)
    best = max(loop.params, key=lambda n: value_of(loop.params[n], 1))
    assert loop.epochs == {n: 9 if n == best else 1 for n in range(4)}


def test_a_promoted_trial_goes_on_where_the_driver_died_before_it_knew(tmp_path, monkeypatch):
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    options = {"space": toy_space(), "max_epochs": 9, "storage": storage}
    loop = Loop(make_engine("hyperband", **options), 9, 17)
    for _ in range(9):
        assert loop.fill()
        loop.train()

    class Killed(BaseException):
        pass

    def dies(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(OptunaEngine, "resume", dies)
        with pytest.raises(Killed):
            loop.fill()
    again = Loop(make_engine("hyperband", resume=True, **options), 9, 17)
    best = max(range(9), key=lambda n: value_of(again.params[n], 1))
    assert again.fill() and again.running == [best]


def test_a_grid_visits_every_point_once_and_waits_for_what_runs():
    def sample(hp: HyperParameters) -> dict[str, Any]:
        hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", ["b"]):
            hp.Int("size", 1, 3)
        return active_values(hp)

    space = Space("tiny", "", sample, None, lambda params, shape: ())  # type: ignore[arg-type]
    engine = make_engine("grid", space=space)
    points = []
    while (proposal := engine.ask()) is not None:
        assert isinstance(proposal, Proposal)
        points.append(proposal.params)
        engine.tell(proposal.number, TrialState.COMPLETE, 0.1)
    assert points == [{"kind": "a"}, *({"kind": "b", "size": size} for size in (1, 2, 3))]
    waiting = make_engine("grid", space=space)
    asked = [waiting.ask() for _ in range(3)]
    assert isinstance(asked[-1], Wait), "the point after the last is known when that has ended"


def test_a_parameter_that_appears_later_joins_the_oracles_space():
    """`extra` is there for kind `a` only, behind a plain `if`: nobody can know of it before."""
    questions: list[OracleQuestion] = []
    space = toy_space()
    hidden = Space(
        "toy", "", space.sample, None, lambda params, shape: (),  # type: ignore[arg-type]
        see_all=lambda sample: tuple(p for p in space.parameters if p.name != "extra"),
    )  # fmt: skip
    record = OptunaEngine(
        hidden, ACCURACY, optuna.storages.InMemoryStorage(), "study", "random", 0, pruner="none"
    )

    def asked(question: OracleQuestion) -> Any:
        questions.append(question)
        return propose(question)

    engine = KerasTunerEngine(record, hidden, ACCURACY, "random", 0, 1, 3, asked)
    seen = set()
    for _ in range(16):
        proposal = engine.ask()
        assert isinstance(proposal, Proposal)
        engine.tell(proposal.number, TrialState.COMPLETE, 0.1)
        seen.add(proposal.params.get("extra"))
    assert "extra" not in {p.name for p in questions[0].parameters}
    assert "extra" in {p.name for p in questions[-1].parameters}
    assert seen >= {True, False}


def test_the_bayesian_oracle_learns_from_what_it_is_told():
    """On a line: after three random points its own lie closer to the best one."""

    def sample(hp: HyperParameters) -> dict[str, Any]:
        hp.Float("x", 0.0, 1.0)
        return active_values(hp)

    space = Space("line", "", sample, None, lambda params, shape: ())  # type: ignore[arg-type]
    engine = make_engine("bayesian", space=space)
    distances = []
    for _ in range(8):
        proposal = engine.ask()
        assert isinstance(proposal, Proposal)
        distances.append(abs(float(proposal.params["x"]) - 0.7))
        engine.tell(proposal.number, TrialState.COMPLETE, 1 - distances[-1] ** 2)
    assert sorted(distances[3:])[2] < 0.15, "half of its points; of random ones a quarter"


def test_published_baselines_teach_the_bayesian_oracle_too():
    space = toy_space()
    points = [space.complete({"share": share}) for share in (0.0, 0.1, 0.2, 0.3, 0.4)]
    baselines = [((f"b{n}",), point) for n, point in enumerate(points)]
    engine = make_engine("bayesian", space=space, baselines=baselines)
    for _ in points:
        proposal = engine.ask()
        assert isinstance(proposal, Proposal)
        engine.tell(proposal.number, TrialState.COMPLETE, value_of(proposal.params, 1))
    question = engine._question()
    assert [trial.values for trial in question.trials] == points
    assert {trial.status for trial in question.trials} == {"COMPLETED"}


def test_running_trials_are_guessed_and_pruned_ones_count_with_what_they_reached():
    engine = make_engine("bayesian", space=toy_space(), max_epochs=9)
    for number in range(4):
        engine.ask()
        engine.report(number, 1, 0.1 * number)
    engine.tell(0, TrialState.COMPLETE, 0.5)
    engine.tell(1, TrialState.PRUNED)
    engine.tell(2, TrialState.FAILED, None, "out of memory")
    found = [(t.status, t.score) for t in engine._question().trials]
    assert found == [("COMPLETED", 0.5), ("COMPLETED", 0.1), ("FAILED", None), ("RUNNING", None)]


def test_a_killed_trial_is_proposed_again_and_keeps_its_place_in_the_bracket(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    options = {"space": toy_space(), "max_epochs": 3, "storage": storage}
    engine = make_engine("hyperband", **options)
    first = engine.ask()
    assert isinstance(first, Proposal)
    engine.tell(first.number, TrialState.KILLED, None, "stopped")
    engine = make_engine("hyperband", resume=True, **options)
    again = engine.ask()
    assert isinstance(again, Proposal)
    assert (again.number, again.params) == (1, first.params)
    (known,) = engine._question().trials
    assert (known.id, known.status) == ("0000", "RUNNING")


@pytest.mark.parametrize("seed", [0, 1])
def test_an_oracle_draws_from_its_seed_alone(seed):
    """Keras Tuner takes a seed of 0 for none, and fills missing values without one."""
    parameters = get_space("mlp").parameters
    lacking = OracleTrial("other-0", {}, "COMPLETED", 0.5, is_own=False)
    for oracle in ORACLES:
        question = OracleQuestion(
            oracle, "val_accuracy", "max", seed, 4, 3, parameters, (lacking,), {}
        )
        assert propose(question) == propose(question)


def test_what_does_not_go_together_is_refused():
    def settings(**options: Any) -> SweepSettings:
        given = {"engine": "optuna", "sampler": None, "oracle": None, "pruner": None} | options
        min_epochs = given.pop("min_epochs", 1)
        return SweepSettings("cnn", min_epochs=min_epochs, **chosen_search(**given))

    assert settings(engine="keras-tuner").oracle == "hyperband"
    assert settings(engine="keras-tuner").pruner == "none"
    assert settings(engine="keras-tuner", oracle="random").pruner == "asha"
    settings(engine="keras-tuner", oracle="bayesian", pruner="median").validate()
    for wrong, message in (
        ({"oracle": "random"}, "--oracle goes with --engine keras-tuner"),
        ({"engine": "keras-tuner", "sampler": "tpe"}, "--sampler goes with --engine optuna"),
        ({"engine": "keras-tuner", "oracle": "bayes"}, "Did you mean 'bayesian'"),
        ({"engine": "keras-tuner", "pruner": "asha"}, "rungs of its own"),
        ({"engine": "keras-tuner", "min_epochs": 2}, "rungs of its own"),
        ({"engine": "ray"}, "engine"),
    ):
        with pytest.raises(InputError, match=message):
            settings(**wrong).validate()


# The process that asks, with a thread in its place


def fake_host(*jobs: Any) -> OracleHost:
    """A host whose process is each of `jobs` in turn."""
    waiting = list(jobs)

    class Faked(fake_executor.InlineExecutor):
        def start(self, job_id: str, job: Any, argument: Any, slot: Any, log_path: str) -> None:
            super().start(job_id, waiting.pop(0), argument, slot, log_path)

    return OracleHost(Faked)


def dying(argument: Any, report: Any, slot: Any) -> None:
    report(None)
    raise fake_jobs.Died("killed by signal SIGKILL")


def answering(argument: Any, report: Any, slot: Any) -> None:
    question = report(None)
    while True:
        question = report(OracleAnswer("IDLE", question.oracle, {}, {}))


def question(oracle: str = "grid") -> OracleQuestion:
    return OracleQuestion(oracle, "val_accuracy", "max", 0, 1, 3, (), ())


def test_a_process_that_died_is_asked_again():
    host = fake_host(dying, answering)
    assert host.propose(question()).id == "grid"
    assert host.propose(question("random")).id == "random"
    host.close()


def test_a_process_that_always_dies_ends_the_search_with_its_reason():
    host = fake_host(dying, dying, dying)
    with pytest.raises(RuntimeError, match=r"oracle 'grid' ended: killed by signal SIGKILL"):
        host.propose(question())


# The commands


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    folder = tmp_path_factory.mktemp("life")
    search = ["run", "--space", "mlp", "--dataset", "digits", "--timeout", "none", "--no-baselines",
              "--engine", "keras-tuner"]  # fmt: skip
    found = drive(folder, {
        "sweep": [*search, "--trials", "4", "--epochs", "3", "--name", "s"],
        "resume": ["run", "--resume", "--name", "s", "--trials", "5"],
        "other oracle": ["run", "--resume", "--name", "s", "--oracle", "grid"],
        "file": ["run", "--resume", "--name", "s", "--write-config"],
        "doctor": ["doctor", "s"],
        "finalize": ["finalize", "s", "--finalists", "2", "--finalist-seeds", "2"],
        "sampler": [*search, "--sampler", "tpe"],
    })  # fmt: skip
    found["folder"] = folder
    return found


@pytest.mark.long
def test_a_sweep_runs_is_resumed_and_agrees_with_mlflow(life):
    for name in ("sweep", "resume", "doctor", "finalize"):
        assert life[name]["status"] == 0, life[name]["err"]
    assert "oracle hyperband, seed 0" in life["sweep"]["out"]
    assert "brackets of 3 from epoch 1, then 2 from epoch 3" in life["sweep"]["out"]
    assert "continues after epoch 1" in life["sweep"]["out"]
    assert life["imported"] == [], "the driver never imports Keras"
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{life['folder']}/optuna.db")
    assert sorted(len(trial.intermediate_values) for trial in study.trials) == [1, 1, 3, 3, 3]
    assert all(trial.params for trial in study.trials), "as of any study, for Optuna's own tools"


@pytest.mark.long
def test_the_engine_is_a_setting_of_the_sweep(life):
    assert life["other oracle"]["status"] == 2
    assert "--oracle was hyperband, is grid" in life["other oracle"]["err"]
    assert life["sampler"]["status"] == 2 and life["sampler"]["err"].count("\n") == 1
    settings = yaml.safe_load(life["file"]["out"])
    assert (settings["engine"], settings["oracle"]) == ("keras-tuner", "hyperband")
    assert settings["pruner"] == "none" and "sampler" not in settings
