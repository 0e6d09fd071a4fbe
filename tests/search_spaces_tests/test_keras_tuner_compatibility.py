"""Keras Tuner's vocabulary through the driver, its HyperModels in a worker, ours in its tuners."""

from __future__ import annotations

import math
import random
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import optuna
import pytest
import user_models
from changed_tasks import changed
from keras_tuner.src.engine.hyperparameters import hp_types
from made_arrays import make_arrays

import search_spaces
from pipelines.data.builtin import Dataset
from pipelines.data.prepared import store
from pipelines.models.keras_files import load_saved_model
from pipelines.models.user_model_check import check_model, look_at_space
from pipelines.objectives import OBJECTIVES
from pipelines.training.checkpoints import MODEL_FILE
from pipelines.training.trial import Decision, Schedule, TrialTask, run_trial
from search_spaces.errors import InputError, SourceChangedError
from search_spaces.hyperparameters import (
    GivenHyperParameters,
    HyperParameters,
    RandomHyperParameters,
    active_values,
    declare,
    parameters_of,
)
from search_spaces.registry import SPACES
from search_spaces.space import Space
from search_spaces.user_spaces.loading import load_hypermodel
from search_spaces.user_spaces.reference import find_reference
from search_spaces.user_spaces.source import AskingHyperParameters, TunerSource, assemble, described
from search_spaces.user_spaces.space import user_space
from sweeps.engines.optuna_study.engine import OptunaEngine
from sweeps.engines.optuna_study.hyperparameters import (
    OptunaHyperParameters,
    StoredNames,
    storage_values,
)

FILE = user_models.__file__
SHAPE = (8, 8, 1)


def relayed(declare_all):
    """A function of Keras Tuner's `hp` as a space's `sample`, by way of Keras Tuner itself."""

    def sample(hp):
        declare_all(AskingHyperParameters(lambda parameter: declare(hp, parameter)))
        return active_values(hp)

    return sample


def every_form(hp):
    kind = hp.Choice("kind", ["a", "b"])
    hp.Choice("size", [1, 4, 2])
    hp.Choice("flags", [True, False])
    hp.Int("steps", 1, 64, step=2, sampling="log")
    hp.Int("late", 2, 40, sampling="reverse_log", default=7)
    hp.Float("later", 0.1, 0.9, sampling="reverse_log", default=0.7)
    hp.Float("factor", 1e-3, 10, step=10, sampling="log", default=0.1)
    hp.Float("down", 1, 64, step=4, sampling="reverse_log")
    hp.Float("dropout", 0, 0.5, step=0.1, default=0.5)
    hp.Fixed("constant", "x")
    with hp.conditional_scope("kind", ["a"]):
        hp.Choice("same", ["x", "y"])
    with hp.conditional_scope("kind", ["b"]):
        hp.Choice("same", ["u", "v", "w"])
        with hp.name_scope("inner"):
            hp.Boolean("flag", default=True)
            assert (hp.Int("n", 1, 3) is None) == (kind == "a"), "inactive, but the code runs"
    hp.Int("child", 1, 3, parent_name="kind", parent_values=["b"])


def test_every_form_comes_through_as_keras_tuner_has_it():
    sample = relayed(every_form)
    theirs = keras_tuner.HyperParameters()
    every_form(theirs)
    found = sample(HyperParameters())
    # The one default that Keras Tuner's own sampling cannot reach: 0.5 // 0.1 is 4.
    assert found == {**theirs.values, "dropout": 0.4}
    assert [p.name for p in parameters_of(sample)] == [p.name for p in theirs.space]
    assert found["flags"] == 1 and type(found["flags"]) is int
    for kind in ("a", "b"):
        theirs = keras_tuner.HyperParameters()
        theirs.values = {"kind": kind, "dropout": 0.4}
        every_form(theirs)
        assert sample(GivenHyperParameters({"kind": kind})) == theirs.values


