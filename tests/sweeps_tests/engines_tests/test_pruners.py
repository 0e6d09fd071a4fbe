"""Rungs, promotions and brackets; and that proposals follow from seed, number and history alone."""

from __future__ import annotations

import math
import sqlite3
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.objectives import OBJECTIVES
from pipelines.training.reports import Reports
from pipelines.training.trial import Decision
from search_spaces.errors import InputError
from search_spaces.registry import get_space
from sweeps.engines.base import TrialState
from sweeps.engines.optuna_study.engine import OptunaEngine, StudyExistsError
from sweeps.engines.optuna_study.sole_writer import SoleWriterStorage
from sweeps.engines.optuna_study.storage import open_storage, open_study
from sweeps.engines.pruners.base import TrialCurve
from sweeps.engines.pruners.halving import (
    HalvingPruner,
    bracket_sizes,
    brackets,
)
from sweeps.engines.pruners.registry import PRUNERS, check_pruner, schedule_text
from sweeps.engines.pruners.rungs import (
    Rungs,
    check_min_epochs,
    default_min_epochs,
    make_rungs,
    parse_min_epochs,
    rung_epochs,
)

ACCURACY = OBJECTIVES["val_accuracy"]


@pytest.mark.parametrize(
    ("settings", "rungs"),
    [
        ((1, 81, 3), (1, 3, 9, 27, 81)),  # Hyperband's own example, table 1.
        ((1, 9, 3), (1, 3, 9)),
        ((1, 4, 3), (1, 4)),
        ((1, 10, 3), (1, 3, 10)),
        ((2, 10, 2), (2, 5, 10)),
        ((5, 5, 3), (5,)),
        ((1, 1, 2), (1,)),
    ],
)
def test_rungs_are_counted_down_from_the_full_budget(settings, rungs):
    assert rung_epochs(*settings) == rungs


@given(st.integers(1, 50), st.integers(0, 300), st.integers(2, 6))
def test_rungs_rise_from_the_least_to_the_full_budget(least, more, factor):
    rungs = rung_epochs(least, least + more, factor)
    assert rungs[-1] == least + more
    assert rungs[0] >= least
    assert list(rungs) == sorted(set(rungs))


def test_brackets_are_those_of_the_paper():
    # JMLR 18 (2018), table 1: R = 81, eta = 3 gives 81, 34, 15, 8 and 5 trials.
    assert bracket_sizes(5, 3) == (81, 34, 15, 8, 5)
    sizes = bracket_sizes(3, 3)
    counts = np.bincount([*islice(brackets(sizes), 90)], minlength=3) / 90
    np.testing.assert_allclose(counts, np.array(sizes) / sum(sizes), atol=0.02)
    assert [*islice(brackets((1.0,)), 5)] == [0] * 5


def test_the_best_share_of_a_rung_is_promotable_and_the_rest_may_wait():
    def rung(*values: float) -> HalvingPruner:
        curves = {n: TrialCurve(n, {1: value}, paused=True) for n, value in enumerate(values)}
        pruner = HalvingPruner(curves, ACCURACY, Rungs((1, 3), reduction_factor=2), hyperband=False)
        for curve in curves.values():
            pruner.changed(curve)
        return pruner

    def promoted(pruner: HalvingPruner) -> list[int]:
        found = []
        while (number := pruner.next_promotion(no_more_trials=False)) is not None:
            found.append(number)
            pruner._curves[number].paused = False
            pruner.changed(pruner._curves[number])
        return found

    four = rung(0.3, 0.9, 0.8, 0.9)
    assert four.unpromotable(4) == [2, 0]
    assert four.unpromotable(8) == []
    assert four.unpromotable(2) == [3, 2, 0], "one can always be promoted"
    assert promoted(four) == [1, 3], "of equals the earlier one first"
    assert promoted(rung(0.9)) == []
    assert promoted(rung(math.nan, 0.1, 0.2)) == [2], "NaN is the worst"


