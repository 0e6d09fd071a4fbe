"""Jobs as processes forked from a preloaded server: isolation without the import's ten seconds.

The server (`multiprocessing`'s forkserver) imports `sweeps.workers.preload` once and never runs
TensorFlow; each job is a child forked from it. On macOS, whose system libraries do not survive a
fork, and where a program asks for it, jobs are spawned and import for themselves.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pipelines.runtime.standard_streams import flush_streams
from pipelines.runtime.surroundings import SIZES, settle_surroundings
from sweeps.executors.base import DIED, Event, Job, Raised, Reported, Returned, Slot
from sweeps.executors.credentials import drop_credentials
from sweeps.executors.fork_server import (
    DRIVERS_SIGNALS,
    SAFE_PATH,
    ensure_server,
    ensure_tracker,
    last_line,
    server_has_ended,
    server_id,
    signals_blocked,
    without_working_folder,
)
from sweeps.executors.warm_processes import Spares, WarmUp

STOP_SECONDS = 3.0
LOG_TAIL_CHARACTERS = 4_000

StartMethod = Literal["forkserver", "spawn"]


def choose_start_method(platform: str = sys.platform) -> StartMethod:
    """How workers start here.

    `multiprocessing.set_start_method("spawn")` is heeded, and is how a sweep on Linux starts its
    workers as one on macOS does. A fork of the driver itself, with its threads, is never made.
    """
    asked = multiprocessing.get_start_method(allow_none=True)
    return "forkserver" if platform.startswith("linux") and asked != "spawn" else "spawn"


class ProcessExecutor:
    """Runs each job in a process of its own.

    Args:
        preload: module that the server imports before the first fork.
        server_log: file that takes what the server prints.
        start_method: None for what `choose_start_method` says.
        warm_up: what a spare process does before its job comes; without it none is kept.
        environment: variables that each process has beside those of the server, which may have
            been started for another executor.
    """

    def __init__(
        self,
        preload: str,
        server_log: Path,
        start_method: StartMethod | None = None,
        *,
        warm_up: WarmUp | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = dict(environment or {})
        method = start_method or choose_start_method()
        self._context: Any = multiprocessing.get_context(method)
        self._jobs: dict[str, tuple[Any, connection.Connection, str]] = {}
        self._warm_up, self._server_log = warm_up, str(server_log)
        # Jobs end without clearing up. Not in the sweep's folder: a socket's path must be short.
        self._scratch = tempfile.mkdtemp(prefix="keras-sweeps-")
        self._spares = Spares(self._spawn_spare)
        _open.add(self)
        _close_at_exit()
        self._preload = preload if method == "forkserver" else None
        if self._preload is not None:
            ensure_server(self._preload, server_log)
        else:
            ensure_tracker(server_log)

    def start(self, job_id: str, job: Job, argument: Any, slot: Slot, log_path: str) -> None:
        """Starts a job.

        Raises:
            ValueError: A job of that id is running.
        """
        if job_id in self._jobs:
            raise ValueError(f"A job's id must be unique among running jobs. Received: {job_id!r}.")
        process, channel = self._warm(job, argument, slot, log_path) or self._spawn(
            _child_main, log_path, job, argument, slot
        )
        self._jobs[job_id] = (process, channel, log_path)

    def _spawn(self, main: Any, *arguments: Any) -> tuple[Any, connection.Connection]:
        """Starts a process; returns it with our end of its channel."""
        ours, theirs = self._context.Pipe()
        begin = _Begin(self._scratch, self._environment)
        process = self._context.Process(target=main, args=(theirs, begin, *arguments))
        # A job that the script itself defines is found there only.
        of_main = any(getattr(found, "__module__", "") == "__main__" for found in arguments)
        main_or_not = contextlib.nullcontext() if of_main else _without_main()
        if self._preload is not None and server_has_ended():
            ensure_server(self._preload, Path(self._server_log))
        try:
            with signals_blocked(), without_working_folder(), main_or_not:
                process.start()
        except (EOFError, ConnectionError) as error:
            raise self._server_ended() from error
        finally:
            theirs.close()
        return process, ours

    def _server_ended(self) -> ConnectionError:
        """The error for a server that ended instead of starting a process."""
        said = last_line(Path(self._server_log))
        return ConnectionError(f"the process that starts workers has ended: {said or 'no output'}")

    def _spawn_spare(self, slot: Slot) -> tuple[Any, connection.Connection]:
        return self._spawn(_spare_main, self._server_log, self._warm_up, slot)

    def _warm(
        self, job: Job, argument: Any, slot: Slot, log_path: str
    ) -> tuple[Any, connection.Connection] | None:
        """A spare that has been given the job; None where none waits for such a slot."""
        spare = self._spares.take(slot)
        if spare is None:
            return None
        try:
            spare[1].send((log_path, job, argument, slot))
        except OSError:  # It died this very moment.
            spare[1].close()
            return None
        return spare

    def keep_warm(self, slots: Sequence[Slot]) -> None:
        """One process waits, warm, for a job on each of these slots; others end."""
        self._spares.want(slots if self._warm_up is not None else ())

    @property
    def channels(self) -> list[connection.Connection]:
        """What can be read once something has happened, for who waits for other things, too."""
        return [channel for _, channel, _ in self._jobs.values()]

    @property
    def job_ids(self) -> set[str]:
        """The jobs that run."""
        return set(self._jobs)

    def events(self, timeout_seconds: float) -> list[Event]:
        """What has happened; waits at most so long for the first event."""
        by_channel = {channel: job_id for job_id, (_, channel, _) in self._jobs.items()}
        ready = connection.wait(list(by_channel), timeout_seconds)
        return [self._read(by_channel[channel]) for channel in ready]  # type: ignore[index]

    def answer(self, job_id: str, answer: Any) -> None:
        """Sends the answer to a job's latest report; `events` reports a job that died meanwhile."""
        with contextlib.suppress(OSError):
            self._jobs[job_id][1].send(answer)

    def process_id(self, job_id: str) -> int | None:
        """The process of a running job; None for any other."""
        job = self._jobs.get(job_id)
        return None if job is None else int(job[0].pid)

    def stop(self, job_id: str) -> None:
        """Ends a job at once; no event follows."""
        process, channel, _ = self._jobs.pop(job_id)
        channel.close()
        # Nothing that a job writes needs an orderly end: the driver is the only writer.
        process.kill()
        process.join(STOP_SECONDS)

    def close(self) -> None:
        """Ends all jobs, those started last first, and spares; removes their temporary files."""
        self._spares.close()
        for job_id in reversed(list(self._jobs)):
            self.stop(job_id)
        shutil.rmtree(self._scratch, ignore_errors=True)
        _open.discard(self)

    def _read(self, job_id: str) -> Event:
        process, channel, log_path = self._jobs[job_id]
        try:
            kind, payload = channel.recv()
        except (EOFError, OSError):
            process.join()
            self._forget(job_id)
            return _death(job_id, process.exitcode, log_path)
        if kind == "report":
            return Reported(job_id, payload)
        self._forget(job_id)
        process.join(STOP_SECONDS)
        if process.is_alive():
            process.kill()
        if kind == "return":
            return Returned(job_id, payload)
        return Raised(job_id, *payload)

    def _forget(self, job_id: str) -> None:
        self._jobs.pop(job_id)[1].close()


