"""`.keras` files that are loaded, and all the others, which are not."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

from pipelines.models.keras_files import ModelShapes, load_saved_model, model_shapes
from search_spaces import cnn_blocks, mlp_layers
from search_spaces.errors import InputError

SHAPE = (8, 8, 1)


def classifier(shape=SHAPE, num_classes=3, dtype="uint8", activation="softmax") -> keras.Model:
    inputs = keras.Input(shape, dtype=dtype)
    x = kl.Flatten()(kl.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, kl.Dense(num_classes, activation=activation)(x))


def saved(model: keras.Model, name: str = "m.keras") -> Path:
    model.save(name)
    return Path(name)


def refusal(path: Path, label: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_saved_model(path, label)
    message = str(caught.value)
    assert (label or str(path)) in message and "Received: " in message
    return message


def edited(path: Path, change: Callable[[dict], object]) -> Path:
    """The model with another config."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile("edited.keras", "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return Path("edited.keras")


@pytest.mark.parametrize("space", [cnn_blocks, mlp_layers])
def test_models_of_the_spaces_load_and_predict_the_same(space):
    params = space.SPACE.complete({"optimizer": "adam"})
    model = space.build(params, (28, 28, 1), 10, num_steps=5)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1)).astype(np.uint8)
    loaded = load_saved_model(saved(model))
    assert not loaded.compiled
    np.testing.assert_array_equal(
        loaded.predict(pixels, verbose=0), model.predict(pixels, verbose=0)
    )
    assert model_shapes(loaded) == ModelShapes((28, 28, 1), "uint8", 10)


def test_other_models_of_pictures_load_too():
    sequential = keras.Sequential(
        [keras.Input((6, 5, 3)), kl.GlobalAveragePooling2D(), kl.Dense(4, activation="softmax")]
    )
    assert model_shapes(load_saved_model(saved(sequential))) == ModelShapes((6, 5, 3), "float32", 4)


def test_a_lambda_is_refused():
    inputs = keras.Input(SHAPE)
    x = kl.Lambda(lambda x: x * 2)(inputs)
    model = keras.Model(inputs, kl.Dense(3, activation="softmax")(kl.Flatten()(x)))
    assert "Lambda layer: it is not loaded" in refusal(saved(model))


@keras.saving.register_keras_serializable("tests")
class Foreign(kl.Layer):
    def call(self, x):
        return x


def test_a_class_that_is_not_of_keras_is_refused_even_if_it_is_registered():
    inputs = keras.Input(SHAPE)
    x = kl.Flatten()(Foreign()(inputs))
    path = saved(keras.Model(inputs, kl.Dense(3, activation="softmax")(x)))
    assert ".Foreign': it is not loaded" in refusal(path)


@pytest.mark.parametrize(
    ("layer", "rule"),
    [
        ({"module": "os", "class_name": "system", "config": {}}, "'os.system'"),
        ({"module": "subprocess", "class_name": "Popen", "config": {}}, "'subprocess.Popen'"),
        ({"module": "keras_evil", "class_name": "Dense", "config": {}}, "'keras_evil.Dense'"),
        ({"module": "keras.layers", "class_name": "Lambda", "config": {}}, "Lambda layer"),
        ({"class_name": "__lambda__", "config": {"value": "x"}}, "Lambda layer"),
        (
            {"module": "keras.layers", "class_name": "TFSMLayer",
             "config": {"filepath": "x", "name": "t"}},
            "safe mode",
        ),
        (
            {"module": "keras.utils", "class_name": "get_file",
             "config": {"fname": "x", "origin": "http://127.0.0.1:9/x"}},
            "safe mode",
        ),
        ({"module": "keras.layers", "class_name": "NoSuchLayer", "config": {}}, "safe mode"),
    ],
)  # fmt: skip
def test_a_planted_class_is_refused(layer, rule):
    path = saved(classifier())

    def plant(config):
        config["config"]["layers"][1] = {**config["config"]["layers"][1], **layer}

    assert rule in refusal(edited(path, plant))