@given(
    st.lists(st.tuples(st.sampled_from("prfd"), st.integers(0, 7), st.integers(0, 5)), max_size=60)
)
def test_standings_that_are_kept_are_those_that_are_counted_anew(steps):
    """Whatever pauses, goes on, fails and reports: promotions follow from the curves alone."""
    curves = {n: TrialCurve(n, protected=n == 7) for n in range(8)}
    rungs = Rungs((1, 3, 9), reduction_factor=3)
    kept = HalvingPruner(curves, ACCURACY, rungs, hyperband=True)
    for what, number, value in steps:
        curve = curves[number]
        if what == "r" and len(curve.values) < 9:
            curve.values[len(curve.values) + 1] = value / 5
            kept.decide(curve, len(curve.values))
        curve.paused = what == "p" and bool(curve.values)
        curve.counts = curve.counts and what != "f"
        curve.complete = curve.complete or what == "d"
        kept.changed(curve)
        anew = HalvingPruner(curves, ACCURACY, rungs, hyperband=True)
        for known in curves.values():
            anew.changed(known)
        assert anew.unpromotable(8) == kept.unpromotable(8)
        before = {n: known.promoted_to for n, known in curves.items()}
        for last in (False, True):
            chosen = [p.next_promotion(no_more_trials=last) for p in (anew, kept)]
            assert chosen[0] == chosen[1]
        for n, step in before.items():
            curves[n].promoted_to = step


def play(curves: list[list[float]], **options: Any) -> tuple[list[int], list[int]]:
    """Runs curves through a pruner with one slot; returns epochs per trial and the order."""
    budget = len(curves[0])
    rungs = Rungs(
        rung_epochs(1, budget, options.pop("factor", 3)), reduction_factor=options.pop("eta", 3)
    )
    known: dict[int, TrialCurve] = {}
    protected = options.pop("protected", ())
    pruner = HalvingPruner(known, ACCURACY, rungs, hyperband=False, **options)
    order = []

    def train(number: int) -> None:
        order.append(number)
        curve = known[number]
        curve.paused = False
        pruner.changed(curve)
        for epoch in range(len(curve.values) + 1, budget + 1):
            curve.values[epoch] = curves[number][epoch - 1]
            decision = pruner.decide(curve, epoch)
            if decision is Decision.PAUSE:
                curve.paused = True
                pruner.changed(curve)
                return

    for number in range(len(curves)):
        while (found := pruner.next_promotion(no_more_trials=False)) is not None:
            train(found)
        known[number] = TrialCurve(number, protected=number in protected)
        train(number)
    while (found := pruner.next_promotion(no_more_trials=True)) is not None:
        train(found)
    return [len(known[n].values) for n in range(len(curves))], order


def rising(levels: list[float], epochs: int = 9) -> list[list[float]]:
    return [[level * (1 - 0.5**e) for e in range(1, epochs + 1)] for level in levels]


def test_the_best_go_on_and_the_others_pause():
    epochs, _ = play(rising([0.1, 0.2, 0.9, 0.3, 0.4, 0.8, 0.5, 0.6, 0.7]))
    assert epochs == [1, 1, 9, 1, 1, 3, 1, 1, 3]


def test_a_trial_that_paused_is_promoted_when_enough_others_are_worse():
    epochs, order = play(rising([0.9, 0.2, 0.1]))
    assert order == [0, 1, 2, 0, 0], "paused at the first rung, promoted by the third trial"
    assert epochs[0] == 9


def test_something_is_always_trained_in_full():
    epochs, _ = play(rising([0.2, 0.3]))
    assert epochs == [1, 9]
    assert play(rising([0.5]))[0] == [9]


def test_protected_trials_train_in_full_and_others_are_compared_with_them():
    epochs, _ = play(rising([0.1, 0.5, 0.4, 0.3, 0.2, 0.15]), protected=(0,))
    assert epochs[0] == 9
    assert epochs[1] > 1


@given(st.lists(st.floats(0.01, 1, allow_nan=False), min_size=1, max_size=30, unique=True))
def test_the_winner_of_steady_curves_is_trained_in_full_and_most_others_are_not(levels):
    epochs, _ = play(rising(levels))
    best = max(range(len(levels)), key=lambda n: levels[n])
    assert epochs[best] == 9
    assert set(epochs) <= {1, 3, 9}
    assert sum(epochs) < 9 * len(levels) or len(levels) <= 2


