"""Sweeps over a user's own data: begun, found again when the source moved, refused when changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import chaos
import pytest
from image_folders import make_folder, picture
from mlflow import MlflowClient

from search_spaces.errors import InputError
from sweeps.cli.main import main
from sweeps.settings import SweepSettings
from sweeps.setup.data import reopen_data, sweep_data
from sweeps.setup.resolved import option_values
from sweeps.state.sweep_file import SweepFile
from tracking.tags import class_name_tags, class_names_of

ROOT = Path(__file__).parents[2]


def quick(*options: str) -> subprocess.CompletedProcess[str]:
    """The real command with made-up trials: no TensorFlow to wait for."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "drivers" / "chaos_driver.py"), *options],
        env=chaos.environment(), capture_output=True, text=True, timeout=200,
    )  # fmt: skip


@pytest.fixture
def begun(tmp_path) -> tuple[SweepSettings, SweepFile]:
    """A sweep that began over a folder `photos`."""
    make_folder(tmp_path / "photos", 5)
    settings = SweepSettings("mlp", str(tmp_path / "photos"), color="grey")
    data = sweep_data(settings)
    file = SweepFile("u", "running", settings, data.name, data.fingerprint, "s")
    return settings, file


@pytest.mark.long
def test_a_sweep_begins_and_goes_on_after_its_source_moved(tmp_path):
    make_folder(tmp_path / "photos", 5)
    options = ("--space", "mlp", "--epochs", "2", "--name", "s", "--work-dir", "w")
    done = quick(
        "run", *options, "--dataset", "photos", "--trials", "2", "--class-weights", "balanced"
    )
    assert done.returncode == 0, done.stderr
    assert "photos" in done.stdout and "9 train, 3 validation, 3 test" in done.stdout
    (tmp_path / "photos").rename(tmp_path / "moved")
    refused = quick("run", "--resume", "--name", "s", "--work-dir", "w", "--color", "grey")
    assert refused.returncode == 2 and "--color was auto, is grey" in refused.stderr
    more = quick("run", "--resume", *options[4:], "--trials", "3")
    assert more.returncode == 0, more.stderr
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "mlp-photos"]
    runs = client.search_runs([experiment.experiment_id], "tags.`sweeps.kind` = 'trial'")
    assert len(runs) == 3
    stored = json.loads((tmp_path / "w" / "sweeps" / "s" / "sweep.json").read_text())
    assert stored["data_name"] == "photos"
    assert stored["settings"]["dataset"] == str(tmp_path / "photos")
    assert {r.data.tags["sweeps.data_fingerprint"] for r in runs} == {stored["data_fingerprint"]}
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`sweeps.kind` = 'sweep'")
    assert parent.data.params["class_weights"] == "balanced"
    assert parent.data.params["dataset"] == "photos"


def test_data_are_found_by_name_and_content_wherever_the_source_is(begun, tmp_path):
    settings, file = begun
    shutil.rmtree(tmp_path / "photos")
    assert sweep_data(settings, file).fingerprint == file.data_fingerprint
    root = Path(".sweeps/data")
    alone = reopen_data(file.data_name, file.data_fingerprint, root)
    assert alone.fingerprint == file.data_fingerprint, "promote and replay know the tags only"


def test_a_source_that_changed_is_refused_and_one_that_was_touched_is_not(begun, tmp_path):
    settings, file = begun
    os.utime(tmp_path / "photos" / "red" / "0.png", (1, 1))
    assert sweep_data(settings, file).fingerprint == file.data_fingerprint
    picture("red", 77).save(tmp_path / "photos" / "red" / "0.png")
    with pytest.raises(InputError, match=r"has changed since it began .*, now .* Put the old"):
        sweep_data(settings, file)
    # What compares finished trials goes on with what they were trained on.
    found = reopen_data("photos", file.data_fingerprint, Path(".sweeps/data"), settings)
    assert found.fingerprint == file.data_fingerprint


@pytest.mark.long
def test_a_sweep_goes_on_over_data_in_another_place_when_they_are_the_same(tmp_path):
    make_folder(tmp_path / "photos", 5)
    options = ("--space", "mlp", "--epochs", "1", "--name", "s")
    done = quick("run", *options, "--dataset", "photos", "--trials", "1")
    assert done.returncode == 0, done.stderr
    again = ("run", "--resume", "--name", "s", "--trials", "2", "--dataset")
    gone = quick(*again, "nowhere/photos")
    assert gone.returncode == 2 and "which does not exist" in gone.stderr
    other = make_folder(tmp_path / "other", 6)
    refused = quick(*again, str(other))
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert f"{other} has changed since it began" in refused.stderr
    known = quick(*again, "digits")
    assert known.returncode == 2 and "--dataset was" in known.stderr
    (tmp_path / "photos").rename(tmp_path / "holiday")
    shutil.rmtree(".sweeps/data")
    done = quick(*again, "holiday")
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / ".sweeps" / "sweeps" / "s" / "sweep.json").read_text())
    assert stored["settings"]["dataset"] == str(tmp_path / "holiday")
    assert stored["data_name"] == "photos", "experiment and model keep their name"
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name.startswith("mlp-")]
    assert len(client.search_runs([experiment.experiment_id], "tags.`sweeps.kind` = 'trial'")) == 2


def test_damaged_prepared_data_are_made_again_or_told(begun, tmp_path):
    settings, file = begun
    data = sweep_data(settings, file)
    pixels = Path(data.folder) / "x_train.npy"
    pixels.write_bytes(pixels.read_bytes()[:-9])
    assert sweep_data(settings, file) == data
    pixels.write_bytes(pixels.read_bytes()[:-9])
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="no complete copy in .*photos is gone"):
        sweep_data(settings, file)