def engine_over(sample, **options):
    space = Space("tuner", "", sample, None, lambda p, s: (), starts_with_default=True)  # type: ignore[arg-type]
    settings = {
        "space": space, "objective": OBJECTIVES["val_accuracy"], "name": "study", "sampler": "tpe",
        "storage": optuna.storages.InMemoryStorage(), "seed": 0,
        "baselines": space.distinct_baselines(), **options,
    }  # fmt: skip
    return space, OptunaEngine(**settings)


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "qmc", "grid"])
def test_what_optuna_lacks_is_bridged_under_every_sampler(sampler):
    space, engine = engine_over(relayed(every_form), sampler=sampler)
    first = engine.ask()
    assert first.baseline == "default" and first.params == space.complete({})
    engine.tell(0, search_state("COMPLETE"), 0.5)
    kinds = set()
    for number in range(1, 25):
        proposal = engine.ask()
        assert space.complete(proposal.params) == proposal.params
        kinds.add((proposal.params["kind"], proposal.params["same"]))
        engine.tell(number, search_state("COMPLETE"), 0.01 * number)
    if sampler != "grid":
        assert len(kinds) >= 4, "one name with other choices under another condition"
    trial = engine._study.trials[0]
    stored = set(trial.params) | set(engine._study.trials[-1].params)
    assert {"steps__index", "size__index", "late__unit"} <= stored or sampler == "grid"
    assert "constant" not in stored


def test_a_resumed_study_knows_its_points_without_asking_the_space_again():
    storage, asked = optuna.storages.InMemoryStorage(), []
    whole = relayed(every_form)

    def sample(hp):
        asked.append(1)
        return whole(hp)

    _, engine = engine_over(sample, storage=storage)
    points = [engine.ask().params for _ in range(4)]
    engine.tell(0, search_state("COMPLETE"), 0.5)
    asked.clear()
    again = OptunaEngine(
        engine._space, OBJECTIVES["val_accuracy"], storage, "study", "tpe", 0, resume=True
    )
    assert [trial.params for trial in again.past()] == points
    assert not asked


def search_state(name):
    from sweeps.engines.base import TrialState

    return TrialState(name)


def test_any_point_comes_back_from_how_optuna_stores_it():
    sample = relayed(every_form)
    names = StoredNames(parameters_of(sample))
    for seed in range(40):
        point = sample(RandomHyperParameters(np.random.default_rng(seed)))
        trial = optuna.trial.FixedTrial(storage_values(point, sample, names))
        assert sample(OptunaHyperParameters(trial, None, names)) == point


# The support of a single declaration


def random_number(chance):
    """Arguments of Int or Float as somebody might write them."""
    sampling = chance.choice(["linear", "linear", "log", "reverse_log"])
    low = chance.choice([1, 2, 3, 8]) if sampling != "linear" else chance.randint(-5, 9)
    options = {"sampling": sampling}
    if chance.random() < 0.5:
        high = low + chance.randint(0, 60)
        steps = [2, 3, 10] if sampling != "linear" else [1, 2, 3, 7]
        if chance.random() < 0.6:
            options["step"] = chance.choice(steps)
        return "Int", (low, high), options
    scale = chance.choice([1e-3, 0.1, 0.25, 1.0])
    low, high = low * scale, low * scale + scale * chance.randint(0, 40)
    if chance.random() < 0.6:
        steps = [2, 2.5, 10] if sampling != "linear" else [0.05, 0.1, 0.2, 0.3, 1]
        options["step"] = chance.choice(steps)
    return "Float", (low, high), options


def random_declaration(chance):
    """A method of `hp` and its arguments but for the name."""
    kind = chance.choice(["number"] * 4 + ["choice", "boolean", "fixed"])
    if kind == "number":
        method, ends, options = random_number(chance)
        if chance.random() < 0.3:
            value = chance.uniform(*ends)
            options["default"] = round(value) if method == "Int" else value
        return method, ends, options
    if kind == "choice":
        values = chance.choice([["a", "b", "c"], [3, 1, 2], [0.5, 0.1], [True, False], ["x"]])
        options = {"default": chance.choice(values)} if chance.random() < 0.5 else {}
        return "Choice", (values,), options
    if kind == "boolean":
        return "Boolean", (), {"default": chance.random() < 0.5}
    return "Fixed", (chance.choice([1, 0.5, "x", True]),), {}