def _death(job_id: str, exitcode: int | None, log_path: str) -> Raised:
    killed_by = ""
    if exitcode is not None and exitcode < 0:
        try:
            killed_by = signal.Signals(-exitcode).name
        except ValueError:
            killed_by = str(-exitcode)
        reason = f"the process was killed by signal {killed_by}"
    else:
        said = last_line(Path(log_path))
        reason = f"the process ended with exit code {exitcode} without a result"
        reason += f": {said}" if said else ""
    return Raised(job_id, DIED, reason, _tail(Path(log_path)), killed_by)


def _tail(path: Path) -> str:
    """The last lines of a log; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
    except OSError:
        return ""


_open: weakref.WeakSet[ProcessExecutor] = weakref.WeakSet()
"""The executors of this process that have not been closed."""


def close_executors() -> None:
    """Ends what runs in this process' executors, and removes their temporary files."""
    for executor in list(_open):
        executor.close()


@functools.cache
def _close_at_exit() -> None:
    """A program that has run sweeps ends at once.

    At exit `multiprocessing` waits for all children, and a process that answers questions about a
    space lives until it is ended. So does, in later releases of Python, the tracker of resources,
    for which the interpreter waits, until the server has ended. What is registered last is called
    first, so this must come after `multiprocessing`'s own.
    """
    driver = os.getpid()

    def end() -> None:
        if os.getpid() != driver:  # A fork of the driver has neither.
            return
        close_executors()
        number = server_id()
        if number is not None:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
                os.waitpid(number, 0)

    atexit.register(end)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keeps the program's own script out of its workers.

    `multiprocessing` runs it again in every new process, for what it defines. A sweep's jobs are
    defined in modules; and a script that starts a sweep, without asking for its `__name__`, would
    start it again in every trial.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _print_to(log_path: str) -> None:
    flush_streams()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


