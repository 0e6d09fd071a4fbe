"""Points of the spaces mean possible models, for any image size and number of classes."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from fake_loop_parts import random_points
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.backend.common.stateless_scope import StatelessScope

from search_spaces import cnn, cnn_blocks, fitting, mlp, mlp_layers
from search_spaces.errors import InputError
from search_spaces.labels import labels_for, takes_one_hot
from search_spaces.registry import SPACES, all_baselines, get_space

NUM_BUILDS = 700
"""Models built per space; with 'slow' ten times as many."""
NUM_PLANS = 20_000


def random_shape(generator: np.random.Generator) -> tuple[int, int, int]:
    """Any picture from 8x8x1 to 224x224x3, square or not, log-uniform in both sides."""
    height, width = (round(8 * 28 ** generator.random()) for _ in range(2))
    return height, width, int(generator.choice([1, 3]))


@pytest.fixture
def shapes_only(monkeypatch):
    """Models of real layers whose variables have shapes but no memory, so thousands can be built.

    An optimizer cannot be made so; that every optimizer trains is shown on other points below.
    """
    for module in (fitting, cnn_blocks, mlp_layers):
        monkeypatch.setattr(module, "make_optimizer", lambda params, num_steps: None)
    monkeypatch.setattr(keras.Model, "compile", lambda *args, **kwargs: None)


def build_many(name: str, count: int, seed: int) -> None:
    space = get_space(name)
    generator = np.random.default_rng(seed)
    for k, params in enumerate(random_points(space, count, seed)):
        shape = (8, 8, 1) if k == 0 else (224, 224, 3) if k == 1 else random_shape(generator)
        num_classes = int(generator.choice([2, 3, 10, 100, 1000]))
        with StatelessScope():
            model = space.build(params, shape, num_classes, num_steps=100)
            get_global_attribute("uninitialized_variables", []).clear()  # Nor values.
        assert model.input_shape == (None, *shape)
        assert model.output_shape == (None, num_classes)
        assert all(0 not in tuple(layer.output.shape[1:]) for layer in model.layers)
        if k % 50 == 0:
            keras.backend.clear_session()


@pytest.mark.parametrize("name", sorted(SPACES))
def test_many_sampled_points_build_for_any_image(name, shapes_only):
    build_many(name, NUM_BUILDS // 4, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SPACES))
def test_thousands_of_sampled_points_build(name, shapes_only):
    build_many(name, 10 * NUM_BUILDS, seed=2)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(SPACES)),
    seed=st.integers(0, 2**31),
    side=st.sampled_from([8, 9, 13, 28, 40]),
    channels=st.sampled_from([1, 3]),
    num_classes=st.sampled_from([2, 10, 1000]),
)
def test_built_models_predict_probabilities_and_train(name, seed, side, channels, num_classes):
    space = get_space(name)
    (params,) = random_points(space, 1, seed)
    model = space.build(params, (side, side, channels), num_classes, num_steps=10)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, side, side, channels), np.uint8)
    labels = labels_for(
        np.zeros(4, np.int64), num_classes, one_hot=takes_one_hot(model, num_classes)
    )
    assert np.isfinite(model.train_on_batch(pixels, labels)).all()
    probabilities = model.predict_on_batch(pixels)
    assert probabilities.shape == (4, num_classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-4)
    keras.backend.clear_session()


@pytest.mark.parametrize("module", [cnn, cnn_blocks], ids=["cnn", "cnn_blocks"])
def test_plans_of_many_points_have_no_impossible_shape(module):
    generator = np.random.default_rng(3)
    for params in random_points(module.SPACE, NUM_PLANS // 10, seed=3):
        for _ in range(10):
            height, width, channels = random_shape(generator)
            layers, _ = module.plan(params, (height, width, channels))
            for layer in layers:
                if layer.kind == "conv" and layer.padding == "valid":
                    height, width = height - layer.kernel_size + 1, width - layer.kernel_size + 1
                if layer.kind == "conv":
                    height, width = -(-height // layer.strides), -(-width // layer.strides)
                elif layer.kind in ("max", "average"):
                    height, width = height // 2, width // 2
                assert min(height, width) >= 1
                if layer.kind == "conv":
                    channels = int(layer.size)
                if layer.kind == "flatten":
                    assert height * width * channels <= module.MAX_FLATTENED


@pytest.mark.parametrize(("convolutions", "dense"), [(cnn, mlp), (cnn_blocks, mlp_layers)])
def test_what_is_adapted_is_said(convolutions, dense):
    params = convolutions.SPACE.complete({
        "num_blocks": 4, "padding": "valid", "head": "average",
    })  # fmt: skip
    assert convolutions.SPACE.adaptations(params, (224, 224, 3)) == ()
    small = convolutions.SPACE.adaptations(params, (8, 8, 1))
    assert any("no pooling" in line for line in small)
    assert any("padding same" in line for line in small)
    assert dense.SPACE.adaptations(dense.SPACE.complete({}), (28, 28, 1)) == ()
    assert "averaged" in dense.SPACE.adaptations(dense.SPACE.complete({}), (224, 224, 3))[0]


@pytest.mark.parametrize("baseline", all_baselines(), ids=lambda b: b.name)
def test_baselines_are_points_of_their_space(baseline):
    space = get_space(baseline.space)
    assert space.complete(baseline.params) == baseline.params
    assert space.adaptations(baseline.params, (28, 28, 1)) == ()


def test_the_published_models_have_the_published_layers():
    by_name = {b.name: b for b in all_baselines()}
    model = cnn.build(by_name["cnn3_valid_50k"].params, (28, 28, 1), 10, num_steps=1)
    assert model.count_params() == 93_322
    kinds = [type(layer).__name__ for layer in model.layers if layer.weights]
    assert kinds == ["Conv2D"] * 3 + ["Dense"] * 2
    assert isinstance(model.optimizer, keras.optimizers.RMSprop)
    dropout = cnn.build(by_name["cnn2_dropout"].params, (28, 28, 1), 10, num_steps=1)
    rates = [layer.rate for layer in dropout.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.25, 0.5]
    dense = mlp.build(by_name["mlp_512x2"].params, (28, 28, 1), 10, num_steps=1)
    assert [layer.units for layer in dense.layers if layer.weights] == [512, 512, 10]
    assert float(dense.optimizer.learning_rate) == pytest.approx(0.001)


def test_a_model_takes_raw_pixels():
    """Normalisation is in the model: what 0 to 255 means is not the caller's to know."""
    model = cnn_blocks.build(cnn_blocks.SPACE.complete({}), (8, 8, 1), 2, num_steps=1)
    rescaling = next(x for x in model.layers if isinstance(x, keras.layers.Rescaling))
    assert model.layers.index(rescaling) == 1
    np.testing.assert_allclose(rescaling(np.array([[255]], np.uint8)), [[1.0]])


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"optimizer": "sgd", "sgd_nesterov": True}, "SGD"),
        ({"optimizer": "adamw"}, "AdamW"),
        ({"optimizer": "nadam"}, "Nadam"),
        ({"optimizer": "adam", "weight_decay": 1e-4}, "Adam"),
        ({"optimizer": "rmsprop", "rmsprop_momentum": 0.5}, "RMSprop"),
    ],
)
def test_optimizer_parameters_arrive(given, kind):
    params = mlp_layers.SPACE.complete(given)
    optimizer = mlp_layers.build(params, (8, 8, 1), 2, num_steps=10).optimizer
    assert type(optimizer).__name__ == kind
    config = optimizer.get_config()
    assert config.get("weight_decay") == (
        given.get("weight_decay") or (4e-3 if kind == "AdamW" else None)
    )
    if kind == "RMSprop":
        assert config["momentum"] == 0.5
    if kind == "SGD":
        assert config["nesterov"] is True