def units(declared):
    """A share of the range for every value that a declaration can have."""
    stepped = getattr(declared, "step", None) is not None
    count = declared._get_n_values() if stepped else len(tuple(declared.values))
    return [(k + 0.5) / count for k in range(count)]


def test_the_support_of_a_declaration_is_keras_tuners_own():
    chance = random.Random(5)
    for _ in range(2000):
        method, arguments, options = random_declaration(chance)
        theirs = keras_tuner.HyperParameters()
        getattr(theirs, method)("p", *arguments, **options)
        (declared,) = theirs.space
        ours, grid = described(declared), described(declared).grid()
        received = (method, arguments, options)
        assert ours.contains(ours.default), received
        if grid is None:
            for unit in (0.0, 0.1, 0.37, 0.5, 0.83, 0.999):
                expected, found = declared.prob_to_value(unit), ours.from_unit(unit)
                assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12), received
                assert type(found) is type(expected) and ours.contains(found)
                assert math.isclose(ours.from_unit(ours.to_unit(found)), found, rel_tol=1e-9)
            continue
        expected = {declared.prob_to_value(unit) for unit in units(declared)}
        assert len(expected) == len(set(grid)), received
        for one, other in zip(sorted(expected, key=str), sorted(grid, key=str), strict=True):
            same = one == other or math.isclose(
                float(one), float(other), rel_tol=1e-9, abs_tol=1e-9
            )
            assert same or method == "Float", received
        if method == "Float":
            assert np.allclose(sorted(expected), sorted(grid), rtol=1e-9, atol=1e-9), received
        if len(grid) < 50:
            assert {ours.from_unit(unit) for unit in units(declared)} == set(grid), received


def random_space(chance):
    """A function of `hp` with nested conditions and names, as a user writes it."""
    parts = [(random_declaration(chance), chance.random(), chance.random()) for _ in range(4)]

    def declare_all(hp):
        hp.Choice("kind", ["a", "b", "c"])
        hp.Boolean("extra")
        for place, ((method, arguments, options), where, named) in enumerate(parts):

            def ask(name, method=method, arguments=arguments, options=options):
                getattr(hp, method)(name, *arguments, **options)

            if where < 0.4:
                ask(f"p{place}")
            elif where < 0.7:
                with hp.conditional_scope("kind", ["a", "b"] if named < 0.5 else ["c"]):
                    ask(f"p{place}" if named < 0.3 else "shared")
            elif hp.values["extra"]:
                with hp.name_scope("inner"):
                    ask(f"p{place}")

    return declare_all


def test_thousands_of_spaces_have_the_points_that_keras_tuner_has():
    chance = random.Random(11)
    for seed in range(1000):
        declare_all = random_space(chance)
        sample = relayed(declare_all)
        generator = np.random.default_rng(seed)
        for _ in range(2):
            point = sample(RandomHyperParameters(generator))
            theirs = CheckingHyperParameters(point)
            declare_all(theirs)
            # Keras Tuner returns values that it is given unchecked: each is held against its
            # own declaration.
            assert theirs.values == point and theirs.checked == point.keys()
            drawn = DrawingHyperParameters(chance)
            declare_all(drawn)
            found = sample(GivenHyperParameters(drawn.values))
            assert found.keys() == drawn.values.keys()
            for name, value in found.items():
                wanted = drawn.values[name]
                # 0.1 + 2 * 0.1 is not quite 0.3 there.
                assert value == wanted or math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-9)


