"""The trial in containers, with an engine that runs nothing: what it removes, and how it ends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER, FAKE = ROOT / "docker", ROOT / "tests" / "support" / "drivers" / "fake_engine.py"
THEIRS = {
    "containers": ["precious", "my-keras-sweeps-try-copy", "keras-sweeps-trying"],
    "pods": ["pod_keras-sweeps-trying", "pod_keras-sweeps"],
    "volumes": ["precious", "my-keras-sweeps-try"],
    "networks": ["podman", "not-keras-sweeps-try"],
}
THEIR_IMAGES = {"nameless-theirs": "", "nameless-of-their-own-build": "", "debian": ""}
OURS = {
    "containers": ["keras-sweeps-try-mlflow", "keras-sweeps-try_sweep-cpu_tmp1"],
    "pods": ["pod_keras-sweeps-try"],
    "volumes": ["keras-sweeps-try_artifacts"],
    "networks": ["keras-sweeps-try_default"],
}
# What it would ask the containers themselves, and the pauses.
BODY = """
import sys
sys.path.insert(0, {docker!r})
import try_stack, trial.images
trial.images._pip_settings = list  # Two starts of pip.
try_stack._status = lambda url: {status}
try_stack.time.sleep = lambda seconds: None
sys.exit(try_stack.main())
"""


class Trial:
    """A machine with a made-up engine, and the trial on it."""

    def __init__(self, folder: Path, *programs: str) -> None:
        self.folder, self._state = folder, folder / "engine.json"
        (folder / "bin").mkdir()
        (folder / "tmp").mkdir()
        for name in programs:
            script = folder / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$0" "$@"\n')
            script.chmod(0o755)
        self.write(
            images=THEIR_IMAGES, registry=True, fails={}, asked=[],
            **{kind: [*THEIRS[kind], *OURS[kind]] for kind in THEIRS},
        )  # fmt: skip

    def write(self, **values) -> None:
        self._state.write_text(json.dumps({**self.state, **values}))

    @property
    def state(self) -> dict:
        return json.loads(self._state.read_text()) if self._state.exists() else {}

    def start(self, *options: str, status: str = "200") -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "HOME": str(self.folder),
            "FAKE_ENGINE": str(self._state), "TMPDIR": str(self.folder / "tmp"),
        }  # fmt: skip
        code = BODY.format(docker=str(DOCKER), status=status)
        return subprocess.Popen(
            [sys.executable, "-c", code, *options], cwd=self.folder, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *options: str, status: str = "200") -> tuple[int, str, str]:
        process = self.start(*options, status=status)
        out, error = process.communicate(timeout=120)
        return process.returncode, out, error

    def left(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder / "tmp"))
            for path in (self.folder / "tmp").rglob("*")
            if path.is_file()
        )


@pytest.fixture
def trial(tmp_path) -> Trial:
    return Trial(tmp_path, "podman", "podman-compose")


def assert_only_theirs_is_left(trial: Trial) -> None:
    state = trial.state
    assert {kind: state[kind] for kind in THEIRS} == THEIRS
    assert state["images"] == THEIR_IMAGES


def test_everything_of_its_own_is_removed_and_nothing_else(trial):
    status, out, error = trial.run()
    assert (status, error) == (0, ""), out + error
    rows = [line.split(" s  ")[1] for line in out.splitlines() if " s  " in line]
    assert len(rows) == 10 and not [row for row in rows if "FAILED" in row]
    assert "it ended with status 1, and was resumed to its end" in rows
    assert "10 probabilities" in rows
    assert_only_theirs_is_left(trial)
    assert trial.left() == []
    asked = [" ".join(words) for words in trial.state["asked"]]
    assert not [line for line in asked if "precious" in line]
    builds = [line for line in asked if " build " in line]
    assert builds and all("TRIAL=keras-sweeps-try" in line for line in builds)


def test_images_that_were_there_before_stay(trial):
    before = {"docker.io/library/python:3.11.14-slim-bookworm": ""}
    trial.write(images={**THEIR_IMAGES, **before})
    assert trial.run()[0] == 0
    assert trial.state["images"] == {**THEIR_IMAGES, **before}
    pulled = [words[-1] for words in trial.state["asked"] if words[1] == "pull"]
    assert len(pulled) == 1 and "postgres" in pulled[0]


def test_the_image_for_gpus_is_built_when_it_is_asked_for(trial):
    status, out, _ = trial.run("--gpu")
    assert status == 0 and "7.1 GB; --help and pip check hold" in out
    assert_only_theirs_is_left(trial)
    trial.write(fails={"pip check": 1})
    status, out, _ = trial.run("--gpu")
    assert status == 1 and "image gpu" in out and "FAILED" in out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fails": {"build": 1}}, "ended with 1: Error: build fails"),
        ({"ended": 137}, "the second sweep ended with status 137, not 0 or 1"),
        ({"said": {"run first": "http://mlflow:5000/#/experiments/1/runs"}}, "no link that a browser"),
        ({"said": {"run first": "$PUBLIC/#/experiments/1/runs\n3 complete"}}, "4 trials should be"),
        ({"said": {"doctor second": "9 trials, 9 runs: all agree"}}, "second should have 10 trials"),
        ({"said": {"predict": "{not JSON}"}}, "JSONDecodeError"),
        ({"said": {"predict": '{"predictions": [{"probabilities": [1]}]}'}}, "1 probabilities"),
    ],
)  # fmt: skip
def test_a_step_that_fails_is_a_row_and_leaves_the_log_alone(trial, change, words):
    trial.write(**change)
    status, out, error = trial.run()
    assert status == 1 and error == ""
    (row,) = [line for line in out.splitlines() if "FAILED" in line]
    assert words in row
    assert_only_theirs_is_left(trial)
    (log,) = trial.left()
    assert log.endswith("output.log") and f"what was printed: {trial.folder / 'tmp' / log}" in out


def test_a_server_that_does_not_answer_is_a_row(trial):
    status, out, error = trial.run(status="(_ for _ in ()).throw(ConnectionResetError('reset'))")
    assert status == 1 and error == ""
    assert "FAILED: ConnectionResetError: reset" in out
    assert_only_theirs_is_left(trial)


def test_docker_without_a_registry_says_who_can(tmp_path):
    trial = Trial(tmp_path, "docker")
    trial.write(registry=False, pods=THEIRS["pods"])  # Docker has none.
    status, out, _ = trial.run()
    assert status == 1 and "without a registry take --engine podman" in out
    assert_only_theirs_is_left(trial)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_takes_everything_down_first(trial, number):
    script = trial.folder / "bin" / "podman"
    script.write_text(script.read_text().replace("exec", 'case "$1" in pull) sleep 2;; esac\nexec'))
    process = trial.start()
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("base images"):
            break
    time.sleep(0.5)
    os.kill(process.pid, number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in out
    assert_only_theirs_is_left(trial)
    assert len(trial.left()) == 1, "the log"


def test_two_trials_would_remove_each_others(trial):
    with (Path(trial.folder) / "tmp" / "keras-sweeps-try.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, out, error = trial.run()
    assert status == 2 and out == "" and error.count("\n") == 1
    assert "Another trial runs on this machine" in error
    assert [words[1:] for words in trial.state["asked"]] == [["info"], ["version"]]


@pytest.mark.parametrize(
    ("engine", "fails"),
    [("docker", "info"), ("docker", "compose version"), ("podman", "info"), ("podman", "version")],
)
def test_without_compose_it_is_refused_before_anything_is_built(tmp_path, engine, fails):
    trial = Trial(tmp_path, "docker", "podman", "podman-compose")
    trial.write(fails={fails: 1})
    status, out, error = trial.run("--engine", engine)
    assert status == 2 and out == "" and error.count("\n") == 1
    assert f"{engine} must be installed, with Compose, and must answer." in error
    assert {words[-1] for words in trial.state["asked"]} <= {"info", "version"}
