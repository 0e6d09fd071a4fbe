"""Classes from labels, and which image trains, validates or tests. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.errors import InputError

TEST_SHARE = VALIDATION_SHARE = 0.2
SEED = 0
"""Of every split, those of the built-in sets included."""
MAX_CLASSES = 1_000
TRAIN, VALIDATION, TEST = 0, 1, 2
"""Places in `pipelines.data.prepared.PARTS`."""
NUM_NAMED = 5


@dataclass(frozen=True)
class Division:
    """Which part every image belongs to, (n,) int8, and a phrase that says how it was decided."""

    parts: np.ndarray
    phrase: str


def classes_of(values: np.ndarray, origin: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (n,) int64 from 0 and the class names, from numbers or text of any kind.

    Numbers keep their order and text is sorted; text that is all whole numbers is in their order,
    and stays what it is: `01` and `1` are two classes.

    Raises:
        InputError: The labels are no classes, or not 2 to 1,000 of them.
    """
    kinds, labels = np.unique(_comparable(values, origin), return_inverse=True)
    names = tuple(str(kind) for kind in kinds)
    check_names(names, origin)
    labels = labels.reshape(-1).astype(np.int64)
    if kinds.dtype.kind == "U" and all(map(_is_number, names)):
        order = sorted(range(len(names)), key=lambda k: (int(names[k]), names[k]))
        return np.argsort(order)[labels], tuple(names[k] for k in order)
    return labels, names


def alike_numbers(names: Sequence[str]) -> tuple[str, ...]:
    """A phrase where classes are written differently and mean one number; often that is a slip."""
    written: dict[int, list[str]] = {}
    for name in filter(_is_number, names):
        written.setdefault(int(name), []).append(name)
    alike = [" and ".join(texts) for texts in written.values() if len(texts) > 1]
    return (f"classes that mean one number are different ones: {some(alike)}",) if alike else ()


def check_names(names: Sequence[str], origin: str) -> None:
    """Raises InputError unless there are 2 to 1,000 classes whose names differ visibly."""
    if not 2 <= len(names) <= MAX_CLASSES:
        listed = f" ({some(names)})" if names else ""
        raise InputError(
            f"A data set must have 2 to {MAX_CLASSES:,} classes. Received: {len(names):,} in "
            f"{origin}{listed}. Give every image the label of one of several classes."
        )
    seen: dict[str, str] = {}
    for name in names:
        plain = name.strip().casefold()
        if not plain:
            raise InputError(
                f"A class must have a name. Received: an empty one in {origin}. Name it."
            )
        if plain in seen:
            raise InputError(
                "Class names must differ in more than capitals and blanks. Received: "
                f"'{seen[plain]}' and '{name}' in {origin}. Merge them, or rename one."
            )
        seen[plain] = name


def divide(
    labels: np.ndarray, given: np.ndarray, class_names: Sequence[str], origin: str
) -> Division:
    """Makes the validation and the test part where they are missing, stratified, with seed 0.

    A fifth of each class tests and a fifth of the rest validates, at least one image of each; what
    is given stays as it is.

    Args:
        labels: (n,) int64.
        given: (n,) int8, the part of each image; missing parts are taken from TRAIN.

    Raises:
        InputError: A part lacks classes, or a class has too few images.
    """
    has = {part: bool((given == part).any()) for part in (VALIDATION, TEST)}
    _check_parts(labels, given, class_names, origin)
    needed = 1 + sum(not there for there in has.values())
    counts = np.bincount(labels[given == TRAIN], minlength=len(class_names))
    found = zip(class_names, counts, strict=True)
    few = [f"{name} ({count})" for name, count in found if count < needed]
    if few:
        raise InputError(
            f"A class must have at least {needed} training images, so that each part gets one. "
            f"Received: {some(few)} in {origin}. Add images, or leave the class out."
        )
    parts, generator = given.copy(), np.random.default_rng(SEED)
    for part, share in ((TEST, TEST_SHARE), (VALIDATION, VALIDATION_SHARE)):
        if not has[part]:
            left = np.flatnonzero(parts == TRAIN)
            parts[left[_held_out(labels[left], share, generator)]] = part
    return Division(parts, _phrase(has))


def some(names: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(names) - NUM_NAMED:,} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more


def _held_out(labels: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Indices of `share` of each class. scikit-learn's split may leave a small class out."""
    chosen = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        count = max(1, int(share * len(own) + 0.5))
        chosen.append(generator.permutation(own)[:count])
    return np.concatenate(chosen)


def _check_parts(
    labels: np.ndarray, given: np.ndarray, class_names: Sequence[str], origin: str
) -> None:
    trained = set(np.unique(labels[given == TRAIN]))
    for part, name in ((VALIDATION, "validation"), (TEST, "test")):
        found = set(np.unique(labels[given == part]))
        unknown = [class_names[k] for k in sorted(found - trained)]
        if unknown:
            raise InputError(
                f"Every class must have training images. Received: {some(unknown)} in the {name} "
                f"part of {origin} only. Add training images, or leave the class out."
            )
        if len(found) == 1:
            raise InputError(
                f"The {name} part must hold at least two classes. Received: only "
                f"{class_names[found.pop()]} in {origin}. Leave the part out and it is made."
            )


def _phrase(has: dict[int, bool]) -> str:
    validation, test = f"{VALIDATION_SHARE:.0%}", f"{TEST_SHARE:.0%}"
    if all(has.values()):
        return "as given"
    if has[TEST]:
        return f"a stratified {validation} of the training images validates (seed {SEED})"
    if has[VALIDATION]:
        return f"a stratified {test} of the training images tests (seed {SEED})"
    return f"a stratified {test} tests and {validation} of the rest validates (seed {SEED})"


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _comparable(values: np.ndarray, origin: str) -> np.ndarray:
    rule = "Labels must be whole numbers or names, one per image."
    if values.ndim == 2 and values.shape[1] > 1:
        values = _from_one_hot(values, rule, origin)
    values = values.reshape(-1)
    if values.dtype.kind in "US":
        text = [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            for value in values.tolist()
        ]
        return np.array([value.strip() for value in text])
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise InputError(f"{rule} Received: NaN or infinity in {origin}. Label those images.")
        if (values != np.round(values)).any():
            raise InputError(
                f"{rule} Received: fractions such as {values[values != np.round(values)][0]:g} in "
                f"{origin}. This is for classes, not for quantities."
            )
        return values.astype(np.int64)
    if values.dtype.kind not in "iub":
        raise InputError(f"{rule} Received: {values.dtype} in {origin}. Convert them.")
    return values


def _from_one_hot(values: np.ndarray, rule: str, origin: str) -> np.ndarray:
    if values.dtype.kind in "iubf" and values.ndim == 2:
        ones = (values == 1).sum(axis=1)
        if (ones == 1).all() and ((values == 0).sum(axis=1) == values.shape[1] - 1).all():
            empty = [str(k) for k in np.flatnonzero(~(values == 1).any(axis=0))]
            if empty:
                raise InputError(
                    "Every column of one-hot labels must be the class of an image. Received: "
                    f"{values.shape[1]} columns in {origin}, of which no image has "
                    f"{some(empty)}. Leave such columns out."
                )
            return np.asarray(values.argmax(axis=1))
    raise InputError(
        f"{rule} Received: an array of shape {values.shape} in {origin} that is not one-hot."
    )