def test_schedules_are_told_and_names_checked():
    assert "rungs at 1, 3, 9 epochs, the best 1/3" in schedule_text("asha", Rungs((1, 3, 9)))
    for name in PRUNERS:
        check_pruner(name)
    with pytest.raises(InputError, match="Did you mean 'asha'"):
        check_pruner("ahsa")


# The engine


def make_engine(storage: Any = None, **options: Any) -> OptunaEngine:
    defaults: dict[str, Any] = {
        "space": get_space("mlp_layers"), "objective": ACCURACY, "name": "study", "sampler": "tpe",
        "storage": storage or optuna.storages.InMemoryStorage(), "seed": 0, "pruner": "asha",
        "rungs": Rungs((1, 3, 9)),
    }  # fmt: skip
    return OptunaEngine(**{**defaults, **options})


def value_of(params: dict[str, Any], epoch: int) -> float:
    """A made-up surface that TPE can learn."""
    return (1 - abs(params["units_0"] - 512) / 1024) * (1 - 0.6**epoch)


def train(engine: OptunaEngine, number: int, params: dict[str, Any], start: int) -> None:
    for epoch in range(max(1, start), 10):
        decision = engine.report(number, epoch, value_of(params, epoch))
        if decision is Decision.PAUSE:
            engine.pause(number)
            return
    engine.tell(number, TrialState.COMPLETE, value_of(params, 9))


class Loop:
    """A driver with one slot, in a dozen lines, that can be abandoned at any time."""

    def __init__(self, engine: OptunaEngine) -> None:
        self.engine = engine
        self.params = {past.number: past.params for past in engine.past()}
        self.epochs = {past.number: len(past.curve) for past in engine.past()}
        self.open = [p.number for p in engine.past() if p.state is TrialState.RUNNING]

    def step(self) -> None:
        number = self.open.pop(0) if self.open else self.engine.next_promotion(no_more_trials=False)
        if number is None:
            proposal = self.engine.ask()
            assert proposal is not None
            number, self.params[proposal.number] = proposal.number, proposal.params
        train(self.engine, number, self.params[number], self.epochs.get(number, 0))
        self.epochs[number] = len(self.engine._curves[number].values)


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [("prior", "asha"), ("prior", "none"), ("tpe", "asha"), ("tpe", "hyperband"), ("random", "median"), ("cmaes", "none"),
     ("grid", "asha")],
)  # fmt: skip
def test_a_resumed_study_proposes_what_an_uninterrupted_one_does(tmp_path, sampler, pruner):
    def points(resume_after: set[int]) -> list[Any]:
        path = tmp_path / f"{len(resume_after)}.db"
        storage = open_storage(f"sqlite:///{path}")
        baselines = get_space("mlp_layers").distinct_baselines()
        options = {"sampler": sampler, "pruner": pruner, "baselines": baselines}
        loop = Loop(make_engine(storage, **options))
        for step in range(16):
            loop.step()
            if step in resume_after:
                storage = open_storage(f"sqlite:///{path}")
                loop = Loop(make_engine(storage, resume=True, **options))
        return [loop.params[n] for n in sorted(loop.params)]

    whole = points(set())
    assert points({3, 11, 12}) == whole
    assert len(whole) > 9


def test_a_trial_killed_within_its_own_proposal_gets_the_same_point(tmp_path, monkeypatch):
    def point(kill_after: int | None) -> dict[str, Any]:
        path = tmp_path / f"{kill_after}.db"
        engine = make_engine(open_storage(f"sqlite:///{path}"), sampler="tpe")
        for _ in range(12):
            loop = Loop(engine)
            loop.step()
        if kill_after is None:
            proposal = engine.ask()
            assert proposal is not None
            return proposal.params

        class Killed(BaseException):
            pass

        calls = []
        original = SoleWriterStorage.set_trial_param

        def dying(*args: Any, **kwargs: Any) -> None:
            calls.append(1)
            if len(calls) > kill_after:
                raise Killed
            original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(SoleWriterStorage, "set_trial_param", dying)
            patch.setattr(OptunaEngine, "tell", lambda *args: None)  # A kill tells nobody.
            with pytest.raises(Killed):
                engine.ask()
        resumed = make_engine(open_storage(f"sqlite:///{path}"), sampler="tpe", resume=True)
        return resumed.past()[-1].params

    whole = point(None)
    assert [point(k) for k in (0, 1, 5)] == [whole] * 3


