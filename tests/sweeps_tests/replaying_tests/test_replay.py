"""A recorded run is trained again: identical, or the first difference and its possible causes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_executor
import fake_jobs
import fake_loop_parts
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.utils.validation import _validate_param_name

from pipelines.training.reports import TrialReport
from pipelines.training.trial import Decision, TrialTask
from search_spaces.errors import InputError
from search_spaces.hyperparameters import active_values
from search_spaces.hyperparameters.parameter import recorded_name, recorded_params
from search_spaces.registry import SPACES, get_space
from search_spaces.space import Space
from sweeps.cli.main import main
from sweeps.executors.base import Slot
from sweeps.interrupts import Interrupts
from sweeps.replaying import replay
from sweeps.replaying.comparison import CauseKind, Circumstances, Comparison, causes
from sweeps.replaying.recipe import Device, params_of, parse_device, recipe_of, slot_like
from sweeps.resources.gpus import Gpu
from sweeps.resources.machine import Machine
from sweeps.settings import SweepSettings
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import SweepFile, swept_spaces, write_sweep_file
from sweeps.workers.start import JobFailedError, run_job
from tracking.runs.run_reader import RecordedRun, read_run

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
CORES = Machine(num_cores=2, memory_bytes=8 * 2**30)
GPUS = replace(CORES, gpus=(Gpu("0", "NVIDIA A"), Gpu("1", "NVIDIA B")))


def drive(folder: Path, *commands: list[str]) -> dict[str, Any]:
    (folder / "commands.json").write_text(json.dumps(commands))
    hidden = ("SWEEPS_DATA_DIR", "MLFLOW_TRACKING_URI")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "drivers" / "replay_driver.py"), "commands.json"],
        cwd=folder, capture_output=True, text=True, timeout=250,
        env={name: value for name, value in os.environ.items() if name not in hidden},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "results.json").read_text())


class Story:
    """A sweep and a published model are trained, changed in MLflow, and replayed."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(self.uri)
        common = ["--space", "mlp", "--dataset", "digits"]
        sweep = ["--trials", "5", "--epochs", "3", "--timeout", "none", "--keep-models", "0",
                 "--protect-baselines"]  # fmt: skip
        first = drive(
            folder,
            ["run", *common, *sweep, "--name", "s"],
            ["run", *common, "--baselines-only", "--epochs", "2", "--name", "b"],
        )
        for done in first["commands"]:
            assert done["status"] == 0, done["err"]
        self.runs = {
            run.info.run_name: run.info.run_id
            for run in self.client.search_runs(
                [e.experiment_id for e in self.client.search_experiments()]
            )
        }
        self.complete = self.runs["trial 0 (mlp_512x2)"]
        sampled = [self.runs[f"trial {number}"] for number in range(1, 5)]
        sampled.sort(key=lambda run: self.client.get_run(run).data.tags["sweeps.state"] == "PRUNED")
        self.tampered, *_, self.elsewhere = sampled
        self._tamper()
        before = (folder / "mlflow.db").read_bytes()
        names = ("complete", "tampered", "elsewhere", "baseline", "other mode")
        then = drive(
            folder,
            ["replay", self.complete],
            ["replay", self.tampered[:12]],
            ["replay", self.elsewhere],
            ["replay", self.runs["mlp_512x2"], "--epochs", "1"],
            ["replay", self.complete, "--epochs", "1", "--deterministic"],
        )
        self.done = dict(zip(names, then["commands"], strict=True))
        self.deterministic = then["deterministic"]
        self.unchanged = before == (folder / "mlflow.db").read_bytes()

    def _tamper(self) -> None:
        epochs = read_run(self.uri, self.tampered).epochs
        self.last, self.value = max(epochs), epochs[max(epochs)]["val_loss"]
        later = int(time.time() * 1000) + 1000
        changed = Metric("val_loss", self.value + 2**-40, later, self.last)
        self.client.log_batch(self.tampered, metrics=[changed])
        for name, text in (
            ("sweeps.data_fingerprint", "0" * 64), ("sweeps.version.keras", "3.0.0"),
            ("sweeps.git_dirty", "true"),
        ):  # fmt: skip
            self.client.set_tag(self.elsewhere, name, text)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    return Story(tmp_path_factory.mktemp("replay"))


