"""`predict` as a person types it: models of a real store, picture files, what is printed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from logged_models import DIGITS, Logged, digits_like, log_model, new_version, random_model
from mlflow import MlflowClient
from PIL import Image

from sweeps.cli.main import main

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def logged(folder) -> Logged:
    """On dark data; version 1 and champion of `dark`."""
    found = log_model(folder, 0, digits_like(folder / "data"), random_model(0))
    found.register("dark")
    return found


@pytest.fixture(scope="module")
def light(folder, logged) -> Logged:
    found = log_model(folder, 1, digits_like(folder / "data", light=True), random_model(1))
    found.register("light", "newest")
    return found


@pytest.fixture
def drawing() -> Path:
    """A white stroke on black, of the model's own size."""
    Image.fromarray(strokes()).save("stroke.png")
    return Path("stroke.png")


def strokes() -> np.ndarray:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 12:15] = 255
    pixels[4:7, 12:22] = 180
    return pixels


def predicted(logged: Logged, pixels: np.ndarray) -> np.ndarray:
    return logged.model.predict(pixels.reshape(-1, 28, 28, 1), verbose=0)[0]


def document(capsys, *options: str) -> dict:
    assert main(["predict", *options, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def refusal(capsys, *options: str, command: str = "predict") -> str:
    before = sorted(Path.cwd().rglob("*"))
    assert main([command, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert sorted(Path.cwd().rglob("*")) == before
    return captured.err


def test_json_holds_everything_and_the_probabilities_are_those_of_keras(capsys, logged, drawing):
    Image.fromarray(255 - strokes()).save("negative.png")
    found = document(
        capsys,
        "stroke.png",
        "negative.png",
        "--model",
        "dark@champion",
        "--tracking-uri",
        logged.uri,
    )
    assert found["model"] == {
        "label": "dark version 1", "name": "dark", "version": 1, "run": logged.run_id, "file": None,
        "data": "digits-like", "background": "dark", "input_shape": [28, 28, 1],
        "classes": list(DIGITS),
    }  # fmt: skip
    expected = predicted(logged, strokes())
    for prediction, name in zip(found["predictions"], ("stroke.png", "negative.png"), strict=True):
        assert prediction["file"] == name
        assert list(prediction["probabilities"]) == list(DIGITS)
        values = list(prediction["probabilities"].values())
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-8)
        assert prediction["class"] == str(expected.argmax())
        assert prediction["probability"] == max(values)
    assert [p["inverted"] for p in found["predictions"]] == [False, True]


@pytest.mark.parametrize("reference", ["dark", "dark@champion", "dark/1"])
def test_a_registered_model_by_name_alias_or_version(capsys, logged, drawing, reference):
    found = document(capsys, "stroke.png", "--model", reference, "--tracking-uri", logged.uri)
    assert found["model"]["label"] == "dark version 1"


def test_a_run_and_the_stores_address_from_the_environment(capsys, logged, drawing, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", logged.uri)
    found = document(capsys, "stroke.png", "--run", logged.run_id)
    assert found["model"]["name"] is None and found["model"]["run"] == logged.run_id
    np.testing.assert_allclose(
        list(found["predictions"][0]["probabilities"].values()),
        predicted(logged, strokes()),
        rtol=1e-5,
        atol=1e-8,
    )


def test_each_model_has_the_polarity_of_its_data(capsys, light, drawing):
    options = ["stroke.png", "--model", "light@newest", "--tracking-uri", light.uri]
    assert document(capsys, *options)["predictions"][0]["inverted"]
    for polarity, inverted in (("as-is", False), ("invert", True)):
        found = document(capsys, *options, "--polarity", polarity)["predictions"][0]
        assert found["inverted"] is inverted
        pixels = 255 - strokes() if inverted else strokes()
        np.testing.assert_allclose(
            list(found["probabilities"].values()), predicted(light, pixels), rtol=1e-5, atol=1e-8
        )


def test_a_file_with_class_names(capsys, logged, drawing):
    shutil.copy(logged.file, "m.keras")
    names = [f"class {letter}" for letter in "abcdefghij"]
    found = document(capsys, "stroke.png", "--file", "m.keras", "--class-names", ",".join(names))
    assert found["model"]["classes"] == names and found["model"]["background"] is None
    assert found["predictions"][0]["class"] == names[predicted(logged, strokes()).argmax()]
    assert not found["predictions"][0]["inverted"]
    plain = document(capsys, "stroke.png", "--file", "m.keras")
    assert plain["model"]["classes"] == list(DIGITS)
    assert not Path("mlflow.db").exists()


def test_the_table_says_which_model_and_what_was_done(capsys, logged, drawing):
    large = Image.fromarray(255 - strokes()).resize((400, 200)).convert("RGB")
    large.save("large [red].jpg", quality=95)
    options = ["stroke.png", "large [red].jpg", "--model", "dark", "--tracking-uri", logged.uri]
    assert main(["predict", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    out = captured.out
    head = f"dark version 1, run {logged.run_id[:8]}, trained on digits-like, dark background"
    assert out.startswith(head)
    assert "stroke.png: taken as it is" in out
    assert (
        "large [red].jpg: colours to grey, inverted, resized from 400x200 to 28x14, padded to 28x28"
        in out
    )
    row = predicted(logged, strokes())
    best, second, third = np.argsort(-row)[:3]
    cells = [f"{best}", f"{row[best]:.1%}", f"{second} {row[second]:.1%}, {third} {row[third]:.1%}"]
    (line,) = [line for line in out.splitlines() if line.startswith("  stroke.png ")]
    assert line.split("stroke.png")[1].split() == " ".join(cells).split()


def test_top_says_how_many_classes_are_shown(capsys, logged, drawing):
    counts = {}
    for top in ("1", "2", "99"):
        assert main(["predict", "stroke.png", "--model", "dark", "--tracking-uri", logged.uri,
                     "--top", top]) == 0  # fmt: skip
        counts[top] = capsys.readouterr().out.count("%")
    assert counts == {"1": 1, "2": 2, "99": 10}


def test_names_that_a_terminal_would_obey_are_shown_harmlessly(capsys, logged, drawing):
    shutil.copy("stroke.png", "a\x1b[31mb.png")
    assert main(["predict", "a\x1b[31mb.png", "--model", "dark", "--tracking-uri", logged.uri]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and r"a\x1b[31mb.png" in out


def test_the_drawing_shows_pictures_and_bars(capsys, logged, drawing):
    Image.fromarray(255 - strokes()).save("$weird$ name.png")
    options = ["stroke.png", "$weird$ name.png", "--model", "dark", "--tracking-uri", logged.uri]
    assert main(["predict", *options, "--picture", "seen.png"]) == 0
    assert "seen.png" in capsys.readouterr().out
    seen = np.asarray(Image.open("seen.png").convert("RGB")).astype(int)
    assert seen.shape[0] > 300
    orange = (np.abs(seen - (255, 127, 14)).sum(axis=2) < 30).sum(axis=1) > 0
    # The winner's bar of either picture: two stretches of rows.
    assert (np.diff(orange.astype(int)) == 1).sum() == 2
    assert "must name a new file" in refusal(capsys, *options, "--picture", "seen.png")
    for name, rule in (("seen.jpg", "must end in .png"), ("no/where.png", "existing folder")):
        assert rule in refusal(capsys, *options, "--picture", name)
    assert "at most 50" in refusal(capsys, *["stroke.png"] * 51, *options, "--picture", "s.png")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--model", "dark"], "At least one image must be named"),
        (["stroke.png"], "Exactly one model must be named, with --model NAME@champion"),
        (["stroke.png", "--model", "a", "--run", "b"], "Received: --model and --run"),
        (["stroke.png", "--file", "m.keras", "--tracking-uri", "sqlite:///x.db"], "--model and --run only"),
        (["stroke.png", "--model", "a", "--class-names", "b,c"], "goes with --file only"),
        (["stroke.png", "--file", "m.keras", "--class-names", "b,,c"], "must be different names"),
        (["stroke.png", "--file", "m.keras", "--class-names", "b,b"], "must be different names"),
        (["stroke.png", "--file", "no.keras"], "which does not exist"),
        (["stroke.png", "--file", "stroke.png"], "must be a .keras file"),
        (["missing.png", "--model", "a"], "missing.png, which does not exist"),
        (["stroke.png", ".", "--model", "a"], "which is a folder"),
        (["stroke.png", "--model", "a", "--top", "0"], "at least 1. Received: '0'"),
        (["stroke.png", "--model", "a", "--polarity", "black"], "--polarity"),
        (["stroke.png", "--modell", "a"], "Did you mean '--model'?"),
        (["stroke.png", "--model", "a"], "mlflow.db, which does not exist"),
        (["stroke.png", "--run", "a", "--tracking-uri", "sqlite:///none.db"], "none.db"),
        (["stroke.png", "--run", "a", "--tracking-uri", "http://127.0.0.1:9"], "does not answer"),
        (["stroke.png", "--run", "a", "--tracking-uri", "mlruns"], "must be a database or a server"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_writes_nothing(capsys, drawing, options, rule):
    assert rule in refusal(capsys, *options)


def test_another_programs_database_is_left_alone(capsys, drawing):
    connection = sqlite3.connect("optuna.db")
    connection.execute("CREATE TABLE studies (name TEXT)")
    connection.commit()
    connection.close()
    before = Path("optuna.db").read_bytes()
    Path("empty.db").write_bytes(b"")
    for name in ("optuna.db", "empty.db"):
        address = f"sqlite:///{name}"
        error = refusal(capsys, "stroke.png", "--run", "a", "--tracking-uri", address)
        assert "without MLflow's tables" in error
    assert Path("optuna.db").read_bytes() == before and Path("empty.db").read_bytes() == b""


def test_unknown_models_name_what_there_is(capsys, logged, light, drawing):
    for options, rule in (
        (["--model", "drak@champion"], "There are: dark, light."),
        (["--model", "dark@best"], "There are: dark@champion (version 1), dark/1."),
        (["--model", "dark/7"], "'dark' has no such version. Received: 'dark/7'."),
        (["--model", "light"], "Received: 'light@champion'. There are: light@newest"),
        (["--model", "dark@a@b"], "NAME@alias or NAME/VERSION"),
        (["--run", "0" * 32], "There is no run"),
    ):
        assert rule in refusal(capsys, "stroke.png", *options, "--tracking-uri", logged.uri)


def test_a_run_without_a_model_is_named(capsys, logged, drawing):
    client = MlflowClient(logged.uri)
    run = client.create_run("0")
    options = ["stroke.png", "--run", run.info.run_id, "--tracking-uri", logged.uri]
    assert "has no stored model" in refusal(capsys, *options)


def test_a_tampered_model_is_refused(capsys, folder, drawing):
    found = log_model(folder, 2, digits_like(folder / "data"), random_model(2))
    random_model(3).save(found.file)
    options = ["stroke.png", "--run", found.run_id, "--tracking-uri", found.uri]
    assert "was changed after it was logged" in refusal(capsys, *options)
    found.file.unlink()
    assert "cannot be read" in refusal(capsys, *options)


def test_a_foreign_model_is_refused(capsys, logged, drawing, folder):
    client = MlflowClient(logged.uri)
    run = client.create_run("0")
    foreign = client.create_logged_model("0", name="model", source_run_id=run.info.run_id)
    client.create_registered_model("foreign")
    version = new_version(logged.uri, "foreign", foreign.model_id, run.info.run_id)
    without = client.create_model_version("foreign", str(folder), run.info.run_id).version
    for number in (version, without):
        options = ["--model", f"foreign/{number}", "--tracking-uri", logged.uri]
        assert "was not logged by keras-sweeps" in refusal(capsys, "stroke.png", *options)


def test_a_model_that_names_no_classes_is_refused_by_its_label(capsys, folder, drawing):
    data = digits_like(folder / "data")
    found = log_model(folder, 4, data, random_model(4, num_classes=10))
    import keras
    from keras import layers as kl

    inputs = keras.Input((28, 28, 1), dtype="uint8")
    logits = keras.Model(inputs, kl.Dense(10)(kl.Flatten()(inputs)))
    other = log_model(folder, 5, data, logits)
    options = ["--run", other.run_id, "--tracking-uri", found.uri]
    error = refusal(capsys, "stroke.png", *options)
    assert f"the model of run {other.run_id[:8]}" in error and "softmax" in error


def test_the_script_prints_json_and_nothing_else(logged, drawing):
    done = subprocess.run(
        [sys.executable, str(ROOT / "pipelines" / "predict.py"), "stroke.png", "--run",
         logged.run_id, "--tracking-uri", logged.uri, "--json"],
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["predictions"][0]["file"] == "stroke.png"
    assert done.stderr == ""


def test_the_script_says_when_the_project_is_not_installed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(ROOT / "pipelines" / "predict.py")],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "must be installed first" in done.stderr