@pytest.mark.parametrize("num_parallel", [1, 4])
def test_samplers_see_a_paused_trial_as_one_pruned_where_it_stands(num_parallel):
    """Not as a running one: a constant liar would take its good curve for a bad point."""

    def next_point(end: str) -> dict[str, Any]:
        engine = make_engine(pruner="none", num_parallel=num_parallel)
        for number in range(16):
            proposal = engine.ask()
            assert proposal is not None
            value = value_of(proposal.params, 1)
            engine.report(number, 1, value)
            if number % 2:
                engine.tell(number, TrialState.COMPLETE, value)
            elif end == "paused":
                engine.pause(number)
            elif end == "pruned":
                engine.tell(number, TrialState.PRUNED)
        proposal = engine.ask()
        assert proposal is not None
        return proposal.params

    assert next_point("paused") == next_point("pruned")
    assert next_point("paused") != next_point("running")


def test_baselines_are_protected_unless_told_otherwise():
    baselines = get_space("mlp_layers").distinct_baselines()

    def first_decision(**options: Any) -> Decision:
        engine = make_engine(baselines=baselines, **options)
        proposal = engine.ask()
        assert proposal is not None
        return engine.report(proposal.number, 1, 0.1)

    assert first_decision() is Decision.GO_ON
    assert first_decision(protect_baselines=False) is Decision.PAUSE


def test_an_early_stopped_trial_is_complete_and_nothing_is_promoted_for_want_of_one():
    engine = make_engine()
    for number, value in enumerate((0.9, 0.5)):
        engine.ask()
        engine.report(number, 1, value)
        engine.pause(number)
    engine.ask()
    engine.report(2, 1, 0.4)
    engine.tell(2, TrialState.COMPLETE, 0.4)  # By its own patience, before the last rung.
    assert engine.next_promotion(no_more_trials=False) == 0
    engine.pause(0)
    engine.tell(0, TrialState.PRUNED)
    assert engine.next_promotion(no_more_trials=True) is None


def test_a_trial_that_is_resumed_goes_on_to_its_next_rung():
    engine = make_engine()
    for number in range(2):
        engine.ask()
        assert engine.report(number, 1, 0.9 - number) is Decision.PAUSE
        engine.pause(number)
    engine.resume(1)
    assert engine.report(1, 1, -0.1) is Decision.GO_ON, "its rung reports once more"
    assert engine.report(1, 2, -0.1) is Decision.GO_ON
    assert engine.report(1, 3, -0.1) is Decision.PAUSE


def test_repeated_points_are_recognised_unless_the_first_one_failed():
    point = get_space("mlp_layers").complete({"num_layers": 1})
    engine = make_engine(baselines=[(("one",), point), (("two",), point), (("three",), point)])
    first, second = engine.ask(), engine.ask()
    assert first is not None and second is not None
    assert first.duplicate_of is None and second.duplicate_of == 0
    engine.tell(0, TrialState.FAILED, None, "crash")
    third = engine.ask()
    assert third is not None and third.duplicate_of is None