def test_a_trial_replays_identically(story):
    done = story.done["complete"]
    assert (done["status"], done["err"]) == (0, ""), done
    assert re.findall(r"epoch (\d)/3: identical, val_accuracy 0\.\d{4}", done["out"]) == [*"123"]
    assert "identical: 3 reports, 9 metrics, bit for bit" in done["out"]


def test_a_pruned_trial_replays_what_was_recorded_and_says_what_has_changed(story):
    done = story.done["elsewhere"]
    assert "PRUNED\ntraining  1 of 1 epoch on train" in done["out"]
    for words in (
        "other data: was 000000000000, is d7c82005162b", "keras was 3.0.0, is 3.",
        "uncommitted changes: when it ran",
    ):  # fmt: skip
        assert words in done["err"]
    # The tags were made up, so it is identical nevertheless.
    assert done["status"] == 0 and "identical: 1 report, 9 metrics" in done["out"]


def test_a_published_model_that_trained_on_all_data_has_no_validation(story):
    done = story.done["baseline"]
    assert "1 of 2 epochs on train+validation" in done["out"]
    assert "identical: 1 report, 3 metrics, bit for bit" in done["out"]
    assert done["status"] == 0, done


def test_the_first_difference_is_named_with_its_size(story):
    done, last = story.done["tampered"], story.last
    assert done["status"] == 1
    assert (
        f"first difference: epoch {last}, val_loss: recorded {story.value + 2**-40!r}, replayed "
        f"{story.value!r}, difference -9.09e-13" in done["out"]
    )
    assert f"differing: 1 of {last} report" in done["out"]
    assert "none found" in done["out"]


def test_deterministic_mode_is_a_cause_where_it_was_not_recorded(story):
    done = story.done["other mode"]
    assert "deterministic mode: was off, is on" in done["err"]
    assert done["status"] == 0 or "deterministic mode: was off, is on" in done["out"]


def test_deterministic_mode_reaches_tensorflow_in_a_worker(story):
    assert story.deterministic == [True, False]


def test_nothing_is_written_to_the_store(story):
    assert story.unchanged


def test_what_cannot_be_replayed_is_one_line(story, tmp_path, capsys):
    store = ["--tracking-uri", story.uri]
    for arguments, words in (
        ([story.runs["s"], *store], f"kind 'sweep', .*{story.complete}"),
        (["f" * 32, *store], "There is no run"),
        (["no/id'", *store], "There is no run"),
        ([story.complete], "mlflow.db, which does not exist"),
        ([story.complete, "--tracking-uri", "sqlite:///empty.db"], "without MLflow's tables"),
        ([story.complete, "--tracking-uri", "http://127.0.0.1:9"], "does not answer"),
        ([], "RUN_ID"),
    ):
        (tmp_path / "empty.db").write_bytes(b"")
        assert main(["replay", *arguments]) == 2
        err = capsys.readouterr().err
        assert re.search(words, err) and err.count("\n") == 1, err
    assert not (tmp_path / "mlflow.db").exists()
    assert (tmp_path / "empty.db").read_bytes() == b""


def test_ctrl_c_ends_the_replay(story, monkeypatch, capsys):
    class Interrupted(fake_executor.InlineExecutor):
        def answer(self, job_id, answer):
            signal.raise_signal(signal.SIGINT)

    executor = Interrupted()
    monkeypatch.setattr("sweeps.executors.processes.ProcessExecutor", lambda *_, **__: executor)
    monkeypatch.setattr(replay, "train_job", fake_jobs.recorded_job)
    assert main(["replay", story.complete, "--tracking-uri", story.uri]) == 130
    assert "interrupted after 1 report of 3; first difference: epoch 1" in capsys.readouterr().out
    assert executor.closed and len(executor.stopped) == 1


