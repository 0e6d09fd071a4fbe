"""Images are shifted and mirrored as the draws say, however they are read."""

from __future__ import annotations

import keras
import numpy as np

from pipelines.training.augmentation import AugmentedRows
from pipelines.training.epoch import Stretch, Training, train_stretch
from pipelines.training.loops import epoch_loop
from search_spaces.augmentation import Augmentation
from search_spaces.space import Assembled

BOTH = Augmentation(shift_pixels=2, flip=True)


def pictures(num: int = 200, side: int = 7) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 256, (num, side, side, 2)).astype(np.uint8)


def candidates(image: np.ndarray) -> dict[tuple[int, int, bool], bytes]:
    found = {}
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    for top in range(5):
        for left in range(5):
            part = padded[top : top + 7, left : left + 7]
            found[top, left, False], found[top, left, True] = (
                part.tobytes(),
                part[:, ::-1].tobytes(),
            )
    return found


def test_every_image_is_a_shift_or_a_mirrored_shift_of_itself_and_all_of_them_occur():
    x = pictures(500)
    changed = AugmentedRows(x, BOTH, 3, 1)[np.arange(len(x))]
    assert changed.shape == x.shape and changed.dtype == np.uint8
    kinds = set()
    for image, other in zip(x, changed, strict=True):
        kinds |= {kind for kind, pixels in candidates(image).items() if pixels == other.tobytes()}
    assert len(kinds) == 50


def test_draws_follow_from_seed_epoch_and_the_number_of_the_image():
    x, rows = pictures(), np.random.default_rng(0).permutation(200)
    whole = AugmentedRows(x, BOTH, 3, 1)[np.arange(200)]
    batches = [AugmentedRows(x, BOTH, 3, 1)[rows[k : k + 32]] for k in range(0, 200, 32)]
    np.testing.assert_array_equal(np.concatenate(batches), whole[rows])
    for seed, epoch in ((4, 1), (3, 2)):
        assert (AugmentedRows(x, BOTH, seed, epoch)[np.arange(200)] != whole).any()


def test_nothing_changes_without_a_strength():
    x = pictures(20)
    np.testing.assert_array_equal(AugmentedRows(x, Augmentation(), 0, 1)[np.arange(20)], x)


def model() -> keras.Model:
    keras.utils.set_random_seed(2)
    built = keras.Sequential([
        keras.Input((7, 7, 2), dtype="uint8"), keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax"),
    ])  # fmt: skip
    built.compile(
        keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return built


def test_the_loop_fit_and_reading_from_disk_train_on_the_same_changed_images():
    x, y = pictures(75), np.random.default_rng(4).integers(0, 3, 75)
    found = []
    for how in ("loop", "fit", "stream", "plain"):
        assembled = Assembled(model(), 32, augmentation=None if how == "plain" else BOTH)
        training = Training(x, y, 3, 5, stream_above=0 if how == "stream" else 2**30)
        loop = epoch_loop(assembled, training) if how == "loop" else None
        for epoch in (1, 2):
            train_stretch(assembled, loop, training, Stretch(epoch, 0, 1, 1))
        found.append(assembled.model.get_weights())
    for other in found[1:3]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)
    assert (found[0][0] != found[3][0]).any()
