"""Both executors keep the contract; processes also die, hang and outlive nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import executor_contract
import fake_executor
import fake_jobs
import pytest

from sweeps.executors.base import Raised, Returned, Slot
from sweeps.executors.processes import ProcessExecutor, choose_start_method


class TestInline(executor_contract.ExecutorContract):
    @pytest.fixture
    def executor(self):
        executor = fake_executor.InlineExecutor()
        yield executor
        executor.close()


class TestForkserver(executor_contract.ExecutorContract):
    @pytest.fixture
    def executor(self, tmp_path):
        executor = ProcessExecutor("fake_jobs", tmp_path / "server.log")
        yield executor
        executor.close()


class TestSpawn(executor_contract.ExecutorContract):
    @pytest.fixture
    def executor(self, tmp_path):
        executor = ProcessExecutor("fake_jobs", tmp_path / "server.log", "spawn")
        yield executor
        executor.close()


class TestForkserverWithSpares(executor_contract.ExecutorContract):
    """Every job of the contract runs in a process that was waiting for it."""

    @pytest.fixture
    def executor(self, tmp_path):
        executor = ProcessExecutor("fake_jobs", tmp_path / "server.log", warm_up=fake_jobs.warm_up)
        executor.keep_warm([executor_contract.SLOT])
        yield executor
        executor.close()
        assert executor._spares.process_ids == []


class TestSpawnWithSpares(executor_contract.ExecutorContract):
    @pytest.fixture
    def executor(self, tmp_path):
        log = tmp_path / "server.log"
        executor = ProcessExecutor("fake_jobs", log, "spawn", warm_up=fake_jobs.warm_up)
        executor.keep_warm([executor_contract.SLOT])
        yield executor
        executor.close()


@pytest.fixture
def executor(tmp_path):
    executor = ProcessExecutor("fake_jobs", tmp_path / "server.log")
    yield executor
    executor.close()


@pytest.mark.parametrize(
    ("how", "reason", "killed_by"),
    [
        ("SIGKILL", "killed by signal SIGKILL", "SIGKILL"),
        ("SIGSEGV", "signal SIGSEGV", "SIGSEGV"),
        ("exit", "exit code 7", ""),
    ],
)
def test_a_process_that_dies_is_told_with_its_last_words(
    executor, tmp_path, how, reason, killed_by
):
    executor.start("a", fake_jobs.dying_job, how, Slot(0, 1), str(tmp_path / "log"))
    event = executor_contract.ExecutorContract.wait(executor)
    assert isinstance(event, Raised) and event.died and event.signal == killed_by
    assert reason in event.reason
    if how == "exit":
        assert "last words" in event.details
        assert event.reason.endswith("without a result: last words"), (
            "which the trial is shown with"
        )


def test_a_stopped_process_is_gone(executor, tmp_path):
    executor.start("a", fake_jobs.sleeping_job, 60.0, Slot(0, 1), str(tmp_path / "log"))
    process = executor._jobs["a"][0]
    executor.stop("a")
    assert not process.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_ctrl_c_in_the_terminal_leaves_a_job_to_its_driver(executor, tmp_path):
    executor.start("a", fake_jobs.sleeping_job, 1.0, Slot(0, 1), str(tmp_path / "log"))
    time.sleep(0.5)
    os.kill(executor._jobs["a"][0].pid, signal.SIGINT)
    assert executor_contract.ExecutorContract.wait(executor) == Returned("a", "slept")


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Warm spares

KIND = Slot(0, 1, "0", 2)


@pytest.fixture
def warm(tmp_path):
    made = []

    def make(warm_up) -> ProcessExecutor:
        made.append(ProcessExecutor("fake_jobs", tmp_path / "server.log", warm_up=warm_up))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def result_of(executor, slot, log) -> Any:
    executor.start("a", fake_jobs.own_pid_job, None, slot, str(log))
    event = executor_contract.ExecutorContract.wait(executor)
    assert isinstance(event, Returned)
    return event.value


def test_a_job_runs_in_the_process_that_was_warm_and_another_one_warms_up(warm, tmp_path):
    executor = warm(fake_jobs.warm_up)
    executor.keep_warm([KIND])
    (waiting,) = executor._spares.process_ids
    wait_until(lambda: Path(f"warm-{waiting}").exists())
    # The index of a slot changes nothing of what a process is prepared for.
    assert result_of(executor, replace(KIND, index=5), tmp_path / "log") == waiting
    assert (tmp_path / "log").read_text() == "said by the job\n"
    (next_one,) = executor._spares.process_ids
    assert next_one != waiting
    assert result_of(executor, KIND, tmp_path / "log") == next_one


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_each_executor_has_its_own_variables_whoever_started_the_server(method, tmp_path):
    def seen(value: str) -> tuple[str | None, str | None]:
        executor = ProcessExecutor(
            "fake_jobs", tmp_path / "server.log", method,
            warm_up=fake_jobs.noting_warm_up, environment={"CACHE": value} if value else None,
        )  # fmt: skip
        try:
            executor.keep_warm([KIND])
            (waiting,) = executor._spares.process_ids
            wait_until(lambda: Path(f"warm-{waiting}").exists())
            executor.start("a", fake_jobs.variable_job, "CACHE", KIND, str(tmp_path / "log"))
            return executor_contract.ExecutorContract.wait(executor).value
        finally:
            executor.close()

    assert [seen(""), seen("first"), seen("second")] == [
        (None, None), ("first", "first"), ("second", "second"),
    ]  # fmt: skip
    assert "CACHE" not in os.environ


def test_a_job_on_another_kind_of_slot_starts_cold(warm, tmp_path):
    executor = warm(fake_jobs.warm_up)
    executor.keep_warm([KIND])
    (waiting,) = executor._spares.process_ids
    for slot in (Slot(0, 1, "1", 2), Slot(0, 1, "0", 4), Slot(0, 2, "0", 2), Slot(0, 1)):
        assert result_of(executor, slot, tmp_path / "log") != waiting
    assert executor._spares.process_ids == [waiting]


def test_spares_that_are_not_wanted_any_more_end(warm):
    executor = warm(fake_jobs.warm_up)
    executor.keep_warm([KIND, replace(KIND, gpu="1")])
    first, second = executor._spares.process_ids
    executor.keep_warm([replace(KIND, gpu="1")])
    assert is_gone(first) and executor._spares.process_ids == [second]
    executor.keep_warm(())
    assert is_gone(second)


def test_without_a_warm_up_no_spare_is_kept(executor):
    executor.keep_warm([KIND])
    assert executor._spares.process_ids == []


def test_a_spare_that_died_costs_its_job_nothing_and_is_replaced_once(warm, tmp_path):
    executor = warm(fake_jobs.dying_warm_up)
    executor.keep_warm([KIND])
    for num in (1, 2, 2):
        wait_until(lambda n=num: len(list(Path.cwd().glob("died-*"))) == n)
        wait_until(lambda: all(map(is_gone, executor._spares.process_ids)))
        assert isinstance(result_of(executor, KIND, tmp_path / "log"), int)
    assert executor._spares.process_ids == []


def test_a_warm_up_that_fails_leaves_the_reason_to_the_job(warm, tmp_path):
    executor = warm(fake_jobs.raising_warm_up)
    executor.keep_warm([KIND])
    (waiting,) = executor._spares.process_ids
    assert result_of(executor, KIND, tmp_path / "log") == waiting
    assert "no device here" in (tmp_path / "server.log").read_text()


def test_ctrl_c_in_the_terminal_leaves_a_spare_to_its_driver(warm, tmp_path):
    executor = warm(fake_jobs.warm_up)
    executor.keep_warm([KIND])
    (waiting,) = executor._spares.process_ids
    wait_until(lambda: Path(f"warm-{waiting}").exists())
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(waiting, number)
    assert result_of(executor, KIND, tmp_path / "log") == waiting


def test_no_job_and_no_spare_outlives_its_driver(tmp_path):
    code = (
        "import sys, time, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "import fake_jobs\n"
        "from sweeps.executors.base import Slot\n"
        "from sweeps.executors.processes import ProcessExecutor\n"
        "if __name__ == '__main__':\n"
        "    log = pathlib.Path('server.log')\n"
        "    executor = ProcessExecutor('fake_jobs', log, warm_up=fake_jobs.warm_up)\n"
        "    executor.keep_warm([Slot(0, 1), Slot(1, 2)])\n"
        "    executor.start('a', fake_jobs.pid_job, 'pid', Slot(0, 1), 'log')\n"
        "    pids = [executor.process_id('a'), *executor._spares.process_ids]\n"
        "    pathlib.Path('pids.new').write_text(' '.join(map(str, pids)))\n"
        "    pathlib.Path('pids.new').rename('pids')\n"
        "    time.sleep(60)\n"
    )
    Path("driver.py").write_text(code)
    driver = subprocess.Popen([sys.executable, "driver.py", str(Path(fake_jobs.__file__).parent)])
    wait_until(lambda: Path("pids").exists() and Path("pid").exists())
    pids = [int(part) for part in Path("pids").read_text().split()]
    assert len(pids) == 3
    wait_until(lambda: len(list(Path.cwd().glob("warm-*"))) == 3)
    driver.kill()
    driver.wait()
    wait_until(lambda: all(map(is_gone, pids)))


CREDENTIALS = {
    "MLFLOW_TRACKING_USERNAME": "sweeper",
    "MLFLOW_TRACKING_PASSWORD": "only-the-driver",
    "PGPASSWORD": "only-the-driver",
    "MLFLOW_TRACKING_URI": "http://me:only-the-driver@127.0.0.1:1",
    "HF_TOKEN": "asked-for",
    "AWS_SECRET_ACCESS_KEY": "only-the-driver",
    "DATABASE_URL": "postgresql://me:slash/only#the-driver@h/d",
}


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_have_nothing_to_sign_in_with(method, tmp_path):
    """In a process of its own: a server of workers that runs already has its environment."""
    code = (
        "import fake_jobs, os, sys\n"
        "from pathlib import Path\n"
        "from sweeps.executors.base import Slot\n"
        "from sweeps.executors.credentials import passed\n"
        "from sweeps.executors.processes import ProcessExecutor\n"
        "if __name__ == '__main__':\n"
        "    executor = ProcessExecutor('fake_jobs', Path('server.log'), sys.argv[1],\n"
        "                               environment=passed(['HF_TOKEN']))\n"
        "    executor.start('job', fake_jobs.environment_job, None, Slot(0, 1), 'job.log')\n"
        "    (event,) = executor.events(60)\n"
        "    me = os.getpid()\n"
        "    place = Path(f'/proc/{me}/task/{me}/children')\n"
        "    children = place.read_text().split() if place.exists() else []\n"
        "    said = [Path(f'/proc/{child}/environ').read_bytes() for child in children]\n"
        "    executor.close()\n"
        "    num = sum(b'only-the-driver' in text for text in said)\n"
        "    print(event.value, os.environ['PGPASSWORD'], num)\n"
    )
    (tmp_path / "driver.py").write_text(code)
    paths = f"{Path(fake_jobs.__file__).parent}:{Path(__file__).parents[3]}"
    environment = {
        **os.environ,
        **CREDENTIALS,
        "PYTHONPATH": paths,
        "SWEEPS_STORAGE": "sqlite:///o.db",
    }
    done = subprocess.run(
        [sys.executable, "driver.py", method],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    *found, num = done.stdout.split()
    assert found == ["SWEEPS_STORAGE", "HF_TOKEN", "only-the-driver"], done.stderr
    if method == "forkserver":  # What is spawned begins with them, and drops them before a job.
        assert num == "0", "nor had any process that was started beside them"


@pytest.mark.parametrize(
    ("method", "backend"),
    [("forkserver", "module://that_is.not_installed"), ("spawn", "unknown")],
)
def test_workers_draw_into_files_whatever_a_notebook_names(method, backend, tmp_path):
    """The server of workers, too: it imports Keras, which imports Matplotlib."""
    code = (
        "import fake_jobs, os, sys\n"
        "from pathlib import Path\n"
        "from sweeps.executors.base import Slot\n"
        "from sweeps.executors.processes import ProcessExecutor\n"
        "preload = 'sweeps.workers.preload' if sys.argv[1] == 'forkserver' else 'fake_jobs'\n"
        "executor = ProcessExecutor(preload, Path('server.log'), sys.argv[1])\n"
        "executor.start('job', fake_jobs.matplotlib_job, None, Slot(0, 1), 'job.log')\n"
        "(event,) = executor.events(100)\n"
        "executor.close()\n"
        "print(event.value, os.environ['MPLBACKEND'])\n"
    )
    (tmp_path / "driver.py").write_text(code)
    paths = f"{Path(fake_jobs.__file__).parent}:{Path(__file__).parents[3]}"
    done = subprocess.run(
        [sys.executable, "driver.py", method],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths, "MPLBACKEND": backend},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["agg", backend], done.stderr


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_command_leaves_no_temporary_files(method, tmp_path):
    """Neither those of a job, which ends without clearing up, nor its own."""
    code = (
        "import fake_jobs, sys\n"
        "from pathlib import Path\n"
        "from sweeps.cli.main import _leave\n"
        "from sweeps.executors.base import Slot\n"
        "from sweeps.executors.processes import ProcessExecutor\n"
        "if __name__ == '__main__':\n"
        "    executor = ProcessExecutor('fake_jobs', Path('server.log'), sys.argv[1])\n"
        "    executor.start('job', fake_jobs.littering_job, None, Slot(0, 1), 'job.log')\n"
        "    (event,) = executor.events(60)\n"
        "    print(Path(event.value).exists())\n"
        "    executor.close()\n"
        "    _leave(0)\n"
    )
    (tmp_path / "driver.py").write_text(code)
    # The server's socket lies there, whose path must be short.
    temporary = Path(tempfile.mkdtemp())
    paths = f"{Path(fake_jobs.__file__).parent}:{Path(__file__).parents[3]}"
    done = subprocess.run(
        [sys.executable, "driver.py", method],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(temporary)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr
    temporary.rmdir()  # It is empty.


PROGRAM = """
import sys
from pathlib import Path