def test_a_training_that_fails_is_not_identical(story, monkeypatch, capsys):
    monkeypatch.setattr(
        "sweeps.executors.processes.ProcessExecutor",
        lambda *_, **__: fake_executor.InlineExecutor(),
    )
    monkeypatch.setattr(replay, "train_job", fake_jobs.always_raising_job)
    assert main(["replay", story.complete, "--tracking-uri", story.uri]) == 1
    assert "error: the run could not be trained again: " in capsys.readouterr().err


# One job on an executor


def job(executor, job, argument, on_report=lambda message: Decision.GO_ON, interrupts=None):
    return run_job(
        executor, job, argument, Slot(0, 1), "log", on_report, interrupts or Interrupts()
    )


def test_a_job_that_raises_is_an_error_with_its_kind():
    with pytest.raises(JobFailedError, match="EOFError: ran out of input") as caught:
        job(fake_executor.InlineExecutor(), fake_jobs.failing_eof_job, None)
    assert caught.value.kind == "EOFError" and "Traceback" in caught.value.details


def test_an_interrupted_job_is_stopped():
    executor, interrupts = fake_executor.InlineExecutor(), Interrupts()
    interrupts.count = 1
    assert job(executor, fake_jobs.sleeping_job, 5.0, interrupts=interrupts) is None
    assert len(executor.stopped) == 1


# From a stored run to a task


def recorded(space: str = "cnn_blocks", **changes: Any) -> RecordedRun:
    found = get_space(space)
    point = found.baselines[0].params
    params = {p.name: str(point.get(p.name, "inactive")) for p in found.parameters}
    tags = {
        "sweeps.kind": "trial", "sweeps.space": space, "sweeps.data": "digits",
        "sweeps.space_fingerprint": found.fingerprint, "sweeps.data_fingerprint": "d" * 64,
        "sweeps.seed": "7", "sweeps.device": "cpu, 2 threads", "sweeps.state": "COMPLETE",
    }  # fmt: skip
    parent = {"objective": "val_loss", "deterministic": "True", "patience": "2"}
    run = RecordedRun(
        "a" * 32, "trial 0", {**params, "max_epochs": "9"}, tags, {1: {"loss": 0.5}}, parent
    )
    return replace(run, **changes)


@pytest.mark.parametrize("space", sorted(SPACES))
def test_a_recorded_point_is_read_back_exactly(space):
    for point in fake_loop_parts.random_points(get_space(space), 30):
        texts = {p.name: str(point.get(p.name, "inactive")) for p in get_space(space).parameters}
        found = params_of(get_space(space), texts)
        assert found == point
        assert {name: type(value) for name, value in found.items()} == {
            name: type(value) for name, value in point.items()
        }


def test_names_and_values_that_a_store_would_refuse_or_confuse_come_back():
    names = [
        "größe (ü) @1 [x]",
        "a" * 260,
        "max_epochs",
        "train_on",
        "../up",
        "hp/x",
        "a//b",
        "ok/b c",
    ]

    def sample(hp):
        for name in names:
            hp.Choice(name, ["inactive", "'inactive'", "x"])
        with hp.conditional_scope("max_epochs", ["x"]):
            hp.Int("hidden", 1, 3)
        return active_values(hp)

    space = Space("odd", "", sample, None, lambda params, shape: ())
    point = {name: ["inactive", "'inactive'"][i % 2] for i, name in enumerate(names)}
    texts = recorded_params(space.parameters, point)
    assert params_of(space, {**texts, "max_epochs": "9", "train_on": "train"}) == point
    assert len(texts) == len(names) + 1 and texts["hidden"] == "inactive"
    for name in texts:
        _validate_param_name(name)
        assert len(name) <= 250 and name not in ("max_epochs", "train_on")
    assert recorded_name("ok/b c") == "ok/b c" and recorded_name("filters_0") == "filters_0"


