"""Sweeps from Python: arrays in, a stored sweep, its model and its champion out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import keras_sweeps as ks

ROOT = Path(__file__).parents[2]
TINY = {"trials": 2, "epochs": 1, "workers": 1, "no_baselines": True, "pruner": "none"}


def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return (data.images * 15).astype(np.uint8)[..., None], data.target


def script(folder: Path, text: str, **options) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "program.py"], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture
def here(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def swept(folder):
    """A sweep of arrays, with what a function ended and what was printed meanwhile."""
    ended: list[ks.Trial] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sweep = ks.run(
            "mlp", digits(), **TINY, seed=3, name="arrays", keep_models=1, verbose=0,
            on_trial_end=ended.append,
        )  # fmt: skip
    return sweep, ended


def test_a_sweep_is_what_is_stored(swept, here):
    sweep, ended = swept
    assert sweep.name == "arrays" and sweep.state == "finished"
    assert sweep.trials == ended and [trial.state for trial in ended] == ["COMPLETE"] * 2
    assert sweep.best_value == max(trial.value for trial in ended) == sweep.study.best_value
    assert sweep.best_params == sweep.best_trial.params and sweep.best_params["units"]
    assert list(ended[0].curve) == [1.0] and ended[0].proposed_by
    found = sweep.trials_dataframe()
    assert found["value"].tolist() == [trial.value for trial in ended]
    assert found["params_units"].tolist() == [trial.params["units"] for trial in ended]
    assert sweep.data.num_classes == 10 and sweep.data.name.startswith("arrays-")
    loaded = ks.load_sweep()
    assert (loaded.name, loaded.trials, loaded.run_id) == ("arrays", sweep.trials, sweep.run_id)


def test_mlflow_has_the_run_and_a_file_that_starts_it_again(swept, here):
    from mlflow import MlflowClient

    # In one process a relative address stays the file of the folder that it was first used in.
    assert swept[0].tracking_uri == f"sqlite:///{here}/mlflow.db"
    client = MlflowClient(swept[0].tracking_uri)
    run = client.get_run(swept[0].run_id)
    assert run.data.tags["sweeps.kind"] == "sweep" and run.info.status == "FINISHED"
    trial = client.get_run(swept[0].trial_run_id(1))
    assert trial.data.tags["sweeps.trial"] == "1" and swept[0].trial_run_id(9) is None
    text = Path(client.download_artifacts(run.info.run_id, "sweep.yaml", str(here))).read_text()
    assert "\nseed: 3\n" in text and "\nno-baselines: true\n" in text and "\nepochs: 1\n" in text
    from sweeps.cli.main import main

    assert (
        main(["run", "--config", str(here / "sweep.yaml"), "--name", "new", "--write-config"]) == 0
    )


def test_the_same_arrays_are_written_and_prepared_once(swept, here):
    x, y = digits()
    data = ks.load_dataset({"x": x, "y": y}, verbose=0)
    assert data == swept[0].data
    assert len(list((here / ".sweeps" / "arrays").iterdir())) == 1
    images, labels = data.arrays("train")
    assert images.shape[1:] == (8, 8, 1) and len(images) == len(labels) > 1_000


def test_its_model_becomes_the_champion_and_predicts(swept, here):
    x, y = digits()
    model = swept[0].load_model()
    probabilities = model.predict(x[:50])
    assert probabilities.shape == (50, 10) and model.input_shape == (8, 8, 1)
    assert (probabilities.argmax(axis=1) == y[:50]).mean() > 0.7
    done = ks.promote("arrays", model="digits", min_accuracy=0.5)
    assert (done.outcome, done.version, done.changed) == ("done", 1, True)
    assert all(rule.passed for rule in done.rules) and done.candidate.accuracy > 0.5
    champion = ks.load_model("digits@champion")
    np.testing.assert_array_equal(champion.predict(x[:50, ..., 0]), probabilities)
    with pytest.raises(ks.InputError, match=r"must have the shape \(n, 8, 8, 1\)\. Received: "):
        champion.predict(np.zeros((3, 28, 28)))
    with pytest.raises(ks.InputError, match=r"Unknown option 'min_acuracy'\. Did you mean"):
        ks.promote("arrays", min_acuracy=0.5)


def test_a_function_that_raises_leaves_a_sweep_that_goes_on(swept, here, capfd):
    sweep, _ = swept

    def refuse(trial: ks.Trial) -> None:
        raise KeyError("enough")

    with pytest.raises(ks.SweepError, match="on_trial_end raised KeyError after trial 2") as caught:
        sweep.resume(trials=4, on_trial_end=refuse, verbose=0)
    assert caught.value.sweep.state == "interrupted"
    assert isinstance(caught.value.__cause__.__cause__, KeyError)
    assert capfd.readouterr() == ("", ""), "verbose=0 prints nothing"
    with pytest.raises(ks.InputError, match="seed was 3, is 4"):
        sweep.resume(seed=4)
    done = ks.run(None, name="arrays", resume=True, trials=3, verbose=1)
    assert done.state == "finished" and len(done.trials) == 3
    printed = capfd.readouterr()
    assert "resumed" in printed.out and "Best: trial " in printed.out and printed.err == ""


def test_a_sweep_stays_in_its_folder(swept, folder, tmp_path):
    sweep, ended = swept  # The program is in another folder now.
    assert sweep.tracking_uri == f"sqlite:///{folder}/mlflow.db"
    assert len(sweep.trials) >= len(ended) and sweep.best_value == sweep.study.best_value
    assert sweep.load_model().input_shape == (8, 8, 1)
    for function in (sweep.resume, sweep.finalize):
        with pytest.raises(ks.InputError, match=r"'arrays' is in .*Change back with os\.chdir\."):
            function()
    assert list(tmp_path.iterdir()) == []


def test_what_is_the_sweeps_own_cannot_be_changed(swept, here):
    with pytest.raises(ks.InputError, match=r"^'name' is the sweep's own: leave it out\."):
        swept[0].resume(name="other")
    x, y = digits()
    with pytest.raises(ks.InputError, match=r"has changed since it began"):
        swept[0].resume(dataset=(255 - x, y), trials=9)


def test_a_trial_replays_identically(swept, here):
    found = ks.replay(swept[0].trial_run_id(0))
    assert (found.outcome, found.is_identical, found.first) == ("done", True, None)
    assert (found.num_reports, found.num_recorded, found.num_differing) == (1, 1, 0)


def test_the_log_tells_what_happened(swept, here):
    text = (here / ".sweeps" / "sweeps" / "arrays" / "sweep.log").read_text()
    for words in (
        "INFO    settings: space=mlp ", "INFO    data      arrays-", "INFO    trial 0 (",
        " COMPLETE at epoch 1 after ", "INFO    the sweep is done after ",
    ):  # fmt: skip
        assert words in text, words


def test_a_script_without_a_guard_ends_soon_after_its_sweep(tmp_path):
    text = (
        "import time\n"
        "import keras_sweeps as ks\n"
        f"sweep = ks.run('mlp', 'digits', verbose=0, name='plain', **{TINY | {'trials': 1}})\n"
        "print(sweep.state, len(sweep.trials), time.time(), flush=True)\n"
    )
    process = script(tmp_path, text)
    out, err = process.communicate(timeout=200)
    ended = time.time()
    assert (process.returncode, err) == (0, "")
    state, num, done = out.split()
    assert (state, num) == ("finished", "1")
    assert ended - float(done) < 30, "the server of workers holds nobody up"


@pytest.mark.long
def test_a_command_in_a_thread_installs_no_handlers_and_writes_its_result(tmp_path):
    options = ["--space", "mlp", "--dataset", "digits", "--trials", "1", "--epochs", "1",
               "--workers", "1", "--no-baselines", "--name", "t", "--quiet"]  # fmt: skip
    text = (
        "import signal, threading\n"
        "from sweeps.cli.main import main\n"
        "before, found = signal.getsignal(signal.SIGINT), []\n"
        f"run = ['run', *{options}, '--result', 'result.json']\n"
        "thread = threading.Thread(target=lambda: found.append(main(run)))\n"
        "thread.start()\n"
        "thread.join()\n"
        "print(found, signal.getsignal(signal.SIGINT) is before)\n"
    )
    process = script(tmp_path, text)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "[0] True"
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["format"], result["outcome"], result["exit_status"]) == (1, "done", 0)
    assert result["state"] == "finished" and result["error"] == "" and result["finalists"] is None
    assert result["sweep"]["name"] == result["study"]["name"] == "t"
    assert result["best"]["trial"] == 0 and result["best"]["value"] > 0.5
    assert result["best"]["params"]["units"] and result["trials"] == {"COMPLETE": 1}
    assert result["seconds"] > result["training_seconds"] > 0
    for run_id in (result["mlflow"]["run_id"], result["best"]["run_id"]):
        assert len(run_id) == 32


def test_ctrl_c_ends_a_program_in_order_and_its_result_says_so(tmp_path):
    """The program goes on with KeyboardInterrupt; a command's result is written all the same."""
    long = TINY | {"trials": 50, "epochs": 50}
    text = (
        "import keras_sweeps as ks\n"
        "try:\n"
        f"    ks.run('mlp', 'digits', verbose=0, name='long', **{long})\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', ks.load_sweep().state)\n"
    )
    process = script(tmp_path, text)
    log = tmp_path / ".sweeps" / "sweeps" / "long" / "sweep.log"
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and not (log.exists() and " starts, " in log.read_text()):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert (out, err, process.returncode) == ("interrupted interrupted\n", "", 0)
    assert "the last trial ended: interrupted" in log.read_text()


