"""Both executors keep the contract; processes also die, hang and outlive nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import contracts
import fakes
import pytest

from sweeps.executors.base import Raised, Returned, Slot
from sweeps.executors.processes import ProcessExecutor


class TestInline(contracts.ExecutorContract):
    @pytest.fixture
    def executor(self):
        executor = fakes.InlineExecutor()
        yield executor
        executor.close()


class TestForkserver(contracts.ExecutorContract):
    @pytest.fixture
    def executor(self, tmp_path):
        executor = ProcessExecutor("fakes", tmp_path / "server.log")
        yield executor
        executor.close()


class TestSpawn(contracts.ExecutorContract):
    @pytest.fixture
    def executor(self, tmp_path):
        executor = ProcessExecutor("fakes", tmp_path / "server.log", "spawn")
        yield executor
        executor.close()


@pytest.fixture
def executor(tmp_path):
    executor = ProcessExecutor("fakes", tmp_path / "server.log")
    yield executor
    executor.close()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("SIGKILL", "killed by signal SIGKILL"),
        ("SIGSEGV", "signal SIGSEGV"),
        ("exit", "exit code 7"),
    ],
)
def test_a_process_that_dies_is_told_with_its_last_words(executor, tmp_path, how, reason):
    executor.start("a", fakes.dying_job, how, Slot(0, 1), str(tmp_path / "log"))
    event = contracts.ExecutorContract.wait(executor)
    assert isinstance(event, Raised) and event.kind == "Died"
    assert reason in event.reason
    if how == "exit":
        assert "last words" in event.details


def test_a_stopped_process_is_gone(executor, tmp_path):
    executor.start("a", fakes.sleeping_job, 60.0, Slot(0, 1), str(tmp_path / "log"))
    process = executor._jobs["a"][0]
    executor.stop("a")
    assert not process.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_ctrl_c_in_the_terminal_leaves_a_job_to_its_driver(executor, tmp_path):
    executor.start("a", fakes.sleeping_job, 1.0, Slot(0, 1), str(tmp_path / "log"))
    time.sleep(0.5)
    os.kill(executor._jobs["a"][0].pid, signal.SIGINT)
    assert contracts.ExecutorContract.wait(executor) == Returned("a", "slept")


def test_no_job_outlives_its_driver(tmp_path):
    code = (
        "import sys, time, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "import fakes\n"
        "from sweeps.executors.base import Slot\n"
        "from sweeps.executors.processes import ProcessExecutor\n"
        "if __name__ == '__main__':\n"
        "    executor = ProcessExecutor('fakes', pathlib.Path('server.log'))\n"
        "    executor.start('a', fakes.pid_job, 'pid', Slot(0, 1), 'log')\n"
        "    time.sleep(60)\n"
    )
    Path("driver.py").write_text(code)
    driver = subprocess.Popen([sys.executable, "driver.py", str(Path(fakes.__file__).parent)])
    deadline = time.monotonic() + 30
    while not (Path("pid").exists() and Path("pid").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pid = int(Path("pid").read_text())
    driver.kill()
    driver.wait()
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the job outlived its driver")
