"""Users' files in the styles that people publish: each with its result, or with its refusal."""

from __future__ import annotations

import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import user_styles
from made_arrays import make_arrays

from pipelines.data.builtin import Dataset
from pipelines.data.prepared import store
from pipelines.evaluation.metrics import predict
from pipelines.models.input_scale import scales_pixels
from pipelines.models.keras_files import load_saved_model
from pipelines.models.user_model_check import look_at_space
from pipelines.objectives import OBJECTIVES
from pipelines.training.checkpoints import MODEL_FILE, PREDICTIONS_FILE
from pipelines.training.trial import Decision, Schedule, TrialTask, run_trial
from search_spaces.errors import InputError
from search_spaces.hyperparameters import GivenHyperParameters
from search_spaces.outputs import gives_logits
from search_spaces.user_spaces.reference import find_reference
from search_spaces.user_spaces.source import TunerSource, assemble

SHAPE = (8, 8, 1)
LONG = pytest.mark.long
NOT_STORED = "cannot be saved without their code"
# Name -> what its models get, whether they give logits, what is said of it.
STYLES: dict[str, tuple[str, bool, str]] = {
    "guide": ("unit", False, ""),
    "GuideFit": ("unit", False, ""),
    "tutorial_logits": ("unit", True, ""),
    "function_logits": ("unit", True, ""),
    "softmax_and_logits": ("unit", False, ""),
    "convolutions_without_input": ("unit", False, ""),
    "residual": ("unit", False, ""),
    "subclassed": ("unit", False, NOT_STORED),
    "subclassed_scaling": ("raw", False, NOT_STORED),
    "custom_layer": ("unit", False, NOT_STORED),
    "own_step": ("unit", False, ""),
    "weighed_step": ("unit", False, ""),
    "OwnStepOwnFit": ("unit", False, ""),
    "transfer": ("raw", False, ""),
    "transfer_means": ("raw", False, ""),
    "rows_of_pixels": ("unit", False, ""),
    "transformer": ("unit", False, NOT_STORED),
    "rescaling_at_some_points": ("unit", False, ""),
    "lambda_first": ("raw", False, f"{NOT_STORED}.*Lambda"),
    "normalized": ("raw", False, ""),
    "normalized_for_unit": ("unit", False, ""),
    "batch_norm_first": ("raw", False, ""),
    "integer_input": ("raw", False, ""),
    "embedded_pixels": ("raw", False, ""),
    "padded": ("unit", False, ""),
    "augmented": ("unit", False, ""),
    "augmented_bytes": ("raw", False, ""),
    "regularized": ("unit", False, ""),
    "scheduled": ("unit", False, ""),
    "smoothed": ("unit", False, ""),
    "no_metrics": ("unit", False, ""),
    "own_metrics": ("unit", False, ""),
    "LogitsLoop": ("unit", True, ""),
}
BRIEF = ("tutorial_logits", "own_step", "own_metrics", "subclassed", "transfer")
"""Those that are trained in every run of the tests."""


def source(name, num_classes=3):
    return TunerSource(find_reference(f"{user_styles.__file__}:{name}"), SHAPE, num_classes)


def trained(name, data, folder, **params):
    """How a trial of two epochs ends, and its reports."""
    asked = source(name, data.num_classes)
    point = asked.sample(GivenHyperParameters(params))
    reports = []
    keras.utils.set_random_seed(5)
    folder.mkdir(exist_ok=True)
    task = TrialTask(
        0, asked.reference.text, point, data, Schedule(2, measure_test=True), 5,
        OBJECTIVES["val_accuracy"], str(folder),
    )  # fmt: skip

    def go_on(report):
        reports.append(report.metrics)
        return Decision.GO_ON

    return run_trial(task, go_on), reports