class CheckingHyperParameters(keras_tuner.HyperParameters):
    """Has every value of a point mean what Keras Tuner itself could have drawn."""

    def __init__(self, point):
        super().__init__()
        self.values = dict(point)
        self.checked = set()

    def _register(self, hyperparameter, overwrite=False):
        if self.is_active(hyperparameter):
            value = self.values[hyperparameter.name]
            self.checked.add(hyperparameter.name)
            assert drawable(hyperparameter, value), (hyperparameter.get_config(), value)
        return super()._register(hyperparameter, overwrite)


def drawable(declared, value):
    """Whether Keras Tuner's own way from a share of the range leads to the value."""
    is_range = isinstance(declared, hp_types.Int | hp_types.Float)
    if is_range and declared.step is None and isinstance(declared, hp_types.Float):
        slack = 1e-9 * max(abs(declared.min_value), abs(declared.max_value))
        inside = declared.min_value - slack <= value <= declared.max_value + slack
        back = declared.prob_to_value(declared.value_to_prob(value))
        return (
            inside
            and type(value) is float
            and math.isclose(back, value, rel_tol=1e-9, abs_tol=1e-9)
        )
    if is_range and declared.step is None:
        return type(value) is int and declared.min_value <= value <= declared.max_value
    every = [declared.prob_to_value(unit) for unit in units(declared)]
    return any(
        value == one or (is_range and math.isclose(value, one, rel_tol=1e-9, abs_tol=1e-9))
        for one in every
    )


def test_a_value_that_keras_tuner_could_not_draw_is_told_apart():
    for name, value, wrong in (
        ("a", 0.4, 0.5), ("b", 7, 8), ("c", "y", "z"), ("d", 0.25, 1.5), ("e", 3, 3.5),
    ):  # fmt: skip
        hp = keras_tuner.HyperParameters()
        hp.Float("a", 0, 0.5, step=0.1)
        hp.Int("b", 1, 8, step=3)
        hp.Choice("c", ["x", "y"])
        hp.Float("d", 0.1, 1, sampling="log")
        hp.Int("e", 1, 9)
        declared = {p.name: p for p in hp.space}
        assert drawable(declared[name], value) and not drawable(declared[name], wrong)


class DrawingHyperParameters(keras_tuner.HyperParameters):
    """Draws each value as Keras Tuner's random oracle does."""

    def __init__(self, chance):
        super().__init__()
        self.chance = chance

    def _register(self, hyperparameter, overwrite=False):
        if self.is_active(hyperparameter) and hyperparameter.name not in self.values:
            self.values[hyperparameter.name] = hyperparameter.random_sample(self.chance.random())
        return super()._register(hyperparameter, overwrite)


# HyperModels


def reference(name):
    return find_reference(f"{FILE}:{name}")


def test_a_class_an_instance_and_a_function_are_loaded():
    made = load_hypermodel(reference("Small"), SHAPE, 3)
    assert (made.input_shape, made.classes) == (SHAPE, 3)
    assert load_hypermodel(reference("INSTANCE"), (9, 9, 1), 5).classes == 3
    assert isinstance(load_hypermodel(reference("raw"), SHAPE, 3), keras_tuner.HyperModel)
    ready = find_reference("keras_tuner.applications:HyperXception")
    assert load_hypermodel(ready, (32, 32, 3), 7).classes == 7


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Smal", "Did you mean 'Small'?"),
        ("NUMBER", "is a int, not a"),
        ("Doubled", "is the class Doubled, not a"),
        ("Needing", "needs secret beside input_shape"),
    ],
)
def test_what_is_no_hypermodel_is_refused(name, words):
    with pytest.raises(InputError, match=words):
        load_hypermodel(reference(name), SHAPE, 3)


