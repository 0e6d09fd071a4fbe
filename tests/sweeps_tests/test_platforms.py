"""What Linux alone has: where it is used, and what happens elsewhere (simulated; see docs)."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from search_spaces.errors import InputError
from sweeps.executors.failures import kernel_memory_kills
from sweeps.resources.machine import detect_machine
from sweeps.settings import SweepSettings
from sweeps.setup.resume import sweep_to_resume
from sweeps.state.sweep_file import RUNNING, SweepFile, find_sweep, write_sweep_file
from tracking.mlflow_server.process import MlflowServer

ROOT = Path(__file__).parents[2]
GUARDED = {
    ("pipelines/runtime/compiled_programs.py", "/proc/cpuinfo"),
    ("pipelines/runtime/compiled_programs.py", "/proc/driver/nvidia/gpus"),
    ("sweeps/cluster/node_memory.py", "/sys/fs/cgroup"),
    ("sweeps/executors/failures.py", "/proc/vmstat"),
    ("sweeps/executors/fork_server.py", "waitid"),
    ("sweeps/resources/machine.py", "/sys/fs/cgroup/memory.max"),
    ("tracking/mlflow_server/process.py", "prctl"),
}
"""Each has a way without it, which is tested here or below `if sys.platform == "linux"`."""
LINUX_NAMES = {
    "copy_file_range", "epoll", "eventfd", "getrandom", "memfd_create", "pidfd_open",
    "posix_fallocate", "prctl", "sched_getaffinity", "sched_setaffinity", "setns", "sigtimedwait",
    "sigwaitinfo", "splice", "unshare", "waitid", "SIGRTMAX", "SIGRTMIN",
}  # fmt: skip


def test_what_linux_alone_has_is_used_where_it_is_known_to_be():
    found = set()
    for package in ("search_spaces", "pipelines", "tracking", "sweeps"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                name = getattr(node, "attr", None)
                text = node.value if isinstance(node, ast.Constant) else None
                if name in LINUX_NAMES:
                    found.add((path.relative_to(ROOT).as_posix(), name))
                if isinstance(text, str) and text.startswith(("/proc", "/sys", "/dev/shm")):
                    found.add((path.relative_to(ROOT).as_posix(), text))
    assert found == GUARDED


@pytest.fixture
def without_linux_files(monkeypatch):
    """Neither /proc nor control groups, and no affinity, as on macOS."""
    original = Path.read_text

    def read_text(path: Path, *arguments, **options) -> str:
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(path)
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setenv("PATH", "")  # No nvidia-smi.


# joblib says so on Linux alone, where affinity ought to be there.
without_affinity = pytest.mark.filterwarnings("ignore:Failed to inspect CPU affinity")


@without_affinity
def test_the_machine_is_known_without_control_groups(without_linux_files):
    machine = detect_machine()
    assert machine.num_cores >= 1 and machine.gpus == ()
    assert machine.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@without_affinity
def test_a_system_that_does_not_tell_its_memory_counts_as_small(without_linux_files, monkeypatch):
    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert detect_machine().memory_bytes == 8 * 2**30


def test_kills_for_want_of_memory_are_unknown_without_proc(without_linux_files):
    assert kernel_memory_kills() == 0


@pytest.mark.parametrize("error", [PermissionError, ProcessLookupError])
def test_a_server_whose_processes_have_all_ended_has_stopped(monkeypatch, error):
    """macOS: EPERM for a group of zombies; Linux: the group is still there or it is gone."""

    def refuse(group: int, number: int) -> None:
        raise error

    monkeypatch.setattr(os, "killpg", refuse)
    ended = SimpleNamespace(pid=2**22, poll=lambda: 0, wait=lambda: 0)
    server = MlflowServer.__new__(MlflowServer)
    server._process = ended
    server._stop()
    assert server._process is None


def test_a_name_that_differs_in_case_is_another_sweep(monkeypatch, tmp_path):
    """Where the file system ignores case, a sweep's file is found under every spelling."""
    folder = tmp_path / "sweeps" / "nightly"
    folder.mkdir(parents=True)
    settings = SweepSettings(work_dir=str(tmp_path), space="mlp", dataset="digits", name="nightly")
    write_sweep_file(folder / "sweep.json", SweepFile("u", RUNNING, settings, "digits", "d", "s"))
    assert find_sweep(tmp_path, "nightly").name == "nightly"
    resumed = sweep_to_resume(settings, {"name"}, resume=False)
    assert resumed is not None and resumed.settings.name == "nightly"

    def lowered(path: Path) -> Path:
        below = path.relative_to(tmp_path) if path.is_relative_to(tmp_path) else None
        return path if below is None else tmp_path / str(below).lower()

    for name in ("exists", "stat", "read_text", "open"):
        original = getattr(Path, name)
        monkeypatch.setattr(
            Path, name, lambda path, *a, _original=original, **k: _original(lowered(path), *a, **k)
        )
    assert (tmp_path / "sweeps" / "NIGHTLY" / "sweep.json").exists()
    with pytest.raises(InputError, match=r"no sweep 'NIGHTLY' in .*\. There are: nightly\."):
        find_sweep(tmp_path, "NIGHTLY")
    other = SweepSettings(work_dir=str(tmp_path), space="mlp", dataset="digits", name="NIGHTLY")
    assert sweep_to_resume(other, {"name"}, resume=False) is None