import fake_jobs

from sweeps.executors.base import Slot
from sweeps.executors.processes import ProcessExecutor

executor = ProcessExecutor("json", Path("server.log"), sys.argv[1])
executor.start("a", fake_jobs.own_pid_job, None, Slot(0, 1), "a.log")
print([type(event).__name__ for event in executor.events(30)])
executor.start("b", fake_jobs.sleeping_job, 100.0, Slot(0, 1), "b.log")
"""


def what_it_prints(folder: Path, program: str, method: str) -> str:
    """On standard output; it must end well, and say nothing on standard error."""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, program, method], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": paths}, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_program_ends_while_a_job_runs(tmp_path, method):
    """Also one whose script starts jobs without asking for its `__name__`."""
    (tmp_path / "program.py").write_text(PROGRAM)
    assert what_it_prints(tmp_path, "program.py", method) == "['Returned']\n"


def test_linux_forks_from_a_server_and_macos_spawns(monkeypatch):
    assert (choose_start_method("linux"), choose_start_method("darwin")) == ("forkserver", "spawn")
    for asked, method in (("fork", "forkserver"), ("forkserver", "forkserver"), ("spawn", "spawn")):
        monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none, m=asked: m)
        assert (choose_start_method("linux"), choose_start_method("darwin")) == (method, "spawn")


SHADOWED = ("signal", "queue", "random", "selectors", "struct", "json", "types")
"""Modules of Python that a start of a worker imports."""
START = """
import sys
from pathlib import Path

