"""What a built model costs: as our plans say, and by hand for every layer that counts."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

from search_spaces.cost import Cost
from search_spaces.hyperparameters import RandomHyperParameters
from search_spaces.registry import SPACES, get_space
from search_spaces.user_spaces.model_cost import cost_of_model


@pytest.mark.parametrize("name", SPACES)
def test_built_models_of_ours_cost_what_their_plans_say(name):
    space, generator = get_space(name), np.random.default_rng(1)
    for _ in range(3):
        params = space.sample(RandomHyperParameters(generator))
        model = space.build(params, (28, 28, 1), 10, num_steps=100)
        assert cost_of_model(model) == space.cost(params, (28, 28, 1), 10)


@pytest.mark.parametrize(
    ("layer", "multiply_adds"),
    [
        (kl.Conv2D(4, 3), 36 * 9 * 2 * 4),
        (kl.Conv2D(4, 3, strides=2, padding="same"), 16 * 9 * 2 * 4),
        (kl.Conv2D(4, 3, groups=2), 36 * 9 * 1 * 4),
        (kl.DepthwiseConv2D(3, depth_multiplier=2), 36 * 9 * 2 * 2),
        (kl.SeparableConv2D(5, 3, padding="same"), 64 * (9 * 2 + 2 * 5)),
        (kl.Conv2DTranspose(3, 2, strides=2), 64 * 4 * 2 * 3),
        (kl.Dense(7), 64 * 2 * 7),
        (kl.BatchNormalization(), 0),
        (kl.MaxPooling2D(), 0),
    ],
)  # fmt: skip
def test_each_weight_of_a_kernel_counts_as_often_as_it_is_used(layer, multiply_adds):
    model = keras.Sequential([keras.Input((8, 8, 2)), layer])
    assert cost_of_model(model) == Cost(model.count_params(), multiply_adds)


class Block(kl.Layer):
    """A user's layer that holds one of Keras'."""

    def __init__(self):
        super().__init__()
        self.inner = kl.Conv2D(2, 3)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks, self.head = [Block()], keras.Sequential([kl.Flatten(), kl.Dense(3)])

    def call(self, x):
        return self.head(self.blocks[0](x))


def test_nested_models_and_layers_of_the_users_own_count():
    model = Subclassed()
    assert cost_of_model(model) is None, "it is not built"
    model(np.zeros((1, 8, 8, 1)))
    assert cost_of_model(model) == Cost(model.count_params(), 36 * 9 * 2 + 72 * 3)


def test_a_model_for_pictures_of_any_size_has_no_cost():
    layers = [kl.Conv2D(2, 3), kl.GlobalAveragePooling2D(), kl.Dense(2)]
    assert cost_of_model(keras.Sequential([keras.Input((None, None, 1)), *layers])) is None