def test_a_planted_optimizer_is_not_built():
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy")
    path = saved(model)

    def plant(config):
        config["compile_config"]["optimizer"] = {
            "module": "os", "class_name": "system", "config": {}
        }  # fmt: skip

    assert not load_saved_model(edited(path, plant)).compiled


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_files_of_other_kinds_are_refused():
    saved(classifier(), "m.keras")
    Path("m.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(900))
    Path("h5.keras").write_bytes(Path("m.h5").read_bytes())
    Path("pickle.keras").write_bytes(pickle.dumps(Bomb()))
    Path("empty.keras").write_bytes(b"")
    Path("folder.keras").mkdir()
    with zipfile.ZipFile("other.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with zipfile.ZipFile("deep.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "[" * 100_000)
    with zipfile.ZipFile("list.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "[1, 2]")
    with zipfile.ZipFile("bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(50_000_000))
    for name, rule in (
        ("m.h5", "other kind is loaded"),
        ("h5.keras", "another kind of file"),
        ("pickle.keras", "another kind of file"),
        ("empty.keras", "another kind of file"),
        ("folder.keras", "which is no file"),
        ("missing.keras", "which does not exist"),
        ("other.keras", "without Keras' config.json"),
        ("deep.keras", "another kind of file"),
        ("list.keras", "describes no model"),
        ("bomb.keras", "unpack to 50,000,000 bytes"),
    ):
        assert rule in refusal(Path(name)), name
    assert not Path("exploded").exists()


def test_a_truncated_or_damaged_file_is_refused():
    content = saved(classifier()).read_bytes()
    path = Path("damaged.keras")
    for length in (10, 200, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:length])
        assert "truncated, damaged" in refusal(path)
    random = np.random.default_rng(0)
    for _ in range(40):
        body = bytearray(content)
        body[random.integers(len(body))] ^= 1 << random.integers(8)
        path.write_bytes(bytes(body))
        try:
            loaded = load_saved_model(path)
        except InputError:
            continue
        # What still loads was damaged where nothing is said: its weights are the ones saved.
        original = load_saved_model(Path("m.keras"))
        for one, other in zip(loaded.get_weights(), original.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_no_classifier_of_pictures_is_refused():
    flat = keras.Sequential([keras.Input((5,)), kl.Dense(3, activation="softmax")])
    one, two = keras.Input(SHAPE), keras.Input(SHAPE)
    pair = keras.Model(
        [one, two], kl.Dense(3, activation="softmax")(kl.Flatten()(kl.Add()([one, two])))
    )
    any_size = keras.Input((None, None, 3))
    pooled = kl.GlobalAveragePooling2D()(any_size)
    picture = keras.Input(SHAPE)
    for model, rule in (
        (flat, "must take one image.*(None, 5)"),
        (pair, "must take one image.*and"),
        (keras.Model(any_size, kl.Dense(3, activation="softmax")(pooled)), "fixed size"),
        (classifier((8, 8, 2)), "1 or 3 channels"),
        (classifier(num_classes=1, activation="sigmoid"), "at least two classes"),
        (keras.Model(picture, kl.Conv2D(2, 3)(picture)), "one probability per class"),
        (classifier(activation=None), "End it with a softmax"),
        (classifier(activation="sigmoid"), "sum to 1"),
    ):
        with pytest.raises(InputError, match=rule.replace("(", r"\(").replace(")", r"\)")):
            load_saved_model(saved(model))


def test_weights_that_are_no_numbers_are_refused():
    model = classifier()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    assert "must give class probabilities" in refusal(saved(model))


def test_a_refusal_keeps_its_reason_on_its_way_between_processes():
    error = pickle.loads(
        pickle.dumps(InputError("A rule. Received: x, which is empty.", reason="y"))
    )
    assert (str(error), error.reason) == ("A rule. Received: x, which is empty.", "y")


def test_a_message_calls_the_model_by_its_label():
    path = saved(classifier(activation=None))
    assert "digits version 3" in refusal(path, "digits version 3")


def test_tensorflow_is_silent_while_it_starts_and_errors_are_not():
    path = saved(classifier())
    hidden = {"TF_CPP_MIN_LOG_LEVEL", "PYTHONWARNINGS"}
    code = (
        "import sys, pathlib\n"
        "from pipelines.models.keras_files import load_saved_model\n"
        f"load_saved_model(pathlib.Path({str(path)!r}))\n"
        "print('error output works', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "error output works\n")
