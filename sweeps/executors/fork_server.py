"""How workers start: the server that they are forked from, and what a new process must not inherit.

The server (`multiprocessing`'s forkserver) is one for the whole program. Where it has ended, it is
started again; what it printed last says why it did.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, process, resource_tracker, util
from pathlib import Path

from pipelines.runtime.standard_streams import flush_streams, open_closed_streams
from search_spaces.errors import InputError
from sweeps.executors.credentials import without_credentials

SAFE_PATH = ("PYTHONSAFEPATH", "keras-sweeps")
"""Python heeds the variable whatever its value is; ours says that the user did not set it."""
DRIVERS_SIGNALS = {
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
}
MAX_SOCKET_PATH = 100
"""The path of a socket has 108 bytes on Linux and 104 on macOS."""
SOCKET_NAME = "/pymp-xxxxxxxx/listener-xxxxxxxx"
"""What `multiprocessing` puts behind the temporary folder."""
SHORT_FOLDERS = ("/tmp", "/var/tmp")  # noqa: S108
_starting = threading.Lock()


def ensure_server(preload: str, log: Path) -> None:
    """Has the server run, which imports `preload` once; it prints into `log`.

    Raises:
        InputError: There is no folder for its socket.
    """
    with _starting:
        _choose_socket_folder()
        open_closed_streams()
        with _output_to(log), without_working_folder():
            forkserver.set_forkserver_preload([preload])
            with without_credentials():
                # Starting the tracker unblocks signals, so it must run before they are blocked.
                resource_tracker.ensure_running()
                with signals_blocked():
                    forkserver.ensure_running()


def ensure_tracker(log: Path) -> None:
    """Has the tracker of resources run, which spawned processes need as well."""
    with _starting:
        open_closed_streams()
        with _output_to(log), without_working_folder(), without_credentials():
            resource_tracker.ensure_running()


_LOGGED = re.compile(r"([EIW]\d{4} |[\d-]+ [\d:.]+: [EIW] |WARNING: All log messages before)")
"""What lines of the logs of TensorFlow and its libraries begin with; fatal ones (F) count."""


def server_id() -> int | None:
    """The process of the server; None where there is none."""
    server = getattr(forkserver, "_forkserver", None)
    number = getattr(server, "_forkserver_pid", None)
    return None if number is None else int(number)


def server_has_ended() -> bool:
    """Whether the server was started and runs no more; `multiprocessing` learns of it by itself.

    Only where there is a server: on Linux.
    """
    number = server_id()
    if number is None:
        return False
    try:
        return os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def last_line(log: Path) -> str:
    """The last line that says something, shortened; empty where there is none.

    What TensorFlow logs while it starts (no GPU was found) is not why a process ended.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4_000))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if _says(line)), "")


def _says(line: str) -> bool:
    return bool(line.strip()) and _LOGGED.match(line) is None


def _choose_socket_folder() -> None:
    """Has `multiprocessing` take another temporary folder where the path of TMPDIR is too long.

    Raises:
        InputError: No other one can be written.
    """
    used = process.current_process()._config  # type: ignore[attr-defined]
    folder = tempfile.gettempdir()
    if used.get("tempdir") or len(os.fsencode(folder + SOCKET_NAME)) <= MAX_SOCKET_PATH:
        return
    for short in SHORT_FOLDERS:
        if os.access(short, os.W_OK):
            before, tempfile.tempdir = tempfile.tempdir, short
            try:
                util.get_temp_dir()  # It keeps it, and removes it at the end.
            finally:
                tempfile.tempdir = before
            return
    most = MAX_SOCKET_PATH - len(SOCKET_NAME)
    raise InputError(
        f"The path in TMPDIR must have at most {most} characters, because the workers' sockets lie "
        f"there. Received: {folder}. Set TMPDIR to a folder with a shorter path."
    )


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """A process that is started here never sees Ctrl-C or a polite termination.

    Both reach the whole group of the terminal or the service, also while the server still imports;
    the driver alone decides what becomes of a trial. The mask is inherited; what arrives for the
    driver meanwhile is delivered afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DRIVERS_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def without_working_folder() -> Iterator[None]:
    """Keeps the user's files from being imported as modules of Python while a process starts.

    `multiprocessing` starts it with `-c`, for which the working folder comes first on the path: a
    `signal.py` there would end every worker. Later a worker has the path of its driver.
    """
    name, value = SAFE_PATH
    if os.environ.get(name):
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Lends the file descriptors of output to a file, for a child that inherits them."""
    flush_streams()
    saved = [os.dup(1), os.dup(2)]
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, target):
            os.close(descriptor)