def test_a_source_that_cannot_be_imported_names_the_line(tmp_path):
    (tmp_path / "broken.py").write_text("import keras\n\nimport no_such_package_at_all\n")
    (tmp_path / "wrong.py").write_text("x = 1\nx = = 2\n")
    for name, line in (("broken", 3), ("wrong", 2)):
        with pytest.raises(InputError, match=rf"{name}\.py, line {line}\)"):
            load_hypermodel(find_reference(f"{name}.py:build"), SHAPE, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two_classes", r"shape \(2,\) per image .*each of the data's 3 classes"),
        ("other_shape", r"the data's images, 8x8x1.*keras.layers.Rescaling\(1/255\)"),
        ("not_compiled", r"does not compile its model.*model.compile\("),
        ("no_model", "builds a int"),
        ("logits", "End it with activation='softmax'"),
    ],
)
def test_a_model_that_does_not_fit_says_how_it_would(name, words):
    source = TunerSource(reference(name), SHAPE, 3)
    with pytest.raises(InputError, match=words):
        check_model(source.ask(lambda p: p.default), SHAPE, 3, name)


def test_pixels_that_are_not_rescaled_and_code_that_is_not_kept_are_noted():
    def notes(name):
        model = TunerSource(reference(name), SHAPE, 3).ask(lambda p: p.default)
        return check_model(model, SHAPE, 3, name)

    assert notes("Small") == ()
    (note,) = notes("raw")
    assert "0 to 255" in note and "Rescaling(1/255)" in note
    (note,) = notes("with_code")
    assert "not stored" in note and "user_models" in note and "Doubled" in note


def test_parameters_of_fit_are_found_without_training():
    source = TunerSource(reference("Small"), SHAPE, 3)
    space = user_space(reference("Small"), source.sample)
    found = {parameter.name: parameter for parameter in space.parameters}
    assert list(found) == ["num_layers", "units_0", "dropout", "learning_rate", "batch_size",
                           "shuffle", "units_1", "units_2"]  # fmt: skip
    assert found["batch_size"].choices == (16, 32) and found["batch_size"].ordered
    assert space.distinct_baselines() == ((("default",), space.complete({})),)


def task(tiny_data, folder: Path, name: str, params, **options) -> TrialTask:
    folder.mkdir(exist_ok=True)
    plain = TrialTask(
        0, reference(name).text, params, tiny_data, Schedule(3), 5, OBJECTIVES["val_accuracy"],
        str(folder),
    )  # fmt: skip
    return changed(plain, **options)


SMALL = {"num_layers": 2, "units_0": 16, "units_1": 8, "dropout": 0.2, "learning_rate": 0.01,
         "batch_size": 16, "shuffle": True}  # fmt: skip


def test_custom_fit_is_paused_and_goes_on_bit_for_bit(tiny_data, tmp_path):
    def curve(folder, *pauses):
        reports = []

        def report(message):
            reports.append(message.metrics)
            return Decision.PAUSE if message.step in pauses[:1] else Decision.GO_ON

        keras.utils.set_random_seed(5)
        result = run_trial(task(tiny_data, folder, "Small", SMALL), report)
        if pauses:
            assert result.stopped_by == Decision.PAUSE and not result.model_bytes
            keras.utils.set_random_seed(99)
            again = task(tiny_data, folder, "Small", SMALL, reported_step=pauses[0])
            result = run_trial(again, lambda m: (reports.append(m.metrics), Decision.GO_ON)[1])
        assert result.model_bytes and result.not_stored == ""
        kept = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
        return [[metrics[name] for name in kept] for metrics in reports]

    whole, broken = curve(tmp_path / "a"), curve(tmp_path / "b", 1)
    assert len(whole) == 3
    # The epoch before the pause is reported again, because its answer may have been lost.
    assert broken[:1] + broken[2:] == whole and broken[1] == whole[0]


def test_custom_fit_decides_the_batch_size_and_gets_what_keras_tuner_gives(tiny_data, monkeypatch):
    seen = []
    original = keras.Model.fit

    def spy(self, *args, **kwargs):
        seen.append((args, kwargs))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", spy)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run_trial(task(tiny_data, Path(folder), "Small", SMALL), lambda _: Decision.ENOUGH)
    (((x, y), options),) = seen
    assert x.shape == (96, 8, 8, 1) and x.dtype == np.uint8
    assert y.shape == (96, 3) and set(np.unique(y)) == {0.0, 1.0}, "one-hot for this loss"
    assert (options["batch_size"], options["epochs"], options["initial_epoch"]) == (16, 1, 0)
    assert options["validation_data"][0].shape == (24, 8, 8, 1)
    assert options["verbose"] == 0 and options["callbacks"]