def test_finalists_are_ranked_and_the_winner_is_the_sweeps_model(swept, here, capfd):
    sweep, _ = swept
    with pytest.raises(ks.InputError, match="must be at least 2"):
        sweep.finalize(finalist_seeds=1)
    result = sweep.finalize(2, 2, verbose=0)
    assert capfd.readouterr() == ("", "") and result.outcome == "done"
    first, second = result.ranking
    assert {first.trial, second.trial} <= {trial.number for trial in sweep.trials}
    assert first.low <= first.mean <= first.high and first.mean >= second.mean
    assert first.num_seeds == 2 and 0 < first.test_accuracy <= 1
    assert first.probability_best + second.probability_best == pytest.approx(1)
    again = ks.load_sweep("arrays").finalize(verbose=0)
    assert (again.ranking, again.ran, result.ran) == (result.ranking, False, True)
    x, y = digits()
    assert (sweep.load_model().predict(x[:50]).argmax(axis=1) == y[:50]).mean() > 0.7


NOTEBOOK = """
import sys
import keras
import keras_sweeps as ks

WIDTHS = [16, 32]

def dense(x, hp):
    return keras.layers.Dense(hp.Choice("width", WIDTHS), activation="relu")(x)

def build(hp):
    inputs = keras.Input((28, 28, 1))
    x = dense(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)), hp)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    rate = hp.Float("rate", 1e-3, 1e-1, sampling="log")
    model.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy")
    return model
"""