@dataclass(frozen=True)
class _Begin:
    """What every process does first.

    Attributes:
        scratch: the folder for temporary files.
        environment: variables of this executor's processes.
    """

    scratch: str
    environment: Mapping[str, str]

    def __call__(self, log_path: str) -> None:
        # The server may have asked for the temporary folder already, and Python asks only once.
        tempfile.tempdir = os.environ["TMPDIR"] = self.scratch
        drop_credentials()  # Where there is no server that was started without them.
        os.environ.update(self.environment)
        name, value = SAFE_PATH
        if os.environ.get(name) == value:  # It was for the start of this process alone.
            del os.environ[name]
        settle_surroundings()
        for variable in SIZES:  # Those of a terminal, which a log has not.
            os.environ.pop(variable, None)
        for number in DRIVERS_SIGNALS:  # Also where signals cannot be blocked.
            signal.signal(number, signal.SIG_IGN)
        _print_to(log_path)
        _die_with_driver()


def _child_main(
    channel: connection.Connection,
    begin: _Begin,
    log_path: str,
    job: Job,
    argument: Any,
    slot: Slot,
) -> None:
    begin(log_path)
    _run(channel, job, argument, slot)


def _spare_main(
    channel: connection.Connection, begin: _Begin, server_log: str, warm_up: WarmUp, slot: Slot
) -> None:
    begin(server_log)
    try:
        warm_up(slot)
    except Exception:  # The job meets the same trouble, and can tell its driver.
        traceback.print_exc()
    try:
        log_path, job, argument, slot = channel.recv()
    except (EOFError, OSError):
        os._exit(0)  # Nobody needs it any more.
    _print_to(log_path)
    _run(channel, job, argument, slot)


def _run(channel: connection.Connection, job: Job, argument: Any, slot: Slot) -> None:
    def report(message: Any) -> Any:
        try:
            channel.send(("report", message))
            return channel.recv()
        except (EOFError, OSError):
            os._exit(1)  # The driver is gone or has given this job up.

    try:
        value = job(argument, report, slot)
    except BaseException as error:  # Everything a job raises is its driver's to record.
        text = "".join(traceback.format_exception(error))
        first_line = (str(error).strip().splitlines() or [""])[0][:500]
        channel.send(("raise", (type(error).__name__, first_line or type(error).__name__, text)))
    else:
        channel.send(("return", value))
    channel.close()
    flush_streams()
    os._exit(0)  # Tearing TensorFlow down takes a second and frees nothing that exit does not.


def _die_with_driver() -> None:
    """Ends this process when the driver does, however it ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch-driver").start()