import fake_jobs

from sweeps.executors.base import Slot
from sweeps.executors.processes import ProcessExecutor

executor = ProcessExecutor("fake_jobs", Path("server.log"), sys.argv[1])
executor.start("a", fake_jobs.started_job, None, Slot(0, 1), "a.log")
print(*(event.value for event in executor.events(30)))
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_the_first_worker_starts_with_signals_blocked_and_without_the_users_files(tmp_path, method):
    """What lies in the working folder of a command is no module of Python's."""
    for name in SHADOWED:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('a user has a {name}.py')\n")
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "program.py").write_text(START)
    assert what_it_prints(tmp_path, "program/program.py", method) == "(True, False)\n"


WORDS = """
import sys
from pathlib import Path

import fake_jobs

from sweeps.executors.base import Slot
from sweeps.executors.processes import ProcessExecutor

executor = ProcessExecutor(sys.argv[1], Path("server.log"), "forkserver")
try:
    executor.start("a", fake_jobs.own_pid_job, None, Slot(0, 1), "a.log")
    print(type(executor.events(30)[0]).__name__)
except OSError as error:
    print(f"{type(error).__name__}: {error}")
"""


def test_a_server_that_ends_is_told_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)  # A server of Python 3.11 has this path only.
    (tmp_path / "program.py").write_text(WORDS)
    (tmp_path / "broken.py").write_text(
        "import atexit, os\n"
        "noise = 'E0000 00:00:1.2 3 cuda_platform.cc:52] failed call to cuInit'\n"
        "atexit.register(os.write, 2, f'{noise}\\n'.encode())\n"
        "raise ValueError('no floatx like that')"
    )
    said = what_it_prints(tmp_path, "program.py", "broken")
    assert said == (
        "ConnectionError: the process that starts workers has ended: ValueError: no floatx like "
        "that\n"
    )


def test_a_temporary_folder_with_a_long_path_is_no_place_for_the_servers_socket(
    tmp_path, monkeypatch
):
    (tmp_path / "program.py").write_text(WORDS)
    long = tmp_path / ("t" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    assert what_it_prints(tmp_path, "program.py", "json") == "Returned\n"
    assert not list(long.iterdir())
