"""The spaces whose blocks share their parameters: what they hold, what they cost, how they fit."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from fake_loop_parts import random_points

import search_spaces
from search_spaces import cnn, cnn_blocks, mlp, mlp_layers
from search_spaces.augmentation import Augmentation
from search_spaces.cost import Cost
from search_spaces.fitting import make_optimizer
from search_spaces.registry import (
    SPACES,
    all_baselines,
    baselines_of,
    get_space,
    recorded_space,
)
from search_spaces.space import Assembled, Space

SHAPE = (28, 28, 1)
EARLIER = {b.name: b for space in (cnn_blocks, mlp_layers) for b in space.SPACE.baselines}
SHAPES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (13, 40, 3), (96, 96, 3)]


def configs(model: keras.Model) -> list[dict]:
    """What each layer is and does; its name only counts the layers made before it."""
    found = []
    for layer in model.layers:
        config = layer.get_config()
        config.pop("name")
        found.append({"class": type(layer).__name__, "shape": layer.output.shape, **config})
    return found


def test_the_published_models_are_five_each_once():
    names = [baseline.name for baseline in all_baselines()]
    assert len(names) == len(set(names)) == 5
    assert {baseline.space for baseline in all_baselines()} == {"cnn", "mlp"}
    assert baselines_of("") == all_baselines()
    assert [b.name for b in baselines_of("", earlier=True)] == names
    assert baselines_of("cnn_blocks") == cnn_blocks.SPACE.baselines


@pytest.mark.parametrize("baseline", all_baselines(), ids=lambda b: b.name)
def test_a_published_model_is_the_same_in_both_spaces(baseline):
    earlier = EARLIER[baseline.name]
    model, before = (
        get_space(b.space).assembled(b.params, SHAPE, 10, 50_000, 5) for b in (baseline, earlier)
    )
    assert configs(model.model) == configs(before.model)
    optimizer, optimizer_before = model.model.optimizer, before.model.optimizer
    assert type(optimizer) is type(optimizer_before)
    # Its name only counts the optimizers made before it, as a layer's does.
    config, config_before = optimizer.get_config(), optimizer_before.get_config()
    assert {**config, "name": ""} == {**config_before, "name": ""}
    assert model.model.loss == before.model.loss == "sparse_categorical_crossentropy"
    assert model.batch_size == before.batch_size
    assert not model.one_hot and model.augmentation is None
    published = ("num_epochs", "train_on", "accuracy", "loss", "reload", "dataset")
    assert [getattr(baseline, f) for f in published] == [getattr(earlier, f) for f in published]


def test_spaces_of_before_are_what_they_were():
    """A sweep that began over one goes on only while its fingerprint stays."""
    assert cnn_blocks.SPACE.fingerprint == "c67096993492"
    assert mlp_layers.SPACE.fingerprint == "89a7644ee080"


def test_a_recorded_name_is_read_by_the_parameters_beside_it():
    blocks = {parameter.name for parameter in cnn_blocks.SPACE.parameters}
    core = {parameter.name for parameter in cnn.SPACE.parameters}
    assert recorded_space("cnn", {*blocks, "max_epochs"}) == "cnn_blocks"
    assert recorded_space("cnn", {*core, "max_epochs"}) == "cnn"
    assert recorded_space("cnn_blocks", blocks) == "cnn_blocks"
    layers = {parameter.name for parameter in mlp_layers.SPACE.parameters}
    assert recorded_space("mlp", layers) == "mlp_layers"
    assert recorded_space("space.py:build", blocks) == "space.py:build"


@pytest.mark.parametrize("name", sorted(SPACES))
def test_cost_is_known_before_a_model_is_built(name):
    space = get_space(name)
    for k, params in enumerate(random_points(space, 12, seed=5)):
        shape, num_classes = SHAPES[k % len(SHAPES)], (2, 10, 100)[k % 3]
        cost = space.cost(params, shape, num_classes)
        model = space.build(params, shape, num_classes, num_steps=10)
        assert cost is not None
        assert cost.num_parameters == model.count_params(), params
        assert cost.multiply_adds > 0
        keras.backend.clear_session()


def test_multiply_adds_are_those_of_convolutions_and_dense_layers():
    params = cnn.SPACE.complete({
        "num_blocks": 2, "filters": 8, "growth": "double", "padding": "valid", "dense_units": 64,
    })  # fmt: skip
    # 28 - 2 = 26, pooled 13; 13 - 2 = 11, pooled 5; 5 * 5 * 16 = 400 values.
    convolutions = 26 * 26 * 9 * 1 * 8 + 11 * 11 * 9 * 8 * 16
    assert cnn.SPACE.cost(params, SHAPE, 10) == Cost(
        num_parameters=9 * 8 + 4 * 8 + 9 * 8 * 16 + 4 * 16 + 400 * 64 + 64 + 64 * 10 + 10,
        multiply_adds=convolutions + 400 * 64 + 64 * 10,
    )
    strided = cnn.SPACE.complete({
        "num_blocks": 2, "filters": 8, "growth": "none", "pooling": "stride", "pool_last": False,
        "dense_units": 0, "head": "average",
    })  # fmt: skip
    cost = cnn.SPACE.cost(strided, SHAPE, 10)
    assert cost is not None
    assert cost.multiply_adds == 14 * 14 * 9 * 8 + 14 * 14 * 9 * 8 * 8 + 8 * 10


def test_a_space_of_somebody_s_own_does_not_know_its_cost():
    space = Space("own", "", lambda hp: {}, cnn.build, lambda p, s: ())
    assert space.cost({}, SHAPE, 10) is None


def test_filters_grow_as_named():
    def filters(growth):
        return cnn.filters_of(
            cnn.SPACE.complete({"filters": 20, "growth": growth, "num_blocks": 4})
        )

    assert filters("none") == (20, 20, 20, 20)
    assert filters("double_once") == (20, 40, 40, 40)
    assert filters("half_more") == (20, 30, 45, 67)
    assert filters("double") == (20, 40, 80, 160)


def test_a_convolution_before_batch_norm_has_no_bias():
    for batch_norm in (True, False):
        model = cnn.build(cnn.SPACE.complete({"batch_norm": batch_norm}), SHAPE, 10, num_steps=1)
        convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        assert [conv.use_bias for conv in convs] == [not batch_norm] * 3
        norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
        assert len(norms) == 3 * batch_norm


def test_uniform_points_cost_about_as_much_as_the_default():
    costs = np.array([
        cnn.cost(params, SHAPE, 10).multiply_adds
        for params in random_points(cnn.SPACE, 2_000, seed=0)
    ])  # fmt: skip
    default = cnn.cost(cnn.SPACE.complete({}), SHAPE, 10).multiply_adds
    assert default / 3 < np.median(costs) < 2 * default
    assert np.quantile(costs, 0.95) < 12 * default


def test_models_are_of_keras_own_layers():
    for module in (cnn, mlp):
        params = module.SPACE.complete({"augmentation_shift": 0.1, "augmentation_flip": True})
        model = module.build(params, SHAPE, 10, num_steps=100)
        modules = {type(layer).__module__.partition(".")[0] for layer in model.layers}
        assert modules == {"keras"}
        assert not any("Random" in type(layer).__name__ for layer in model.layers)
        assert type(model.optimizer).__module__.startswith("keras.")


@pytest.mark.parametrize("module", [cnn, mlp], ids=["cnn", "mlp"])
def test_augmentation_is_told_in_pixels_of_the_image(module):
    def augmentation(shape, **given):
        params = module.SPACE.complete(given)
        return module.SPACE.assembled(params, shape, 10, 100, 1).augmentation

    assert augmentation(SHAPE) == Augmentation(1, flip=False)
    assert augmentation((224, 300, 3), augmentation_flip=True) == Augmentation(9, flip=True)
    assert augmentation(SHAPE, augmentation_shift=0.1) == Augmentation(3)
    assert augmentation(SHAPE, augmentation_shift=0.0) is None
    assert augmentation((8, 8, 1)) is None, "a third of a pixel is none"


def test_a_space_without_augmentation_asks_for_none():
    params = cnn_blocks.SPACE.complete({"augmentation": True})
    found = cnn_blocks.SPACE.assembled(params, SHAPE, 10, 100, 1)
    assert isinstance(found, Assembled) and found.augmentation is None


@pytest.mark.parametrize(("smoothing", "one_hot"), [(0.0, False), (0.05, True), (0.1, True)])
def test_smoothed_labels_are_one_hot(smoothing, one_hot):
    params = cnn.SPACE.complete({"label_smoothing": smoothing, "num_blocks": 1})
    found = cnn.SPACE.assembled(params, (8, 8, 1), 3, 100, 1)
    assert found.one_hot is one_hot
    if one_hot:
        assert isinstance(found.model.loss, keras.losses.CategoricalCrossentropy)
        assert found.model.loss.label_smoothing == smoothing


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_as_a_hypermodel_a_space_takes_class_numbers(smoothing):
    import keras_tuner

    hypermodel = search_spaces.as_hypermodel("cnn", (8, 8, 1), 3, num_images=30, num_epochs=1)
    hp = keras_tuner.HyperParameters()
    hp.Fixed("label_smoothing", smoothing)
    model = hypermodel.build(hp)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), np.uint8)
    numbers = np.arange(30) % 3
    data = (pixels, numbers)
    history = hypermodel.fit(hp, model, *data, validation_data=data, epochs=1, verbose=0)
    assert 0 <= history.history["val_accuracy"][0] <= 1
    loss, accuracy = model.evaluate(*data, verbose=0)
    probabilities = model.predict(pixels, verbose=0)
    assert accuracy == pytest.approx((probabilities.argmax(axis=1) == numbers).mean())
    targets = np.eye(3)[numbers] * (1 - smoothing) + smoothing / 3
    expected = -(targets * np.log(probabilities)).sum(axis=1).mean()
    assert loss == pytest.approx(expected, rel=1e-4)


def rates(steps: list[int], num_steps: int = 200, **given) -> list[float]:
    optimizer = make_optimizer(cnn.SPACE.complete(given), num_steps)
    rate = optimizer._learning_rate
    return [float(rate(step)) if callable(rate) else float(rate) for step in steps]


def test_one_learning_rate_means_the_same_under_every_optimizer():
    for name in ("adam", "nadam", "rmsprop"):
        assert rates([0], optimizer=name, schedule="constant") == pytest.approx([0.003])
    assert rates([0], optimizer="sgd", schedule="constant") == pytest.approx([0.03])


def test_schedules_span_the_steps():
    assert rates([0, 5, 10, 200]) == pytest.approx([0.00012, 0.00156, 0.003, 0.0], abs=1e-8)
    assert rates([0, 100, 200], schedule="cosine") == pytest.approx([0.003, 0.0015, 0.0], abs=1e-8)
    assert rates([0, 1], num_steps=1) == pytest.approx([0.003, 0.0], abs=1e-8)


@pytest.mark.parametrize("name", ["adam", "nadam", "rmsprop", "sgd"])
def test_optimizers_are_keras_own_with_decay_and_averages(name):
    params = cnn.SPACE.complete({"optimizer": name, "weight_decay": 1e-2, "weight_averaging": True})
    config = make_optimizer(params, 10).get_config()
    assert type(make_optimizer(params, 10)).__name__.lower() == name
    assert (config["weight_decay"], config["use_ema"], config["ema_momentum"]) == (0.01, True, 0.99)
    if name == "sgd":
        assert (config["momentum"], config["nesterov"]) == (0.9, True)
    plain = make_optimizer(cnn.SPACE.complete({"optimizer": name, "weight_decay": 0.0}), 10)
    assert plain.weight_decay is None and plain.use_ema is False
