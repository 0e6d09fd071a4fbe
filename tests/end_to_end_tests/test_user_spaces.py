"""A user's HyperModel through a whole life: sweep, doctor, replay, finalists, champion."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_executor
import fake_jobs
import pytest
import user_fits
import user_models
from driven_commands import drive
from mlflow import MlflowClient

from pipelines.data.prepared import PreparedData
from pipelines.training.options import TrainingOptions
from search_spaces.cost import Cost
from search_spaces.errors import InputError
from search_spaces.hyperparameters import (
    GivenHyperParameters,
    HyperParameters,
    active_values,
    declare,
)
from search_spaces.hyperparameters.narrowing import narrowed
from search_spaces.hyperparameters.parameter import int_parameter
from search_spaces.registry import SPACES
from search_spaces.user_spaces.reference import find_reference
from search_spaces.user_spaces.space import user_space
from sweeps.cli.main import main
from sweeps.executors.base import Slot
from sweeps.settings import SweepSettings
from sweeps.setup import space as chosen_space
from sweeps.workers import hosts
from sweeps.workers.hosts import SPACE_JOB_ID, SpaceHost
from sweeps.workers.jobs import Sampled

ROOT = Path(__file__).parents[2]
FILE = user_models.__file__
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
]  # A whole life in one fixture, on a machine that may be busy.
COMMON = ["--dataset", "digits", "--timeout", "none"]


def documented() -> str:
    """The example of docs/spaces.md."""
    return (ROOT / "docs" / "spaces.md").read_text().split("```python\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    folder = tmp_path_factory.mktemp("life")
    (folder / "my_space.py").write_text(documented())
    sweep = ["run", "--space", f"{FILE}:Small", *COMMON, "--epochs", "1", "--pruner", "none",
             "--name", "s", "--trials", "2", "--fix", "num_layers=2", "--set", "units_0=8..16"]  # fmt: skip
    run = ["run", *COMMON, "--epochs", "1", "--trials", "1", "--space"]
    found = drive(folder, {
        "raises": [*run, f"{FILE}:raising"],
        "cannot be narrowed": [*run, f"{FILE}:Small", "--set", "units_0=10,12"],
        "describe": ["run", "--space", "my_space.py:build", "--describe", "--fix", "num_blocks=2"],
        "documented": [*run, "my_space:build", "--name", "mine"],
        "sweep": sweep,
        "replay": ["replay", "run:trial 1"],
        "resume": ["run", "--resume", "--name", "s", "--trials", "3"],
        "finalize": ["finalize", "s", "--finalists", "1", "--finalist-seeds", "2"],
        "promote": ["promote", "s"],
        "doctor": ["doctor", "s"],
        "code": [*run, f"{FILE}:with_code", "--name", "c"],
        "lost sweep": ["replay", "run:trial 1", "--work-dir", "elsewhere"],
        "ignores": [*run, f"{user_fits.__file__}:FixedEpochs"],
        "loop": [*run, f"{user_fits.__file__}:CustomLoop", "--name", "l"],
        "wrong": [*run, f"{FILE}:sometimes_raising", "--name", "w", "--fix", "wrong=true"],
    })  # fmt: skip
    found["client"] = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return found


def runs_of(life, sweep: str, kind: str = "trial"):
    client = life["client"]
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`sweeps.kind` = '{kind}'")
    return [run for run in runs if run.data.tags["sweeps.sweep"] == sweep]


def test_the_driver_never_imports_keras(life):
    assert life["imported"] == []


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("raises", "ArithmeticError: no such model (user_models.py, line "),
        ("ignores", "trains 0 epochs when it is given epochs=8 and initial_epoch=7"),
        ("cannot be narrowed", "8 to 32 by 8. Received: '10,12'"),
    ],
)
def test_a_space_that_cannot_be_used_is_one_line_and_status_2(life, what, words):
    done = life[what]
    assert done["status"] == 2
    assert words in done["err"] and done["err"].count("\n") == 1


def test_the_documented_space_is_described_and_searched(life):
    done = life["describe"]
    assert done["status"] == 0, done["err"]
    assert re.search(r"filters_1\s+4 to 16 by 4\s+4\s+always", done["out"])
    assert re.search(r"num_blocks\s+2\s+2", done["out"])
    assert "default: num_blocks=2 filters_0=4 filters_1=4 learning_rate=0.01" in done["out"]
    assert life["documented"]["status"] == 0, life["documented"]["err"]
    (run,) = runs_of(life, "mine")
    assert (
        run.data.params["batch_size"] == "32" and run.data.tags["sweeps.space"] == "my_space-build"
    )


def test_trials_are_recorded_with_every_parameter_and_the_defaults_first(life):
    assert life["sweep"]["status"] == 0, life["sweep"]["err"]
    assert "narrowed  units_0=8..16 num_layers=2" in life["sweep"]["out"]
    runs = {run.data.tags["sweeps.trial"]: run.data for run in runs_of(life, "s")}
    assert set(runs) == {"0", "1", "2"}, "the third one by --resume"
    first = runs["0"]
    assert first.tags["sweeps.baseline"] == "default"
    assert first.params == {
        "num_layers": "2", "units_0": "8", "units_1": "8", "units_2": "inactive", "dropout": "0.0",
        "learning_rate": "0.001", "batch_size": "16", "shuffle": "True", "max_epochs": "1",
    }  # fmt: skip
    for run in runs.values():
        assert run.params["num_layers"] == "2" and run.params["units_0"] in ("8", "16")
        assert run.metrics["best/val_accuracy"] > 0 and run.metrics["model/bytes"] > 0
        source = json.loads(run.tags["sweeps.space_source"])
        assert source["reference"] == f"{FILE}:Small"


def test_study_spool_and_mlflow_agree(life):
    assert life["doctor"]["status"] == 0, life["doctor"]
    assert "study, spool and MLflow agree" in life["doctor"]["out"]


def test_it_is_resumed_finalised_and_promoted(life):
    for what in ("resume", "finalize", "promote"):
        assert life[what]["status"] == 0, life[what]
    assert life["client"].get_registered_model("user_models-Small-digits").aliases == {
        "champion": 1
    }
    assert len(runs_of(life, "s finalists", "finalist") or runs_of(life, "s", "finalist")) == 2


def test_a_trial_with_a_fit_of_its_own_replays_bit_for_bit(life):
    done = life["replay"]
    assert done["status"] == 0, done
    assert "identical: 1 report, 9 metrics, bit for bit" in done["out"]


def test_a_run_from_elsewhere_is_replayed_only_when_its_space_is_named(life):
    done = life["lost sweep"]
    assert done["status"] == 2
    assert f"allow it with --space '{FILE}:Small'" in done["err"]


def test_what_a_space_imports_from_beside_it_belongs_to_it(tmp_path):
    """Not what is installed, also where that lies in the project's folder."""
    package = tmp_path / "venv" / "site-packages" / "installed_thing"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    (tmp_path / "layers_of_mine.py").write_text("activation = 'relu'\n")
    file = tmp_path / "sp.py"
    file.write_text(
        "import sys\nsys.path.insert(0, sys.path[0] + '/venv/site-packages')\n"
        "import layers_of_mine, installed_thing\ndef build(hp): pass\n"
    )
    script = (
        "import sys\nfrom search_spaces.user_spaces.reference import *\n"
        "from search_spaces.user_spaces.loading import load_hypermodel, loaded_sources\n"
        "found = find_reference(sys.argv[1])\nload_hypermodel(found, (8, 8, 1), 3)\n"
        "sources = loaded_sources(found)\n"
        "print([Path(path).name for path, _ in sources], sources_digest(sources))\n"
        "Path('layers_of_mine.py').write_text('activation = None')\n"
        "try:\n    check_sources(sources)\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"{file}:build"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert first.startswith("['layers_of_mine.py', 'sp.py'] ")
    assert second.startswith("SourceChangedError") and "layers_of_mine.py" in second
    assert "sp.py," not in second


def test_a_model_that_needs_code_is_said_trained_and_not_kept(life):
    done = life["code"]
    assert done["status"] == 0, done["err"]
    assert "cannot be saved without their code" in done["err"] and "Doubled" in done["err"]
    (run,) = runs_of(life, "c")
    assert "Doubled" in run.data.tags["sweeps.model_not_kept"]
    assert run.data.metrics["best/val_accuracy"] > 0 and "model/bytes" not in run.data.metrics
    experiment = run.info.experiment_id
    assert not life["client"].search_logged_models([experiment])


def test_a_loop_without_compile_is_recorded_and_its_model_kept(life):
    assert life["loop"]["status"] == 0, life["loop"]["err"]
    (run,) = runs_of(life, "l")
    assert run.data.params.keys() >= {"units", "batch_size", "learning_rate"}
    assert run.data.metrics["epoch/val_loss"] > 0 and run.data.metrics["model/bytes"] > 0
    assert "epoch/loss" not in run.data.metrics and "epoch/learning_rate" not in run.data.metrics


def test_a_point_that_cannot_be_built_fails_in_its_own_trial(life):
    (run,) = runs_of(life, "w")
    assert life["wrong"]["status"] == 1
    assert run.data.tags["sweeps.state"] == "FAILED"
    assert "this one is wrong" in run.data.tags["sweeps.reason"]
    assert run.data.params["wrong"] == "True"


# The host, with a thread instead of a process


def fake_host(job) -> tuple[SpaceHost, fake_executor.InlineExecutor]:
    executor = fake_executor.InlineExecutor()

    class Faked(fake_executor.InlineExecutor):
        def start(self, job_id: str, real: Any, argument: Any, slot: Slot, log_path: str) -> None:
            executor.start(job_id, job, argument, slot, log_path)

        events, answer, stop, close = (
            executor.events,
            executor.answer,
            executor.stop,
            executor.close,
        )

    return SpaceHost("x.py:build", (8, 8, 1), 3, Faked), executor


def asking_job(argument: Any, report: Any, slot: Slot) -> None:
    report(Sampled(notes=("a note",) if argument.check else ()))
    while True:
        for name in ("a", "b"):
            report(int_parameter(name, 1, 9, default=4))
        report(Sampled())


def test_the_host_relays_every_question():
    host, _ = fake_host(asking_job)
    assert host.sample(HyperParameters()) == {"a": 4, "b": 4}
    assert host.notes == ("a note",)
    host.close()


def test_an_answer_that_fails_costs_the_process_and_not_the_host():
    class Refusing(HyperParameters):
        def suggest(self, parameter):
            raise InputError("no")

    host, executor = fake_host(asking_job)
    with pytest.raises(InputError, match="no"):
        host.sample(Refusing())
    assert executor.stopped == [SPACE_JOB_ID]
    assert host.sample(HyperParameters()) == {"a": 4, "b": 4}
    host.close()


def test_the_process_is_made_anew_after_many_samples(monkeypatch):
    monkeypatch.setattr(hosts, "MAX_SPACE_SAMPLES", 3)
    host, executor = fake_host(asking_job)
    for _ in range(7):
        assert host.sample(HyperParameters()) == {"a": 4, "b": 4}
    assert executor.stopped == [SPACE_JOB_ID] * 2
    host.close()


def test_a_point_costs_what_its_model_was_built_with_also_in_a_resumed_sweep():
    def costing(argument: Any, report: Any, slot: Slot) -> None:
        report(Sampled())
        while True:
            units = report(int_parameter("units", 1, 9))
            if units == 9:  # Such as a subclassed model that is not built.
                report(Sampled())
            else:
                report(Sampled(cost=Cost(100 * units, 1000 * units)))

    first, _ = fake_host(costing)
    space = user_space(find_reference(f"{FILE}:raw"), first.sample, cost_of=first.cost)
    params = space.sample(GivenHyperParameters({"units": 3}))
    assert space.cost(params, (8, 8, 1), 3) == Cost(300, 3000)
    resumed, _ = fake_host(costing)
    assert resumed.cost(params, (8, 8, 1), 3) == Cost(300, 3000)
    assert resumed.cost({"units": 9}, (8, 8, 1), 3) is None
    for host in (first, resumed):
        host.close()


def test_a_look_that_ends_at_its_limit_says_so():
    def growing(argument: Any, report: Any, slot: Slot) -> None:
        report(Sampled())
        while True:
            depth = 0
            while report(int_parameter(f"depth_{depth}", 1, 3)) == 3:
                depth += 1
            report(Sampled())

    host, _ = fake_host(growing)
    space = user_space(find_reference(f"{FILE}:raw"), host.sample, host.note_limit)
    assert space.parameters[0].name == "depth_0"
    (note,) = host.notes
    assert "than 64 models showed" in note and "cannot name them" in note
    with pytest.raises(
        InputError, match="only appears under other conditions .* cannot be narrowed"
    ):
        narrowed(space, ("hidden=1",))
    host.close()


def test_weights_of_classes_are_refused_where_fit_drops_them(monkeypatch):
    space = replace(SPACES["mlp"], drops_class_weights=True)
    monkeypatch.setattr(chosen_space, "open_space", lambda *_: space)
    data = PreparedData("d", "d", "", "", "", (8, 8, 1), 3, (), {})
    assert chosen_space.space_of(SweepSettings(space="a.py:b"), data) is space
    with pytest.raises(InputError, match="no effect with 'a.py:b': its fit gets"):
        chosen_space.space_of(
            SweepSettings(space="a.py:b", training=TrainingOptions(class_weights="balanced")), data
        )


@pytest.mark.parametrize("killed_by", ["", "SIGSEGV"])
def test_a_process_that_dies_at_a_point_leaves_what_it_asked_for(killed_by):
    def dying(argument: Any, report: Any, slot: Slot) -> None:
        report(Sampled())
        report(int_parameter("a", 1, 9))
        raise fake_jobs.Died("ended", killed_by)

    host, _ = fake_host(dying)
    for _ in range(2):
        assert host.sample(HyperParameters()) == {"a": 1}
    host.close()


@pytest.mark.parametrize("killed_at", ["start", "first question", "second question", "end"])
def test_a_process_that_is_killed_is_asked_again(killed_at):
    kills = [killed_at, killed_at]

    def killed(argument: Any, report: Any, slot: Slot) -> None:
        def moment(name: str) -> None:
            if name in kills:
                kills.remove(name)
                raise fake_jobs.Died("killed", "SIGKILL")

        moment("start")
        report(Sampled())
        while True:
            moment("first question")
            report(int_parameter("a", 1, 9))
            moment("second question")
            report(int_parameter("b", 1, 9))
            moment("end")
            report(Sampled(cost=Cost(100, 1000)))

    class Drawing(HyperParameters):
        """Draws another value at every draw."""

        drawn = 0

        def suggest(self, parameter):
            Drawing.drawn += 1
            return Drawing.drawn

    host, _ = fake_host(killed)
    assert host.sample(Drawing()) == {"a": 1, "b": 2}, "no value is drawn twice"
    assert host.cost({"a": 1, "b": 2}, (8, 8, 1), 3) == Cost(100, 1000)
    assert not kills
    host.close()


def test_a_real_process_that_is_killed_is_asked_again():
    class Killing(HyperParameters):
        def suggest(self, parameter):
            if not kills:
                kills.append(executor.process_id(SPACE_JOB_ID))
                os.kill(kills[0], signal.SIGKILL)
            return super().suggest(parameter)

    kills: list[int] = []
    executor = chosen_space.make_executor("tensorflow")
    host = SpaceHost(f"{FILE}:raw", (8, 8, 1), 3, lambda: executor)
    expected = host.sample(HyperParameters())
    assert expected and host.sample(Killing()) == expected
    assert executor.process_id(SPACE_JOB_ID) not in (None, *kills)
    host.close()


def test_a_process_that_is_killed_whenever_it_starts_is_an_error_and_no_point():
    def killed(argument: Any, report: Any, slot: Slot) -> None:
        raise fake_jobs.Died("the process was killed by signal SIGKILL", "SIGKILL")

    host, _ = fake_host(killed)
    with pytest.raises(InputError, match="its process ended: .* SIGKILL"):
        host.sample(HyperParameters())
    host.close()


def test_a_narrowed_space_is_a_setting_of_the_sweep(capsys):
    common = ["run", "--space", "cnn", "--dataset", "digits"]
    assert main([*common, "--set", "optimizer=lion"]) == 2
    assert "adam | nadam | rmsprop | sgd. Received: 'lion'" in capsys.readouterr().err
    assert main([*common, "--fix", "head"]) == 2
    assert "--fix must be NAME=VALUE" in capsys.readouterr().err
    assert main(["run", "--baselines-only", "--fix", "head=flatten"]) == 2
    assert main(["run", "--describe", "cnn_blocks", "--set", "filters_0=16..24"]) == 0
    assert re.search(r"filters_0\s+16 to 24 by 8\s+24", capsys.readouterr().out)
    assert declare(HyperParameters(), int_parameter("a", 1, 2)) == 1
    assert active_values(HyperParameters()) == {}