def check_stored(result, data, folder):
    """The kept model gives of raw pixels the very probabilities that the trial measured."""
    model = load_saved_model(folder / MODEL_FILE)
    pixels, labels = data.arrays("validation")
    found = predict(model, pixels)
    measured = np.load(folder / PREDICTIONS_FILE)["probabilities"]
    np.testing.assert_allclose(found, measured, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (found.argmax(axis=1) == labels).mean() == pytest.approx(result.value)


@pytest.mark.parametrize("name", STYLES)
def test_what_people_write_is_accepted_and_given_the_pixels_that_it_expects(name):
    pixels, logits, said = STYLES[name]
    asked = source(name)
    notes = [*look_at_space(asked), *asked.notes]
    assert bool(notes) == bool(said), notes
    assert re.search(said, " ".join(notes))
    assert asked.pixels == pixels
    params = asked.sample(GivenHyperParameters({}))
    built = assemble(asked.reference, params, SHAPE, 3)
    assert built.logits == logits
    assert asked.drops_class_weights == (name in ("own_step", "OwnStepOwnFit", "LogitsLoop"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in BRIEF else LONG) for name in STYLES]
)
def test_what_people_write_trains_and_its_model_takes_raw_pixels(name, tiny_data, tmp_path):
    pixels, _, said = STYLES[name]
    result, reports = trained(name, tiny_data, tmp_path)
    assert result.pixels == pixels and result.num_epochs == 2
    assert all(np.isfinite(list(metrics.values())).all() for metrics in reports)
    assert bool(result.not_stored) == (NOT_STORED in said)
    if not result.not_stored:
        check_stored(result, tiny_data, tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "tutorial_for_mnist",
            r"does not take the data's images, 8x8x1|instead of one probability",
        ),
        ("linear_without_logits", r"its loss does not take logits.*from_logits=True"),
        ("many_labels", "is no class probabilities: .*sum to 1"),
        ("autoencoder", r"an output of shape \(8, 8, 1\) per image"),
        ("thousand_classes", r"shape \(1000,\) per image .*the data's 3 classes"),
        ("too_deep", r"cannot build a model from its defaults: .*user_styles.py, line "),
        ("binary_logits", r"shape \(1,\) per image .*the data's 3 classes"),
        ("keras_2", r"its first step, with class numbers, fails: .*minimize.*Check its train_step"),
        ("subclassed_uncast", r"raw pixels \(uint8, 0 to 255\): .*cast them first"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(name, words):
    with pytest.raises(InputError, match=words) as error:
        look_at_space(source(name))
    assert "\n" not in str(error.value)


def test_one_output_without_an_activation_serves_two_classes(tmp_path):
    arrays = make_arrays(num_classes=2)
    data = store(tmp_path / "data", Dataset("two", ("left", "right"), None), arrays, "1" * 64, "")
    assert look_at_space(source("binary_logits", 2)) == ()
    result, _ = trained("binary_logits", data, tmp_path / "t")
    assert result.value > 0.9
    check_stored(result, data, tmp_path / "t")


def test_each_point_is_given_what_its_own_model_expects(tiny_data, tmp_path):
    name, numbers = "rescaling_at_some_points", []
    for rescale, pixels in ((True, "raw"), (False, "unit")):
        folder = tmp_path / pixels
        result, reports = trained(name, tiny_data, folder, rescale=rescale)
        assert result.pixels == pixels
        check_stored(result, tiny_data, folder)
        found = [{k: v for k, v in m.items() if "second" not in k} for m in reports]
        numbers.append((found, result.test_metrics))
    assert numbers[0] == numbers[1], "a layer divides as the feeding does"


def test_a_hypermodel_may_say_itself_that_its_models_give_logits():
    asked = source("LogitsLoop")
    params = asked.sample(GivenHyperParameters({}))
    model = assemble(asked.reference, params, SHAPE, 3).model
    assert [gives_logits(SimpleNamespace(from_logits=told), model, SHAPE, 3)
            for told in (True, False, None)] == [True, False, True]  # fmt: skip


def test_what_is_chosen_can_be_overruled_and_is_said():
    (note,) = look_at_space(source("guide"), "raw")
    assert "does not seem to rescale" in note and "leave --pixels raw out" in note
    (note,) = look_at_space(source("transfer"), "unit")
    assert "rescales pixels itself" in note and "leave --pixels unit out" in note


def test_where_layers_cannot_be_called_one_by_one_pixels_stay_raw_and_that_is_said():
    import tensorflow as tf

    class Compiled(user_styles.Net):
        @tf.function
        def call(self, x):
            return super().call(tf.cast(x, tf.float32))

    model = user_styles.compiled(Compiled(3, 8))
    assert scales_pixels(model, SHAPE) is None
    from pipelines.models.user_model_check import check_model

    notes = check_model(model, SHAPE, 3, "x")
    assert "it cannot be seen whether 'x' rescales pixels" in notes[0]


def test_metrics_that_mlflow_refuses_are_renamed_apart_and_none_is_lost(tiny_data, tmp_path):
    from mlflow.utils.validation import _validate_metric_name

    _, reports = trained("own_metrics", tiny_data, tmp_path)
    for metrics in reports:
        for name in metrics:
            _validate_metric_name(name)
        tops = [metrics[name] for name in metrics if name.startswith("top_2-")]
        assert len(tops) == 2 and tops[0] == tops[1] >= metrics["accuracy"]
        (top,) = (metrics[name] for name in metrics if name.startswith("acc_top_1-"))
        (named,) = (metrics[name] for name in metrics if name.startswith("epoch-"))
        assert top == named == metrics["accuracy"]
        assert any(name.startswith("sure-") for name in metrics)
    assert [metrics["epoch"] for metrics in reports] == [1, 2]
    assert list(reports[0])[:1] == ["epoch"] and set(reports[1]) < set(reports[0])
