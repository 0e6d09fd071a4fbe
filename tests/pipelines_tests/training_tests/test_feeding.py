"""Training from the disk equals training from memory; rare classes weigh more when asked."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from changed_tasks import changed
from made_arrays import make_arrays

from pipelines.data.array_files import npy_arrays
from pipelines.data.arrays import ImageArrays
from pipelines.data.builtin import Dataset
from pipelines.data.custom.function_source import write_arrays
from pipelines.data.prepared import PreparedData, store
from pipelines.evaluation import metrics
from pipelines.evaluation.metrics import predict
from pipelines.objectives import OBJECTIVES
from pipelines.training.feeding import JoinedRows, class_weight, epoch_input
from pipelines.training.trial import Decision, Schedule, TrialTask, run_trial
from search_spaces import cnn_blocks, mlp_layers

TIMES = ("epoch_seconds", "images_per_second", "compile_seconds")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> PreparedData:
    """Of 126 pictures in three classes 85 are of the first."""
    made = make_arrays(360)
    kept = (made.y_train == 0) | (np.arange(360) % 6 == 1)
    kept &= np.arange(360) < 250
    arrays = ImageArrays(made.x_train[kept], np.minimum(made.y_train[kept], 1), made.x_test,
                         np.minimum(made.y_test, 1))  # fmt: skip
    dataset = Dataset("uneven", ("left", "other"), None)
    return store(tmp_path_factory.mktemp("data"), dataset, arrays, "7" * 64, "made")


@pytest.fixture
def task(uneven, tmp_path) -> TrialTask:
    params = mlp_layers.SPACE.complete(
        {"num_layers": 1, "units_0": 64, "batch_size": 32, "dropout_0": 0.2}
    )
    return TrialTask(
        0, "mlp_layers", params, uneven, Schedule(2), 11, OBJECTIVES["val_auc"], str(tmp_path)
    )


def reports(task: TrialTask, folder: Path) -> list[dict[str, float]]:
    folder.mkdir()
    keras.utils.set_random_seed(task.seed)
    found = []

    def on_report(report):
        found.append({k: v for k, v in report.metrics.items() if k not in TIMES})
        return Decision.GO_ON

    run_trial(replace(task, folder=str(folder)), on_report)
    return found


@pytest.mark.parametrize(
    "options",
    [{"class_weights": "balanced"}, {"train_on": "train+validation"}],
    ids=["weighted", "all"],
)
def test_reading_from_disk_gives_the_numbers_of_memory_bit_for_bit(task, tmp_path, options):
    asked = changed(task, **options)
    from_memory = reports(asked, tmp_path / "memory")
    from_disk = reports(replace(asked, stream_above=0), tmp_path / "disk")
    assert from_memory == from_disk
    assert len(from_disk) == 2 and from_disk[0] != from_disk[1]


def test_balanced_weights_change_the_training_and_its_identity(task, tmp_path):
    weighted = changed(task, class_weights="balanced", num_epochs=1)
    plain = changed(weighted, class_weights="none")
    assert reports(plain, tmp_path / "a") != reports(weighted, tmp_path / "b")
    assert plain.identity != weighted.identity
    assert plain.identity == replace(plain, stream_above=0).identity, "the same numbers"


def test_weights_balance_the_classes():
    y = np.array([0] * 6 + [1] * 2 + [3] * 1)
    weights = class_weight(y, "balanced")
    assert weights == {0: 0.5, 1: 1.5, 3: 3.0}
    assert {weights[k] * n for k, n in ((0, 6), (1, 2), (3, 1))} == {3.0}
    assert class_weight(y, "none") is None


def test_batches_from_disk_are_those_of_the_order():
    x, y = np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1), np.arange(50)
    order = np.random.default_rng(0).permutation(50)
    batches = epoch_input(x, y, order, 16, stream_above=0)["x"]
    assert [len(batches[k][0]) for k in range(len(batches))] == [16, 16, 16, 2]
    pixels = np.concatenate([batches[k][0] for k in range(len(batches))])
    np.testing.assert_array_equal(pixels.reshape(-1), order)
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), order)


def test_joined_arrays_are_one():
    parts = [np.arange(12).reshape(4, 3), np.arange(100, 106).reshape(2, 3), np.zeros((1, 3))]
    joined, whole = JoinedRows(parts), np.concatenate(parts)
    assert len(joined) == 7 and joined.nbytes == sum(part.nbytes for part in parts)
    rows = np.array([6, 0, 5, 3, 4, 0])
    np.testing.assert_array_equal(joined[rows], whole[rows])


def test_predictions_in_pieces_are_the_same(tiny_data, monkeypatch):
    keras.utils.set_random_seed(0)
    params = cnn_blocks.SPACE.complete({"num_blocks": 1, "filters_0": 8})
    model = cnn_blocks.SPACE.build(params, tiny_data.input_shape, 3, num_steps=1)
    x, _ = tiny_data.arrays("train")
    whole = predict(model, x, 16)
    monkeypatch.setattr(metrics, "PREDICT_BYTES", 3 * 16 * 64)
    np.testing.assert_array_equal(predict(model, x, 16), whole)


def test_a_tensorflow_dataset_is_written_as_arrays(tmp_path):
    import tensorflow as tf

    made = make_arrays()
    for k, dataset in enumerate(
        (
            tf.data.Dataset.from_tensor_slices((made.x_train, made.y_train)),
            tf.data.Dataset.from_tensor_slices((made.x_train, made.y_train)).batch(50),
        )
    ):
        folder = tmp_path / str(k)
        folder.mkdir()
        assert write_arrays(dataset, folder) == ["x", "y"]
        found = npy_arrays({name: folder / f"{name}.npy" for name in "xy"})
        np.testing.assert_array_equal(found["x"].whole(), made.x_train)
        np.testing.assert_array_equal(found["y"].whole(), made.y_train)


# Less memory than data

MAKE_AND_PREPARE = """
import resource, sys, zipfile
from pathlib import Path
import numpy as np
from pipelines.data.array_files import NpyWriter
from pipelines.data.custom.prepare import prepare_custom
from pipelines.data.custom.sources import custom_source