def test_prepared_data_that_are_gone_are_made_again_or_asked_for(begun, tmp_path):
    settings, file = begun
    shutil.rmtree(".sweeps/data")
    assert sweep_data(settings, file).fingerprint == file.data_fingerprint
    shutil.rmtree(".sweeps/data")
    with pytest.raises(InputError, match="its source is not known here.*explore --dataset SOURCE"):
        reopen_data(file.data_name, file.data_fingerprint, Path(".sweeps/data"))
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="photos is gone"):
        sweep_data(settings, file)
    # As the message says: prepared from where it is now, under the name that it had.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "moved").rename(tmp_path / "elsewhere" / "photos")
    assert main(["explore", "--dataset", "elsewhere/photos", "--color", "grey"]) == 0
    assert sweep_data(settings, file).fingerprint == file.data_fingerprint


def test_explore_shows_own_data(begun, tmp_path, capsys):
    (tmp_path / "photos" / "red" / "0.png").write_bytes(b"")
    assert main(["explore", "--dataset", "photos"]) == 2
    assert "1 broken in" in capsys.readouterr().err
    assert main(["explore", "--dataset", "photos", "--broken", "skip"]) == 0
    out = capsys.readouterr().out
    for words in ("photos (", "note: 1 broken image skipped: red/0.png", "blue", "12x12x3"):
        assert words in out
    assert (tmp_path / ".sweeps" / "pictures" / "photos-samples.png").exists()


def test_the_file_of_a_sweep_names_the_source(begun):
    settings, file = begun
    values = option_values(settings, sweep_data(settings, file))
    assert values["dataset"] == settings.dataset and values["color"] == "grey"
    assert values["experiment"] == "mlp-photos"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "nothing.npz"], "does not exist"),
        (["--dataset", "photos", "--resize", "squeeze"], "invalid choice: 'squeeze'"),
        (["--dataset", "photos", "--image-size", "64by64"], "height x width in pixels"),
        (["--dataset", "photos", "--image-size", "2x2"], "4 to 1024"),
        (["--dataset", "digits", "--color", "rgb"], "for your own data"),
        (["--dataset", "digits", "--class-weights", "some"], "invalid choice"),
        (["--dataset", "photos", "--objective", "val_f1"], "Did you mean 'val_macro_f1'?"),
        (["--dataset", "photos", "--target", "val_auc>=0.9"], "--target must be the objective"),
    ],
)
def test_wrong_options_are_one_line_before_anything(tmp_path, capsys, options, words):
    make_folder(tmp_path / "photos", 3)
    assert main(["run", "--space", "mlp", *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_what_data_lack_is_told_before_anything_starts(tmp_path, capsys):
    make_folder(tmp_path / "photos", 2)
    options = ["run", "--space", "mlp", "--dataset", "photos"]
    assert main(options) == 2
    assert "at least 3 training images" in capsys.readouterr().err
    make_folder(tmp_path / "photos", 4)
    assert main([*options, "--objective", "val_top5_accuracy"]) == 2
    assert "at least 6 classes. Received: photos with 3" in capsys.readouterr().err
    assert not (tmp_path / "optuna.db").exists() and not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / ".sweeps" / "sweeps").exists()


def test_settings_of_an_earlier_version_have_no_image_options(begun):
    settings, _ = begun
    assert replace(settings, color="auto").image_options.given() == []
    assert settings.image_options.given() == ["--color grey"]


def test_a_thousand_names_come_back_from_their_tags():
    names = [f"a class with a long name, number {k}" for k in range(1000)]
    tags = class_name_tags(names)
    assert len(tags) > 1 and all(len(value) <= 4_000 for value in tags.values())
    assert class_names_of(tags) == tuple(names)
    assert class_name_tags(["a", "b"]) == {"sweeps.class_names": '["a", "b"]'}
    assert class_names_of({"sweeps.class_names": "[edited"}) == class_names_of({}) == ()


@pytest.mark.slow
def test_from_a_folder_to_a_champion_and_back(tmp_path):
    """The real commands: sweep, finalists, promotion, prediction, replay; the source moves."""

    def run(command: str, *options: str) -> str:
        folder = "pipelines" if command == "predict" else "sweeps"
        done = subprocess.run(
            [sys.executable, str(ROOT / folder / f"{command}.py"), *options],
            env=chaos.environment(), capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    make_folder(tmp_path / "photos", 40, size=(20, 14), suffixes=("png", "jpg"))
    run("run", "--space", "mlp", "--dataset", "photos", "--image-size", "12x12", "--resize", "crop",
        "--trials", "3", "--epochs", "3", "--name", "s", "--objective", "val_auc",
        "--class-weights", "balanced", "--target", "val_auc>=0.9999")  # fmt: skip
    (tmp_path / "photos").rename(tmp_path / "moved")
    run("finalize", "s", "--finalists", "1", "--finalist-seeds", "2")
    assert "mlp-photos version 1" in run("promote", "s")
    said = json.loads(run("predict", "moved/red/3.jpg", "--model", "mlp-photos", "--json"))
    assert said["model"]["classes"] == ["blue", "green", "red"]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    for kind in ("trial", "finalist"):
        found = client.search_runs(experiments, f"tags.`sweeps.kind` = '{kind}'")[0]
        assert {"epoch/val_auc", "epoch/val_macro_f1", "best/val_auc"} <= set(found.data.metrics)
        assert "identical" in run("replay", found.info.run_id)