@pytest.mark.long
def test_a_function_of_a_program_is_searched_by_value_and_given_again(tmp_path, capsys):
    """As in a notebook whose kernel was restarted: the first process is gone."""
    first = (
        f"sweep = ks.run(build, 'digits', name='cell', verbose=0, **{TINY})\n"
        "print(sweep, sorted(sweep.best_params), sweep.stored.file.settings.space)\n"
    )
    process = script(tmp_path, NOTEBOOK + first)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    told = "<Sweep 'cell', finished> ['rate', 'width'] given:build@"
    assert out.startswith(told)
    digest = out.removeprefix(told).strip()
    files = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "program.py"]
    assert len(files) > 10
    for file in files:
        assert b"cloudpickle" not in file.read_bytes(), file

    second = (
        "def refused(function, **options):\n"
        "    try:\n"
        "        function(**options)\n"
        "    except ks.InputError as error:\n"
        "        print(str(error).partition(':')[0])\n"
        "sweep = ks.load_sweep('cell')\n"
        "refused(sweep.resume, trials=3)\n"
        "refused(sweep.finalize)\n"
        "WIDTHS = [16, 64]\n"
        "for function in (sweep.resume, sweep.finalize):\n"
        "    refused(function, space=build)\n"
        "refused(ks.replay, run_id=sweep.trial_run_id(0), space=build)\n"
        "WIDTHS = [16, 32]\n"
        "print(len(sweep.resume(space=build, trials=3, verbose=0).trials))\n"
        "print(sweep.finalize(2, 2, space=build, verbose=0).outcome)\n"
        "print(ks.replay(sweep.trial_run_id(2), space=build).is_identical)\n"
    )
    process = script(tmp_path, NOTEBOOK + second)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    lost = "The space 'build' is an object of the program that began the sweep, and is stored nowhere. Give it again"
    other = "The space 'build' that is given is not the one that the sweep began with"
    assert out.splitlines() == [lost, lost, other, other, other, "3", "done", "True"]

    from sweeps.cli.main import main

    os.chdir(tmp_path)
    assert main(["doctor"]) == 0
    assert "3 trials, 3 runs" in capsys.readouterr().out
    by_name = ["run", "--resume", "--name", "cell", "--trials", "4"]
    for command in (by_name, ["run", "--space", f"given:build@{digest}"]):
        assert main(command) == 2
        assert "is an object of the program that began the sweep" in capsys.readouterr().err
