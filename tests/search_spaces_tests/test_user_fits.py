"""HyperModels that train themselves: what they declare is found, and what they do is watched."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import user_fits
from changed_tasks import changed
from made_arrays import make_arrays

from pipelines.data.builtin import Dataset
from pipelines.data.prepared import store
from pipelines.evaluation.metrics import predict
from pipelines.models.keras_files import load_saved_model
from pipelines.models.user_model_check import look_at_space
from pipelines.objectives import OBJECTIVES
from pipelines.training.cost import MeasureTask, measure_point
from pipelines.training.epoch import EpochError, Stretch, Training, train_stretch
from pipelines.training.trial import Decision, Schedule, TrialTask, run_trial
from search_spaces.errors import InputError
from search_spaces.hyperparameters import HyperParameters
from search_spaces.user_spaces.reference import find_reference
from search_spaces.user_spaces.source import MissingParameterError, TunerSource, assemble
from search_spaces.user_spaces.space import user_space

FILE = user_fits.__file__
SHAPE = (8, 8, 1)


def reference(name):
    return find_reference(f"{FILE}:{name}")


def source(name, num_classes=3):
    return TunerSource(reference(name), SHAPE, num_classes)


def task(data, folder, name, params, **options):
    folder.mkdir(exist_ok=True)
    plain = TrialTask(
        0, reference(name).text, params, data, Schedule(2), 5, OBJECTIVES["val_accuracy"],
        str(folder),
    )  # fmt: skip
    return changed(plain, **options)


def go_on(_):
    return Decision.GO_ON


# What `fit` declares


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("HoldsOut", ["units", "batch_size"]),
        ("Streams", ["units", "noise"]),
        ("ReadsHistory", ["units", "batch_size", "late"]),
        ("CustomLoop", ["units", "batch_size", "learning_rate"]),
    ],
)
def test_what_fit_declares_after_handling_the_data_is_found(name, declared):
    asked = source(name)
    assert look_at_space(asked) == () and not asked.notes
    space = user_space(reference(name), asked.sample)
    assert [parameter.name for parameter in space.parameters] == declared
    assert not asked.notes


def test_many_classes_are_all_there_more_than_once():
    asked = source("HoldsOut", 200)
    assert "batch_size" in asked.sample(HyperParameters()) and not asked.notes


def test_a_fit_that_breaks_off_is_noted_once_with_its_line():
    asked = source("WantsMore")
    assert look_at_space(asked) == ()
    for _ in range(3):
        assert asked.sample(HyperParameters()) == {"units": 8}
    (note,) = asked.notes
    assert "ValueError: where are my 96 pictures? (user_fits.py, line " in note
    assert "not searched" in note and "a trial that asks for one fails" in note


def test_a_trial_never_takes_a_value_that_nothing_records(tiny_data, tmp_path):
    with pytest.raises(MissingParameterError, match="'batch_size' has no value in this trial"):
        run_trial(task(tiny_data, tmp_path, "WantsMore", {"units": 8}), go_on)
    with pytest.raises(MissingParameterError, match="'units'"):
        assemble(reference("WantsMore"), {"batch_size": 8}, SHAPE, 3)
    held = {"units": 8, "batch_size": 8}
    assert run_trial(task(tiny_data, tmp_path / "held", "WantsMore", held), go_on).num_epochs == 2


# One epoch at a time


@pytest.mark.parametrize(
    ("name", "asked"), [("FixedEpochs", "0"), ("Restarts", "8"), ("FromTheFirst", "8")]
)
def test_a_fit_that_ignores_the_epoch_is_refused_at_the_look(name, asked):
    with pytest.raises(InputError, match=rf"trains {asked} epochs when .*Pass both on"):
        look_at_space(source(name))


@pytest.mark.parametrize(
    ("name", "params", "epoch", "words"),
    [
        ("FixedEpochs", {"num_epochs": 3}, 1, "trained 3 epochs although only epoch 1 was due"),
        ("FixedEpochs", {"num_epochs": 2}, 3, "trained nothing in epoch 3"),
        ("Once", {}, 2, "trained nothing in epoch 2"),
        ("IdleLoop", {"batch_size": 32, "learning_rate": 0.01}, 1, "trained nothing in epoch 1"),
    ],
)
def test_an_epoch_that_was_not_trained_once_fails(tiny_data, name, params, epoch, words):
    built = assemble(reference(name), {"units": 8, **params}, SHAPE, 3)
    training = Training(*tiny_data.arrays("train"), 3, 5, tiny_data.arrays("validation"))
    with pytest.raises(EpochError, match=words):
        train_stretch(built, None, training, Stretch(epoch, 0, 1, 1))


def test_a_loop_of_several_epochs_is_noted():
    (note,) = look_at_space(source("TwoPasses"))
    assert "trains 2 epochs of its own" in note


def test_callbacks_that_count_epochs_are_noted():
    (note,) = look_at_space(source("Waits"))
    assert "(ReduceLROnPlateau and EarlyStopping)" in note and "--early-stopping" in note


@pytest.mark.parametrize(
    ("name", "drops"),
    [("HoldsOut", False), ("Streams", False), ("CustomLoop", True), ("WeighingLoop", False),
     ("Forgets", True), ("WantsMore", False)],
)  # fmt: skip
def test_weights_of_classes_that_do_not_arrive_are_seen(name, drops):
    asked = source(name)
    look_at_space(asked)
    assert asked.drops_class_weights == drops, "one that broke off is not judged"


# Loops and models without `compile`


@pytest.mark.parametrize("name", ["CustomLoop", "LoopThatTells", "CompilesInFit"])
def test_a_model_that_is_not_compiled_lives_a_whole_life(name, tiny_data, tmp_path):
    params = source(name).sample(HyperParameters())
    reports = []

    def pause(message):
        reports.append(message.metrics)
        return Decision.PAUSE

    first = task(tiny_data, tmp_path / "a", name, params)
    keras.utils.set_random_seed(5)
    assert run_trial(first, pause).stopped_by == Decision.PAUSE
    again = task(tiny_data, tmp_path / "a", name, params, reported_step=1)
    result = run_trial(again, lambda m: (reports.append(m.metrics), Decision.GO_ON)[1])
    assert result.num_epochs == 2 and result.model_bytes
    keras.utils.set_random_seed(5)
    whole = run_trial(task(tiny_data, tmp_path / "b", name, params), go_on)
    assert whole.metrics["val_loss"] == result.metrics["val_loss"], "the same without a pause"
    assert ("loss" in reports[0]) == (name != "CustomLoop")
    assert ("learning_rate" in reports[0]) == (name == "CompilesInFit")
    from pipelines.evaluation.figures import render_trial

    render_trial(str(tmp_path / "a"), tiny_data)
    cost = measure_point(MeasureTask(first.space, (params,), tiny_data, 2, 0), params)
    assert cost.epoch_seconds > 0 and cost.memory_bytes > 0


# The first step of training


@pytest.mark.parametrize("name", ["list_of_losses", "own_loss", "own_one_hot_loss"])
def test_the_labels_are_those_that_the_loss_takes(name, tiny_data):
    asked = source(name)
    assert look_at_space(asked) == ()
    built = assemble(reference(name), {}, SHAPE, 3)
    assert built.one_hot == (name == "own_one_hot_loss")
    metrics = train_stretch(
        built, None, Training(*tiny_data.arrays("train"), 3, 5), Stretch(1, 0, 1, 1)
    )
    assert np.isfinite(metrics["loss"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("metrics_third", "its first step, with class numbers, fails: .*metrics by name"),
        ("wrong_metric", "its first step, with one-hot labels, fails: .*'sparse' ones take"),
        ("Refused", "its first step, with one-hot labels, fails: "),
        ("dict_output", "gives a dict of classes; it must have one output, .*Build it as"),
        ("two_outputs", "gives 2 outputs; it must have one output, .*Build it as"),
        (
            "sigmoid",
            r"shape \(1,\) per image .*the data's 3 classes.*Dense\(3, activation='softmax'\)",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line_before_the_sweep(name, words):
    with pytest.raises(InputError, match=words) as error:
        look_at_space(source(name))
    assert "\n" not in str(error.value)


def test_one_output_serves_two_classes(tmp_path):
    arrays = make_arrays(num_classes=2)
    data = store(tmp_path / "data", Dataset("two", ("left", "right"), None), arrays, "1" * 64, "")
    assert look_at_space(source("sigmoid", 2)) == ()
    options = {"measure_test": True, "class_weights": "balanced"}
    result = run_trial(task(data, tmp_path / "t", "sigmoid", {"unused": 1}, **options), go_on)
    assert result.num_epochs == 2 and result.value > 0.5
    (path,) = (tmp_path / "t").glob("*.keras")
    pixels, labels = data.arrays("test")
    found = predict(load_saved_model(path), pixels)
    assert found.shape == (30, 2) and np.allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == labels).mean() == result.test_metrics["test_accuracy"]
