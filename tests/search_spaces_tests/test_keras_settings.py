"""What trained numbers follow from is the sweep's to decide, not a user's file or code."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from pipelines.models.user_model_check import look_at_space
from pipelines.runtime.process import settle_keras
from search_spaces.errors import InputError
from search_spaces.user_spaces.keras_settings import check_layers, settings_kept
from search_spaces.user_spaces.reference import find_reference
from search_spaces.user_spaces.source import TunerSource, assemble

SHAPE = (8, 8, 1)
SPACE = """
import keras
import keras_tuner

{at_import}

class Space(keras_tuner.HyperModel):
    def build(self, hp):
        {in_build}
        hp.Int("unused", 1, 2)
        model = keras.Sequential([
            keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax", dtype="float32"),
        ])
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    def fit(self, hp, model, *args, **kwargs):
        {in_fit}
        return model.fit(*args, **kwargs)
"""
MIXED = "keras.mixed_precision.set_global_policy('mixed_float16')"
FIRST = "keras.backend.set_image_data_format('channels_first')"


@pytest.fixture(autouse=True)
def settled():
    settle_keras("float32")
    yield
    settle_keras("float32")


def space(tmp_path, at_import="", in_build="", in_fit=""):
    text = SPACE.format(at_import=at_import, in_build=in_build or "pass", in_fit=in_fit or "pass")
    (tmp_path / "my_space.py").write_text(text)
    return find_reference("my_space.py:Space")


def test_a_process_has_the_settings_of_the_sweep_whatever_a_file_of_the_user_says():
    keras.config.set_floatx("float16")
    keras.config.set_image_data_format("channels_first")
    keras.config.set_epsilon(1e-3)
    keras.config.set_max_steps_per_epoch(1)
    settle_keras("mixed_bfloat16")
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert keras.config.floatx() == "float32"
    assert keras.config.image_data_format() == "channels_last"
    assert (keras.config.epsilon(), keras.config.max_steps_per_epoch()) == (1e-7, None)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (MIXED, "dtype policy to mixed_float16, .* float32.*give --precision mixed_float16"),
        (FIRST, r"image data format to channels_first.*\(height, width, channels\)"),
        ("keras.config.set_floatx('float16')", "floatx to float16"),
    ],
)
def test_a_module_that_changes_a_setting_is_refused_with_the_way_out(tmp_path, code, told):
    with pytest.raises(InputError, match=told):
        TunerSource(space(tmp_path, at_import=code), SHAPE, 3)


def test_a_build_that_changes_a_setting_is_refused_before_the_sweep_and_in_a_trial(tmp_path):
    reference = space(tmp_path, in_build=MIXED)
    with pytest.raises(InputError, match="^'.*my_space.py:Space' sets Keras' dtype policy"):
        look_at_space(TunerSource(reference, SHAPE, 3))
    settle_keras("float32")
    with pytest.raises(InputError, match="give --precision mixed_float16"):
        assemble(reference, {"unused": 1}, SHAPE, 3)


def test_a_fit_that_changes_a_setting_fails_its_trial(tmp_path):
    assembled = assemble(space(tmp_path, in_fit=MIXED), {"unused": 1}, SHAPE, 3)
    with pytest.raises(InputError, match="give --precision mixed_float16"):
        assembled.custom_fit(np.zeros((4, *SHAPE)), np.zeros(4), verbose=0)


def test_a_module_may_set_what_the_sweep_has_anyway(tmp_path):
    settle_keras("mixed_float16")
    source = TunerSource(space(tmp_path, at_import=MIXED), SHAPE, 3)
    assert source.build(lambda parameter: parameter.default)[1].compute_dtype == "float16"


class Half:
    """Layers of half precision, while the settings stay as they are."""

    def __init__(self, dtype):
        self.dtype = dtype

    def __call__(self):
        return keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(),
             keras.layers.Dense(3, dtype=self.dtype, name="head")]
        )  # fmt: skip


@pytest.mark.parametrize("dtype", ["mixed_float16", "float64", "bfloat16"])
def test_a_layer_that_computes_otherwise_than_the_sweep_is_refused(dtype):
    with pytest.raises(InputError, match="Layer 'head' of 'x' computes in .*, and the sweep in"):
        check_layers(Half(dtype)(), "x")
    check_layers(Half("float32")(), "x")


def test_an_epsilon_that_a_users_code_sets_is_refused():
    try:
        with pytest.raises(InputError, match="sets Keras' epsilon to 0.01"), settings_kept("x"):
            keras.config.set_epsilon(1e-2)
    finally:
        keras.config.set_epsilon(1e-7)
