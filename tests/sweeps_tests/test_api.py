"""What programs call, as far as nothing is trained; `test_python_api.py` trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_sweeps as ks
from sweeps.options import named_as_in_python
from sweeps.setup.given_arrays import stored_dataset

ROOT = Path(__file__).parents[2]
ARRAYS = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1])


def test_every_public_name_is_there_and_listed():
    assert ks.__all__ == sorted(ks.__all__) == dir(ks)
    for name in ks.__all__:
        assert getattr(ks, name) == getattr(ks, name)
    with pytest.raises(AttributeError, match="has no attribute 'runs'"):
        ks.runs  # noqa: B018 (asking is the test)


def test_names_bring_no_heavy_library():
    """Not before a sweep is run, or a study or model opened."""
    code = (
        "import sys\n"
        "import keras_sweeps as ks\n"
        "first = {'numpy', 'optuna', 'mlflow', 'keras', 'pandas'} & set(sys.modules)\n"
        "[getattr(ks, name) for name in ks.__all__]\n"
        "heavy = {'optuna', 'mlflow', 'keras', 'tensorflow', 'pandas', 'matplotlib', 'scipy'}\n"
        "print(sorted(first), sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout == "[] []\n", done.stderr


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: ks.run("cnm"), r"Unknown space 'cnm'\. Did you mean 'cnn'\?"),
        (lambda: ks.run("cnn", trails=3), r"Unknown option 'trails'\. Did you mean 'trials'\?"),
        (lambda: ks.run("cnn", trials=0), r"'trials' must be a whole number of at least 1"),
        (lambda: ks.run("cnn", sampler="tbe"), r"Did you mean 'tpe'\?"),
        (lambda: ks.run(None), r"space is required"),
        (lambda: ks.run(int), r"space must be a name, .* Received: <class 'int'>\."),
        (lambda: ks.run("cnn", "nowhere.npz"), r"nowhere\.npz, which does not exist"),
        (lambda: ks.run("cnn", 3), r"dataset must be a name, a path, .* Received: a int\."),
        (lambda: ks.run("cnn", "digits", on_trial_end=3), r"on_trial_end must be a function"),
        (lambda: ks.run("cnn", resume=True), r"There is no unfinished sweep in"),
        (lambda: ks.load_sweep("s"), r"There is no sweep 's' in"),
        (ks.load_sweep, r"There is no sweep in"),
        (lambda: ks.load_dataset("mnits"), r"Unknown data set 'mnits'\. Did you mean 'mnist'\?"),
        (lambda: ks.load_model("m.keras", tracking_uri="sqlite:///m.db"), r"^tracking_uri goes"),
        (lambda: ks.load_model("m@champion"), r"mlflow\.db"),
        (lambda: ks.promote("s", alpha=0.05, margin=0.1), r"^alpha and margin exclude"),
        (lambda: ks.promote("s", alpha=2), r"'alpha' must be a number above 0 and at most 0\.5"),
        (lambda: ks.promote("s", force=" "), r"^force must say why"),
        (lambda: ks.promote("s", force="x", dry_run=True), r"^force and dry_run exclude"),
        (lambda: ks.replay("abc"), r"mlflow\.db"),
        (lambda: ks.run("mlp", ARRAYS, on_trial_end=3), r"on_trial_end must be a function"),
        (lambda: ks.run("mlp", ARRAYS, name="a/b"), r"^name must be"),
        (lambda: ks.run("mlp", ARRAYS, set={"nope": [1]}), r"nope"),
        (lambda: ks.run("mlp", ARRAYS, storage="nope"), r"^storage"),
        (lambda: ks.run(None, ARRAYS), r"space is required"),
        (lambda: ks.run(None, ARRAYS, resume=True), r"There is no "),
        (lambda: ks.load_sweep(3), r"name must be a text\. Received: 3\."),
        (lambda: ks.promote(3), r"name must be a text\. Received: 3\."),
        (lambda: ks.get_space(len), r"got by its name\. Received: <built-in function len>"),
        (lambda: ks.as_hypermodel("cmn", (8, 8, 1), 3), r"Unknown space 'cmn'"),
    ],
)
def test_what_is_wrong_is_an_input_error_and_nothing_is_written(call, problem, tmp_path, capfd):
    with pytest.raises(ks.InputError, match=problem):
        call()
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


def test_arrays_are_stored_once_by_their_content(tmp_path):
    x, y = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1])
    path = stored_dataset((x, y), tmp_path)
    assert Path(path).is_absolute() and Path(path).parent == tmp_path / "arrays"
    with np.load(path) as found:
        assert sorted(found) == ["x", "y"] and found["y"].tolist() == [0, 1, 0, 1]
    assert stored_dataset({"y": y, "x": x}, tmp_path) == path
    assert stored_dataset({"x": x[:, ::-1], "y": y}, tmp_path) == path, "the same zeros"
    others = [
        {"x": x, "y": y[::-1]},
        {"x": x.astype(np.int16), "y": y},
        {"x_train": x, "y_train": y},
    ]
    assert len({path, *(stored_dataset(other, tmp_path) for other in others)}) == 4
    assert len(list((tmp_path / "arrays").iterdir())) == 4


def test_names_and_paths_stay_as_they_are(tmp_path):
    assert stored_dataset("mnist", tmp_path) == "mnist" and stored_dataset(None, tmp_path) is None
    assert stored_dataset(Path("photos"), tmp_path) == "photos"
    for wrong, problem in (
        ((np.zeros((5, 8, 8)), np.arange(3)), "5 images \\(x\\) and 3 labels"),
        ((np.zeros((5, 3)), np.arange(5)), r"Received: \(5, 3\) in the arrays\."),
        ((np.full((4, 8, 8), np.nan), [0, 1, 0, 1]), r"NaN or infinity in x\."),
    ):
        with pytest.raises(ks.InputError, match=problem):
            stored_dataset(wrong, tmp_path)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    ragged = np.array([np.zeros(3), np.zeros(4)], dtype=object)
    with pytest.raises(ks.InputError, match=r"must hold numbers or texts\. Received: x, which"):
        stored_dataset((ragged, [0, 1]), tmp_path)


def test_commands_in_a_message_of_a_function_stay_commands():
    @named_as_in_python
    def failing() -> None:
        raise ks.InputError(
            "--min-epochs must fit. Run `keras-sweeps run --min-epochs 1`, or keras-sweeps explore "
            "--dataset SOURCE. Leave --epochs out."
        )

    with pytest.raises(ks.InputError) as caught:
        failing()
    assert str(caught.value) == (
        "min_epochs must fit. Run `keras-sweeps run --min-epochs 1`, or keras-sweeps explore "
        "--dataset SOURCE. Leave epochs out."
    )