def test_a_model_with_code_of_its_own_trains_and_is_not_kept(tiny_data, tmp_path):
    result = run_trial(
        task(tiny_data, tmp_path, "with_code", {"unused": 1}), lambda _: Decision.GO_ON
    )
    assert result.model_bytes == 0 and "Doubled" in result.not_stored
    assert result.num_epochs == 3 and result.value > 0
    assert not list(tmp_path.glob("*.keras"))


def test_a_source_that_changed_under_the_sweep_fails_the_trial(tiny_data, tmp_path):
    changed = task(tiny_data, tmp_path, "Small", SMALL, sources=((user_models.__file__, "0" * 64),))
    with pytest.raises(SourceChangedError, match=r"has changed since .*user_models.py"):
        run_trial(changed, lambda _: Decision.GO_ON)


def test_keras_tuners_own_hypermodels_are_built(tiny_data):
    ready = find_reference("keras_tuner.applications:HyperXception")
    few = GivenHyperParameters({"num_residual_blocks": 2, "sep_num_filters": 128})
    params = TunerSource(ready, (32, 32, 1), 3).sample(few)
    built = assemble(ready, params, (32, 32, 1), 3)
    assert built.one_hot and built.batch_size == 32 and built.custom_fit is None
    assert check_model(built.model, (32, 32, 1), 3, "HyperXception", pixels="unit") == ()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["HyperResNet", "HyperXception"])
def test_keras_tuners_own_hypermodels_train_and_are_kept(name, tmp_path):
    data = store(
        tmp_path / "data", Dataset("thirds", ("left", "middle", "right"), None),
        make_arrays(num_train=80, side=32), "2" * 64, "made",
    )  # fmt: skip
    ready = find_reference(f"keras_tuner.applications:{name}")
    source = TunerSource(ready, data.input_shape, 3)
    notes = [*look_at_space(source), *source.notes]
    # ResNet's own models leave that to whoever feeds them.
    assert all("does not seem to rescale" in note for note in notes), notes
    params = source.sample(HyperParameters())
    result = run_trial(
        TrialTask(
            0, ready.text, params, data, Schedule(1), 5, OBJECTIVES["val_loss"], str(tmp_path)
        ),
        lambda _: Decision.GO_ON,
    )
    print(name, result)
    assert result.num_epochs == 1 and math.isfinite(result.value) and result.model_bytes
    assert load_saved_model(tmp_path / MODEL_FILE).count_params() == result.num_parameters


# Ours in Keras Tuner


def test_a_space_that_asks_nothing_has_no_parameters():
    source = TunerSource(reference("nothing_to_ask"), SHAPE, 3)
    assert user_space(reference("nothing_to_ask"), source.sample).parameters == ()


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_our_spaces_run_in_a_plain_random_search(name, tiny_data, tmp_path):
    hypermodel = search_spaces.as_hypermodel(
        name, tiny_data.input_shape, tiny_data.num_classes, num_images=96, num_epochs=1
    )
    tuner = keras_tuner.RandomSearch(
        hypermodel, objective="val_accuracy", max_trials=2, seed=0, directory=tmp_path
    )
    tuner.oracle.verbose = 0
    assert len(tuner.oracle.get_space().space) == len(SPACES[name].parameters)
    tuner.search(
        *tiny_data.arrays("train"), epochs=1, verbose=0,
        validation_data=tiny_data.arrays("validation"),
    )  # fmt: skip
    trials = tuner.oracle.get_best_trials(2)
    assert len(trials) == 2 and all(trial.status == "COMPLETED" for trial in trials)
    assert trials[0].score >= trials[1].score
    assert set(trials[0].hyperparameters.values) >= {"batch_size", "optimizer"}