def test_what_was_killed_is_proposed_again_and_what_failed_is_not(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    engine = make_engine(storage)
    params = []
    for number, state in enumerate((TrialState.KILLED, TrialState.FAILED)):
        proposal = engine.ask()
        assert proposal is not None
        params.append(proposal.params)
        engine.tell(number, state, None, "why")
    for _ in range(2):  # Resumed twice, proposed again once.
        engine = make_engine(storage, resume=True)
    again, new = engine.ask(), engine.ask()
    assert again is not None and again.params == params[0] and again.duplicate_of is None
    assert new is not None and new.params not in params


@pytest.mark.parametrize("pruner", ["median", "percentile", "patient"])
def test_optunas_pruners_stop_bad_trials_for_good(pruner):
    engine = make_engine(pruner=pruner)
    decisions = []
    for number in range(12):
        engine.ask()
        level = 0.9 if number < 8 else 0.1
        for epoch in range(1, 10):
            decision = engine.report(
                number, epoch, level + 0.001 * epoch * (1 if number < 8 else -1)
            )
            if decision is not Decision.GO_ON:
                break
        decisions.append(decision)
        state = TrialState.COMPLETE if decision is Decision.GO_ON else TrialState.PRUNED
        engine.tell(number, state, level)
    assert Decision.STOP in decisions[8:]
    assert decisions[:5] == [Decision.GO_ON] * 5, "the first five are trained in full"


def test_a_study_of_another_sweep_or_space_is_not_touched(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    make_engine(storage, uid="one")
    with pytest.raises(StudyExistsError):
        make_engine(storage, resume=True, uid="other")
    with pytest.raises(InputError, match="has changed"):
        make_engine(storage, resume=True, uid="one", space=get_space("cnn"))


def test_what_a_database_does_not_do_is_said_as_it_says_it(tmp_path):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    make_engine(open_storage(url))
    with sqlite3.connect(tmp_path / "optuna.db") as database:
        database.execute("ALTER TABLE studies RENAME COLUMN study_name TO other")
    with pytest.raises(InputError, match=r"optuna.db cannot be used: Oper.*no such column"):
        open_study(url, "study")
    (tmp_path / "optuna.db").write_bytes((tmp_path / "optuna.db").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"optuna.db.*Error: .*(malformed|disk I/O|not a datab)"):
        open_study(url, "study")


@pytest.mark.parametrize(
    ("settings", "steps", "per_epoch", "text"),
    [
        (("1/9", 8, 3), (1, 3, 9, 27, 72), 9, "0.11, 0.33, 1, 3, 8 epochs"),
        (("1/3", 8, 3), (1, 3, 9, 24), 3, "0.33, 1, 3, 8 epochs"),
        (("1/5", 8, 3), (1, 3, 9, 24), 3, "0.33, 1, 3, 8 epochs"),
        (("1/4", 4, 2), (1, 2, 4, 8, 16), 4, "0.25, 0.5, 1, 2, 4 epochs"),
        (("1", 8, 3), (3, 8), 1, "3, 8 epochs"),
        (("2", 8, 2), (2, 4, 8), 1, "2, 4, 8 epochs"),
        (("1/3", 1, 3), (1, 3), 3, "0.33, 1 epochs"),
    ],
)
def test_rungs_may_lie_within_the_first_epoch(settings, steps, per_epoch, text):
    rungs = make_rungs(parse_min_epochs(settings[0]), *settings[1:])
    assert (rungs.steps, rungs.reports.per_epoch, rungs.text) == (steps, per_epoch, text)
    assert rungs.reports.early == tuple(step for step in steps if step < per_epoch)


@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 3))
def test_rungs_rise_from_any_fraction_to_the_full_budget(max_epochs, factor, halvings):
    least = Fraction(1, factor**halvings)
    rungs = make_rungs(least, max_epochs, factor)
    assert list(rungs.steps) == sorted(set(rungs.steps))
    assert rungs.steps[-1] == max_epochs * rungs.reports.per_epoch
    assert rungs.steps[0] >= least * rungs.reports.per_epoch
    assert all(rungs.reports.next_step(step - 1) == step for step in rungs.steps)


def test_the_first_rung_has_enough_images():
    assert default_min_epochs(50_000, 8, 3) == Fraction(1, 3)
    assert default_min_epochs(10_000, 8, 3) == 1
    assert default_min_epochs(1_200_000, 8, 3) == Fraction(1, 81)
    assert default_min_epochs(1_437, 30, 3) == 7
    assert default_min_epochs(100, 30, 3) == 10, "there is a rung"
    assert default_min_epochs(100, 2, 3) == 1
    check_min_epochs(Fraction(1, 9), 50_000)
    check_min_epochs(Fraction(1), 10)
    with pytest.raises(InputError, match=r"Received: 1/81, which is 617 of 50,000"):
        check_min_epochs(Fraction(1, 81), 50_000)
    for text in ("0", "-1", "1.5", "4/3", "one", "1/0"):
        with pytest.raises(InputError, match="--min-epochs must be a whole number"):
            parse_min_epochs(text)


def test_a_value_within_the_first_epoch_is_compared_with_its_like_only():
    curve = TrialCurve(0, values={1: 0.99, 3: 0.6, 6: 0.7})
    thirds = Reports(3, (1,))
    assert curve.best(ACCURACY, thirds, 1) == 0.99
    assert curve.best(ACCURACY, thirds, 6) == 0.7