def test_schedules_span_the_budget():
    def rates(given):
        optimizer = mlp_layers.build(
            mlp_layers.SPACE.complete(given), (8, 8, 1), 2, num_steps=100
        ).optimizer
        schedule = optimizer._learning_rate
        return [float(schedule(step)) for step in (0, 10, 100)]

    cosine = rates({"schedule": "cosine", "warmup_share": 0.1})
    assert cosine == pytest.approx([0.0, 0.001, 0.0], abs=1e-7)
    assert rates({"schedule": "exponential", "final_rate_ratio": 0.1})[2] == pytest.approx(1e-4)


def test_unknown_or_inactive_parameters_are_refused():
    with pytest.raises(InputError, match="'filters_3' is inactive at this point"):
        cnn_blocks.SPACE.complete({"num_blocks": 1, "filters_3": 16})
    with pytest.raises(InputError, match="'filterz' is not a parameter"):
        cnn_blocks.SPACE.complete({"filterz": 16})


def test_sampling_and_describing_import_neither_keras_nor_optuna():
    code = (
        "import sys, numpy as np\n"
        "from search_spaces import HyperParameters, Space, get_space\n"
        "from search_spaces.hyperparameters import RandomHyperParameters\n"
        "get_space('cnn').sample(RandomHyperParameters(np.random.default_rng(0)))\n"
        "from sweeps.cli.main import main\n"
        "assert main(['run', '--describe', 'cnn']) == 0\n"
        "assert main(['run', '--list-spaces']) == 0\n"
        "heavy = {'keras', 'tensorflow', 'keras_tuner', 'optuna', 'mlflow', 'pandas'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_fingerprint_follows_the_space():
    assert cnn_blocks.SPACE.fingerprint != mlp_layers.SPACE.fingerprint
    assert len(cnn_blocks.SPACE.fingerprint) == 12
