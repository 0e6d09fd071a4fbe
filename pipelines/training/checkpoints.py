"""What a trial leaves in its folder: the names of its files, and its checkpoint.

A trial that continues from a checkpoint equals a trial that was never interrupted. A `.keras` file
is not enough for that: the seed generators of dropout and augmentation layers do not come back from
it. So every array of the model and of its optimizer is stored, and assigned to a model built anew;
data order follows from the seed and the epoch's number and needs no state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.arrays import DAMAGE
from pipelines.runtime.filesystem import replaced_atomically
from pipelines.training.reports import TrialReport

if TYPE_CHECKING:
    import keras

MODEL_FILE = "model.keras"
CHECKPOINT_FILE = "checkpoint.npz"
RESULT_FILE = "result.json"
TEST_FILE = "test.json"
PREDICTIONS_FILE = "predictions.npz"
ANSWERS_FILE = "answers.npz"
"""The most probable class of each validation image."""
HISTORY_FILE = "curves.csv"
SUMMARY_FILE = "model_summary.txt"
CURVES_PICTURE = "curves.png"
CONFUSION_TABLE = "confusion_validation.csv"
CONFUSION_PICTURE = "confusion_validation.png"
MISTAKES_PICTURE = "mistakes_validation.png"
FIGURE_FILES = (
    SUMMARY_FILE,
    HISTORY_FILE,
    CURVES_PICTURE,
    CONFUSION_TABLE,
    CONFUSION_PICTURE,
    MISTAKES_PICTURE,
)
"""What goes to MLflow as artifacts of every trial."""
FORMAT = 1
"""Of a checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """A trial after a step with a report.

    Attributes:
        identity: what the arrays belong to; a checkpoint of another identity is not used.
        history: the reports so far.
        best_step: the step whose weights are `best_weights` and whose class probabilities on
            the validation images are `best_probabilities` (n, classes).
        seconds: training time so far.
    """

    identity: str
    history: tuple[TrialReport, ...]
    best_step: int
    seconds: float
    model: Sequence[np.ndarray]
    optimizer: Sequence[np.ndarray]
    best_weights: Sequence[np.ndarray]
    best_probabilities: np.ndarray


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the file so that a loss of power leaves the old one or the new one, nothing between.

    Raises:
        OSError: There is no room; the old file stays.
    """
    head = {
        "format": FORMAT,
        "identity": checkpoint.identity,
        "history": [asdict(report) for report in checkpoint.history],
        "best_step": checkpoint.best_step,
        "seconds": checkpoint.seconds,
    }
    arrays: dict[str, np.ndarray] = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
    for part in ("model", "optimizer", "best_weights"):
        for index, array in enumerate(getattr(checkpoint, part)):
            arrays[f"{part}/{index}"] = array
    arrays["best_probabilities"] = checkpoint.best_probabilities
    with replaced_atomically(path) as file:
        np.savez(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]


def load_checkpoint(path: Path, identity: str) -> Checkpoint | None:
    """The checkpoint, or None where there is none that can be used: damaged, or of another trial.

    Starting over costs time and loses nothing, because training follows from the seed.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            head: dict[str, Any] = json.loads(file["head"].tobytes())
            if head["format"] != FORMAT or head["identity"] != identity:
                return None
            return Checkpoint(
                identity=identity,
                history=tuple(_report(stored) for stored in head["history"]),
                # Before there were steps, reports came with every epoch.
                best_step=head["best_step"] if "best_step" in head else head["best_epoch"],
                seconds=head["seconds"],
                model=_numbered(file, "model"),
                optimizer=_numbered(file, "optimizer"),
                best_weights=_numbered(file, "best_weights"),
                best_probabilities=file["best_probabilities"],
            )
    except DAMAGE:
        return None


def _report(stored: Mapping[str, Any]) -> TrialReport:
    step = stored["step"] if "step" in stored else stored["epoch"]
    return TrialReport(stored["number"], step, stored["metrics"])


def model_arrays(model: keras.Model, optimizer: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Copies of every variable of a model, and of the optimizer that it was compiled with.

    Those of the model include the states of batch normalisation and of the seed generators.

    Args:
        optimizer: the one to copy; None for none: what a HyperModel's own `fit` makes in every
            epoch is nothing that goes on.
    """
    return _copies(model.variables), [] if optimizer is None else _copies(optimizer.variables)


def assign_arrays(
    model: keras.Model, arrays: Sequence[np.ndarray], optimizer: Sequence[np.ndarray]
) -> None:
    """Puts copied variables back into a model that was built in the same way.

    Raises:
        ValueError: They do not fit.
    """
    pairs = [(model.variables, arrays)]
    if optimizer:
        model.optimizer.build(model.trainable_variables)
        pairs.append((model.optimizer.variables, optimizer))
    for variables, values in pairs:
        if len(variables) != len(values):
            raise ValueError(f"{len(values)} arrays do not fit {len(variables)} variables.")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _copies(variables: Sequence[Any]) -> list[np.ndarray]:
    import keras

    # Copied, because the backend may hand out the memory that the next step writes to.
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _numbered(file: Any, part: str) -> list[np.ndarray]:
    count = sum(1 for name in file.files if name.startswith(f"{part}/"))
    return [file[f"{part}/{index}"] for index in range(count)]
