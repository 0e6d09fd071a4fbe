"""Trains the same points by `fit` and by the loop on the device; prints how far apart they end.

Run with `KERAS_BACKEND` set; prints one JSON object, whose `differences` are point -> largest
difference of any weight, optimizer state or metric after two epochs.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pipelines.evaluation.metrics import predict
from pipelines.runtime.process import configure, seed_everything
from pipelines.training.device_prediction import DeviceForward, DevicePixels, predict_on_device
from pipelines.training.epoch import Stretch, Training, train_stretch
from pipelines.training.feeding import class_weight
from pipelines.training.loops import epoch_loop
from search_spaces.registry import get_space

SIDE, CLASSES, BATCH = 12, 4, 16
SMALL: dict[str, Any] = {
    "num_blocks": 1, "filters_0": 8, "num_dense_layers": 1, "dense_units_0": 32, "batch_size": 32,
}  # fmt: skip
POINTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"dropout_0": 0.25, "dense_dropout_0": 0.5},
    "batch_norm": {"batch_norm_0": True, "num_convs_0": 2},
    "augmented": {"augmentation": True, "augmentation_zoom": 0.1, "optimizer": "adam"},
    "scheduled": {"schedule": "cosine", "optimizer": "adamw", "adamw_weight_decay": 0.01},
    "weighted": {"optimizer": "sgd"},
}

CORE: dict[str, dict[str, Any]] = {
    "warmed": {"batch_size": 32, "filters": 8},
    "averaged": {"batch_size": 32, "optimizer": "sgd", "weight_averaging": True},
}
"""Points of `cnn`, whose schedule begins with a warm-up; the others are of `cnn_blocks`."""
SCHEDULED_EPOCHS = 20
"""Of those: the warm-up ends within the first epoch."""


def trained(
    point: str, num_images: int, *, by_loop: bool, side: int = SIDE, **options: Any
) -> np.ndarray:
    """Everything that two epochs leave behind."""
    generator = np.random.default_rng(3)
    y = np.minimum(generator.integers(0, CLASSES + 2, num_images), CLASSES - 1)
    x = generator.integers(0, 256, (num_images, side, side, 1), np.uint8)
    x[..., 0] //= (1 + y)[:, None, None].astype(np.uint8)
    seed_everything(5)
    space = get_space("cnn" if point in CORE else "cnn_blocks")
    params = space.complete(CORE[point] if point in CORE else {**SMALL, **POINTS[point]})
    num_epochs = SCHEDULED_EPOCHS if point in CORE else 2
    assembled = space.assembled(params, (side, side, 1), CLASSES, num_images, num_epochs)
    how = "balanced" if point == "weighted" else "none"
    stream = options.pop("stream_above", 2**30)
    training = Training(x, y, CLASSES, 5, None, class_weight(y, how), stream)
    loop = epoch_loop(assembled, training, **options) if by_loop else None
    assert by_loop == (loop is not None)
    found: list[Any] = []
    for epoch in (1, 2):
        metrics = train_stretch(assembled, loop, training, Stretch(epoch, 0, 1, 1))
        found += [metrics["loss"], metrics["accuracy"]]
    model = assembled.model
    import keras

    for variable in [*model.variables, *model.optimizer.variables]:
        found += list(np.ravel(keras.ops.convert_to_numpy(variable)))
    return np.array(found, np.float64)


def main() -> None:
    """Compares every point with and without a smaller last batch, and prints it."""
    import keras

    configure(1, None, 0)
    differences = {}
    backend = keras.config.backend()
    # JAX compiles each shape for seconds; its `fit` and its loop differ the least.
    tensorflow = (*POINTS, *CORE) if backend == "tensorflow" else tuple(POINTS)
    for point in tensorflow if backend != "jax" else ("batch_norm", "weighted"):
        # Whether the last batch is smaller matters to what divides by its size.
        both = backend == "torch" or point in ("batch_norm", "weighted")
        for num_images in (96, 75) if both and backend != "jax" else (75,):
            one = trained(point, num_images, by_loop=True)
            other = trained(point, num_images, by_loop=False)
            differences[f"{point} {num_images}"] = float(np.abs(one - other).max())
    # An image that is no whole number of words.
    both = [trained("plain", 75, by_loop=by_loop, side=SIDE - 1) for by_loop in (True, False)]
    differences["odd 75"] = float(np.abs(both[0] - both[1]).max())
    found: dict[str, Any] = {"differences": differences}
    plain = trained("plain", 75, by_loop=True)
    if backend == "jax":
        scanned = trained("plain", 75, by_loop=True, scanned_steps=2)
        found["scanned"] = float(np.abs(plain - scanned).max())
    if backend == "torch":
        streamed = trained("dropout", 75, by_loop=True, stream_above=0)
        resident = trained("dropout", 75, by_loop=True)
        found["streamed"] = float(np.abs(streamed - resident).max())
        again = trained("dropout", 75, by_loop=True)
        found["again"] = float(np.abs(again - resident).max())
    found["predicted"] = predicted()
    print(json.dumps(found))


def predicted() -> dict[str, float]:
    """How far predictions on the device are from those of `predict`, by where the pixels are.

    41 images in batches of 16 have a smaller last one; `filled` fills it up, as a GPU wants it.
    """
    generator = np.random.default_rng(4)
    x = generator.integers(0, 256, (41, SIDE, SIDE, 1), np.uint8)
    rows = generator.permutation(41)[:30]
    space = get_space("cnn")
    params = space.complete({"num_blocks": 1, "filters": 8, "batch_norm": True})
    assembled = space.assembled(params, (SIDE, SIDE, 1), CLASSES, 41, 2)
    wanted = predict(assembled.model, x, 16)
    forward = DeviceForward(assembled.model)
    differences = {}
    for name, room in (("resident", x.nbytes), ("carried", 0)):
        pixels = DevicePixels(x, room)
        differences[name] = float(np.abs(predict_on_device(forward, pixels, 16) - wanted).max())
        some = predict_on_device(forward, pixels, 41, rows)
        differences[f"some {name}"] = float(np.abs(some - wanted[rows]).max())
    forward.takes_one_size = True
    filled = predict_on_device(forward, pixels, 16)
    assert filled.shape == wanted.shape
    differences["filled"] = float(np.abs(filled - wanted).max())
    return differences


if __name__ == "__main__":
    main()