def test_a_tag_alone_makes_nobodys_code_run(tmp_path):
    """Whoever can write tags could name any file of this machine."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    name = f"{tmp_path / 'evil.py'}:build"
    source = {"reference": name, "narrowing": [], "input_shape": [8, 8, 1], "num_classes": 10}
    tags = {**RUN.tags, "sweeps.space_source": json.dumps(source)}
    with pytest.raises(InputError, match="name two spaces"):
        recipe_of(replace(RUN, tags=tags))
    tags["sweeps.space"] = "evil-build"
    with pytest.raises(InputError, match="allow it with --space '.*evil.py:build'"):
        recipe_of(replace(RUN, tags=tags))
    ours = {**source, "reference": "mlp"}
    with pytest.raises(InputError, match="fingerprint"):
        recipe_of(replace(RUN, tags={**RUN.tags, "sweeps.space_source": json.dumps(ours)}))
    assert not (tmp_path / "ran").exists()


def test_the_spaces_that_were_swept_here_are_trusted(tmp_path):
    settings = SweepSettings("/home/me/space.py:build", name="s")
    paths = SweepPaths(tmp_path, "s")
    paths.sweep.mkdir(parents=True)
    write_sweep_file(paths.state, SweepFile("u", "finished", settings, "digits", "d", "f"))
    assert swept_spaces(tmp_path) == {"/home/me/space.py:build"}
    assert swept_spaces(tmp_path / "nowhere") == set()


def test_a_task_has_all_that_the_run_was_trained_with(tiny_data):
    run = recorded()
    recipe = recipe_of(run)
    task = recipe.task(tiny_data, "folder", 2, deterministic=True)
    assert task.params == get_space("cnn_blocks").baselines[0].params
    schedule = task.schedule
    assert (schedule.num_epochs, schedule.end_epoch, task.seed) == (9, 2, 7)
    assert schedule.train_on == "train"
    assert task.training.early_stopping is None and task.training.deterministic
    assert not schedule.measure_test
    assert recipe.deterministic and recipe.objective.metric == "val_loss"
    assert recipe.device == Device(None, 2)


@pytest.mark.parametrize(("space", "earlier"), [("cnn_blocks", "cnn"), ("mlp_layers", "mlp")])
def test_a_run_from_before_the_core_spaces_is_a_point_of_what_it_was(space, earlier):
    run = recorded(space)
    before = replace(run, tags={**run.tags, "sweeps.space": earlier})
    assert recipe_of(before) == recipe_of(run) and recipe_of(before).space == space
    source = {"reference": earlier, "narrowing": [], "input_shape": [8, 8, 1], "num_classes": 10}
    narrowed = {**before.tags, "sweeps.space_source": json.dumps(source)}
    assert recipe_of(replace(run, tags=narrowed)).space == space
    assert recipe_of(recorded(earlier)).space == earlier, "one of now"


def test_a_retrained_winner_has_the_span_of_its_schedule():
    params = {**recorded().params, "train_on": "train+validation", "last_epoch": "4"}
    run = recorded(params=params, tags={**recorded().tags, "sweeps.kind": "retrained"})
    recipe = recipe_of(run)
    assert (recipe.train_on, recipe.num_epochs) == ("train+validation", 9)


def test_a_run_of_published_models_names_its_data_in_its_parent():
    tags = {
        k: v for k, v in recorded().tags.items() if "fingerprint" not in k and k != "sweeps.data"
    }
    recipe = recipe_of(recorded(tags=tags, parent_params={"dataset": "mnist", "seed": "0"}))
    assert recipe.data_name == "mnist" and recipe.deterministic is False


def test_a_run_whose_sweep_is_gone_can_be_replayed():
    assert recipe_of(recorded(parent_params=None)).deterministic is None


RUN = recorded()


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (replace(RUN, tags={}), "did not record it"),
        (replace(RUN, tags={**RUN.tags, "sweeps.kind": "finalists"}), "parent of the runs that were"),
        (replace(RUN, epochs={}), r"no recorded epoch to compare with \(COMPLETE\)"),
        (
            replace(RUN, epochs={}, tags={**RUN.tags, "sweeps.duplicate_of": "3"}, related=("b",)),
            "was not trained, because it repeats the point of trial 3. Replay b",
        ),
        (replace(RUN, tags={**RUN.tags, "sweeps.space": "rnn"}), "space 'rnn'; there are cnn, mlp, cnn_blocks"),
        (replace(RUN, tags={**RUN.tags, "sweeps.space_fingerprint": "0"}), "fingerprint 0, here"),
        (replace(RUN, tags={**RUN.tags, "sweeps.seed": "x"}), "sweeps.seed 'x', not a number"),
        (replace(RUN, params={**RUN.params, "num_heads": "4"}), "space 'cnn_blocks' has no parameter 'num_heads'"),
        (replace(RUN, params={**RUN.params, "filters_0": "33"}), "'filters_0' is '33', but the space has"),
        (replace(RUN, params={**RUN.params, "filters_0": "many"}), "'filters_0' is 'many', but the space has"),
        (replace(RUN, params={**RUN.params, "num_convs_3": "1"}), "'num_convs_3' is inactive"),
        (replace(RUN, params={**RUN.params, "filters_0": "inactive"}), "lack filters_0"),
        (replace(RUN, params={**RUN.params, "train_on": "test"}), "train_on 'test'"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_replayed_says_why(run, words):
    with pytest.raises(InputError, match=words):
        recipe_of(run)


@pytest.mark.parametrize(
    ("device", "machine", "slot"),
    [
        ("cpu, 8 threads", CORES, Slot(0, 8)),
        ("cpu, 1 thread", GPUS, Slot(0, 1)),
        ("cpu", CORES, Slot(0, 2)),
        ("gpu 0: NVIDIA B", GPUS, Slot(0, 1, "1")),
        ("gpu 3: NVIDIA Z", GPUS, Slot(0, 1, "0")),
        ("gpu 0: NVIDIA B", CORES, Slot(0, 2)),
    ],
)
def test_the_slot_is_as_much_like_the_recorded_one_as_can_be(device, machine, slot):
    recipe = replace(recipe_of(RUN), device=parse_device(device))
    found, now = slot_like(recipe, machine)
    assert found == slot
    assert (now.gpu is not None) == (slot.gpu is not None)


# Comparison and causes


def test_identical_epochs_have_no_difference():
    metrics = {"loss": 0.1, "val_loss": float("nan"), "epoch_seconds": 3.0}
    comparison = Comparison({1: metrics, 2: metrics})
    for epoch in (1, 2):
        assert comparison.add(epoch, {**metrics, "epoch_seconds": 9.0, "new": 1.0}) == []
    assert comparison.first is None and comparison.extent == "2 reports, 2 metrics"


def test_times_and_figures_of_the_machine_are_not_compared():
    recorded = {"loss": 0.1, "epoch_seconds": 3.0, "system/gpu_utilization_percentage": 50.0}
    comparison = Comparison({1: recorded})
    assert comparison.add(1, {"loss": 0.1, "epoch_seconds": 4.0}) == []
    assert comparison.extent == "1 report, 1 metric"


def test_an_epoch_that_was_never_recorded_is_not_called_identical():
    comparison = Comparison({2: {"loss": 0.1}})
    assert comparison.add(1, {"loss": 0.3}) == []
    assert comparison.add(2, {"loss": 0.1}) == []
    assert comparison.extent == "1 report, 1 metric"


def test_the_last_bit_is_a_difference():
    comparison = Comparison({1: {"loss": 0.1}, 2: {"loss": 0.1, "accuracy": 0.5, "gone": 1.0}})
    assert comparison.add(1, {"loss": 0.1}) == []
    found = comparison.add(2, {"loss": 0.1 + 2**-56, "accuracy": 0.25})
    assert [difference.metric for difference in found] == ["loss", "accuracy", "gone"]
    assert comparison.first == found[0]
    assert found[0].text == (
        "epoch 2, loss: recorded 0.1, replayed 0.10000000000000002, difference +1.39e-17"
    )
    assert found[2].text == "epoch 2, gone: recorded 1.0, not replayed"
    assert comparison.num_differing == 1


TAGS = {
    "sweeps.version.keras": "3.15.1", "sweeps.version.optuna": "5.0", "sweeps.git_dirty": "false",
    "sweeps.version.python": "3.11.7", "mlflow.source.git.commit": "abc",
}  # fmt: skip
THEN = Circumstances("d" * 64, Device(None, 2), False, TAGS)


@pytest.mark.parametrize(
    ("then", "now", "kinds"),
    [
        ({}, {}, []),
        ({}, {"data_fingerprint": "e" * 64}, [CauseKind.DATA]),
        ({}, {"tags": {**TAGS, "sweeps.version.keras": "4"}}, [CauseKind.VERSION]),
        ({}, {"tags": {**TAGS, "sweeps.version.optuna": "6"}}, []),
        ({}, {"tags": {**TAGS, "sweeps.version.python": "3.13.0"}}, [CauseKind.PYTHON]),
        ({}, {"tags": {**TAGS, "mlflow.source.git.commit": "def"}}, [CauseKind.COMMIT]),
        ({}, {"tags": {**TAGS, "sweeps.git_dirty": "true"}}, [CauseKind.DIRTY]),
        ({"tags": {**TAGS, "sweeps.git_dirty": "true"}}, {}, [CauseKind.DIRTY]),
        ({}, {"device": Device(None, 4)}, [CauseKind.THREADS]),
        ({"device": Device(None, None)}, {}, [CauseKind.THREADS]),
        ({"device": Device("NVIDIA A", None)}, {}, [CauseKind.DEVICE]),
        ({}, {"deterministic": True}, [CauseKind.MODE]),
        ({"deterministic": None}, {}, [CauseKind.MODE]),
        (
            {"tags": {**TAGS, "sweeps.retry_reason": "ResourceExhaustedError: OOM"}}, {},
            [CauseKind.MEMORY],
        ),
        ({"tags": {**TAGS, "sweeps.retry_reason": "Died: killed by SIGSEGV"}}, {}, []),
        (
            {"tags": {**TAGS, "sweeps.retry_reason": "X", "sweeps.retry_kind": "out of memory"}},
            {}, [CauseKind.MEMORY],
        ),
        (
            {"tags": {**TAGS, "sweeps.retry_reason": "memory", "sweeps.retry_kind": "crash"}},
            {}, [],
        ),
    ],
)  # fmt: skip
def test_each_cause_is_found_alone(then, now, kinds):
    found = causes(replace(THEN, **then), replace(THEN, **now))
    assert [cause.kind for cause in found] == kinds


def test_a_gpu_that_was_not_deterministic_is_a_cause():
    then = replace(THEN, device=Device("NVIDIA A", None))
    assert [cause.kind for cause in causes(then, then)] == [CauseKind.DETERMINISM]
    sure = replace(then, deterministic=True)
    assert causes(sure, sure) == []


def test_a_report_is_answered_until_the_last_epoch(story, monkeypatch):
    answers: list[Decision] = []

    def job(task: TrialTask, report: Any, slot: Slot) -> None:
        for epoch in (1, 2):
            answers.append(report(TrialReport(0, epoch, {"loss": 0.0, "accuracy": 0.0})))
        raise RuntimeError("enough")

    monkeypatch.setattr(
        "sweeps.executors.processes.ProcessExecutor",
        lambda *_, **__: fake_executor.InlineExecutor(),
    )
    monkeypatch.setattr(replay, "train_job", job)
    options = ["--epochs", "2", "--tracking-uri", story.uri]
    assert main(["replay", story.complete, *options]) == 1
    assert answers == [Decision.GO_ON, Decision.STOP]