num_images, limit = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
labels = np.arange(num_images) % 4
generator = np.random.default_rng(0)
with NpyWriter(Path("x.npy"), (64, 64, 3), np.dtype(np.uint8)) as writer:
    for first in range(0, num_images, 500):
        pixels = generator.integers(0, 60, (500, 64, 64, 3), dtype=np.uint8)
        for k in range(4):
            pixels[labels[first : first + 500] == k, :, 16 * k : 16 * (k + 1)] += 150
        writer.append(pixels)
np.save("y.npy", labels)
with zipfile.ZipFile("set.npz", "w") as archive:
    for name in ("x.npy", "y.npy"):
        archive.write(name)
        Path(name).unlink()
data = prepare_custom(custom_source("set.npz"), Path("data"))
print(sum(Path(data.folder, f"x_{part}.npy").stat().st_size for part in data.num_images))
"""
TRAIN = """
import keras
from pipelines.objectives import OBJECTIVES
from pipelines.training.trial import Decision, TrialTask, run_trial
from pipelines.runtime.process import configure
from search_spaces import mlp_layers

configure(1, None, 0)
params = mlp_layers.SPACE.complete({"num_layers": 1, "units_0": 64, "batch_size": 256})
task = TrialTask(0, "mlp_layers", params, data, Schedule(1), 0, OBJECTIVES["val_accuracy"], ".",
                 **({"stream_above": int(sys.argv[3])} if len(sys.argv) > 3 else {}))
print(run_trial(task, lambda report: Decision.GO_ON).value)
"""
MEBIBYTE = 2**20


def limited(folder: Path, code: str, *arguments: int) -> subprocess.CompletedProcess[str]:
    """Runs it with a limit of its own on the memory that cannot be taken back (`RLIMIT_DATA`)."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


linux = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mappings on Linux")


@linux
def test_a_set_larger_than_the_memory_is_prepared(tmp_path):
    assert resource.RLIMIT_DATA
    limit = 220 * MEBIBYTE
    done = limited(tmp_path, MAKE_AND_PREPARE, 22_000, limit)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1.15 * limit


@linux
@pytest.mark.slow
def test_a_set_larger_than_the_memory_is_prepared_and_trained(tmp_path):
    limit = 1_000 * MEBIBYTE
    done = limited(tmp_path, MAKE_AND_PREPARE + TRAIN, 120_000, limit, MEBIBYTE)
    assert done.returncode == 0, done.stderr[-2000:]
    size, accuracy = done.stdout.split()
    assert int(size) > 1.4 * limit
    assert float(accuracy) > 0.9
