"""A sweep from its settings to its end: checks, asks, opens everything, and runs it."""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace

from pipelines.data.prepared import PreparedData
from search_spaces.errors import InputError, redacted
from search_spaces.registry import get_space, short_name
from search_spaces.space import Space
from search_spaces.user_spaces.reference import is_reference
from sweeps.cli.exit_codes import DONE
from sweeps.driver.session import Session
from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from sweeps.reporting.console import speaker
from sweeps.reporting.plan_summary import left_out_text, pruner_text, trials_text
from sweeps.resources.auto_compute import decide_compute
from sweeps.resources.machine import Allotment, allot, detect_machine, with_gpus
from sweeps.settings import FinalOptions, SweepSettings, budget_for
from sweeps.setup.data import sweep_data
from sweeps.setup.preflight import check_places
from sweeps.setup.resume import merged, sweep_to_resume
from sweeps.setup.space import space_of
from sweeps.setup.stores import open_engine, open_tracker
from sweeps.state.paths import claim_name, paths_of
from sweeps.state.stored_sweep import StoredSweep
from sweeps.state.sweep_file import (
    RUNNING,
    SweepFile,
    check_same_data,
    check_same_store,
    driving,
    write_sweep_file,
)
from sweeps.workers.jobs import warm_up
from sweeps.workers.start import start_workers
from tracking.stores import resolve_uri


@dataclass(frozen=True)
class Start:
    """What was asked for on the command line, beside the settings themselves.

    Attributes:
        given: names of the settings that were given; the others are defaults.
        resume: whether a sweep is to be resumed.
        accept_changes: whether settings that matter may change then.
    """

    given: Collection[str] = ()
    resume: bool = False
    accept_changes: bool = False
    quiet: bool = False


def run_sweep(settings: SweepSettings, start: Start) -> int:
    """Runs a sweep, or goes on with one, and prints its result; returns the exit status.

    Raises:
        InputError: The settings or the places they name cannot be used; nothing was started.
    """
    say = speaker(start.quiet)
    earlier = sweep_to_resume(settings, start.given, resume=start.resume)
    if earlier is not None:
        settings = merged(earlier, settings, start.given, accept=start.accept_changes)
        settings.validate(resumed=True)
    name = short_name(settings.space)
    say(f"keras-sweeps: space {name}, {count(settings.num_trials, 'trial')}")
    check_places(settings, resume=earlier is not None)
    machine = with_gpus(detect_machine(settings.backend), settings.gpus)
    allotment = allot(machine, settings.num_workers, settings.num_threads, settings.trials_per_gpu)
    data = sweep_data(settings, earlier)
    space = _open_space(settings, data, say)
    how = ""
    if earlier is None:
        decided = decide_compute(settings, space, data, allotment.slots[0], say)
        settings, how = decided.settings, decided.reason
        settings = replace(settings, name=claim_name(settings, f"{name}-{data.name}"))
    paths = paths_of(settings)
    with ExitStack() as stack:
        stack.enter_context(driving(paths))
        if "trials_per_gpu" in start.given:
            paths.packing.unlink(missing_ok=True)  # What an earlier session found out.
        file = _sweep_file(settings, data, space, earlier)
        _say_plan(say, settings, data, allotment, how, resumed=earlier is not None)
        interrupts = stack.enter_context(Interrupts())
        settings = file.settings
        try:
            session = open_session(settings, space, data, allotment, interrupts, file, earlier)
        except InputError:
            if earlier is None:
                # There is no study, so the name is free again. After an interrupt there may be
                # one: then the sweep has begun, and can be resumed.
                shutil.rmtree(paths.sweep, ignore_errors=True)
            raise
        status = session.run(interrupts, quiet=start.quiet)
        if status != DONE or not settings.num_finalists:
            return status
        from sweeps.finalists.session import finalize

        options = FinalOptions(
            settings.num_finalists, settings.num_finalist_seeds, settings.retrain
        )
        return finalize(StoredSweep(paths, file), options, interrupts, quiet=start.quiet)


def _open_space(settings: SweepSettings, data: PreparedData, say: Callable[[str], None]) -> Space:
    """The sweep's space; says what people should know of it."""
    if is_reference(settings.space):
        title = settings.compute.title
        say(f"looking at the space: importing {title} and building models takes some seconds")
    space = space_of(settings, data)
    for note in space.notes:
        print(f"WARNING: {note}", file=sys.stderr, flush=True)
    if space.narrowing:
        left_out = left_out_text(space, get_space(settings.space)) if settings.baselines else ""
        say(f"narrowed  {' '.join(space.narrowing)}{left_out}")
    return space


def _sweep_file(
    settings: SweepSettings, data: PreparedData, space: Space, earlier: SweepFile | None
) -> SweepFile:
    """The description to store; raises InputError where data or space are not what they were."""
    if earlier is not None:
        check_same_data(earlier, data.fingerprint, space.fingerprint)
    uid = earlier.uid if earlier is not None else uuid.uuid4().hex
    # As resolved now: another environment must not send the rest of the sweep somewhere else.
    settings = replace(settings, tracking_uri=resolve_uri(settings.tracking_uri))
    return SweepFile(uid, RUNNING, settings, data.name, data.fingerprint, space.fingerprint)


def _say_plan(
    say: Callable[[str], None],
    settings: SweepSettings,
    data: PreparedData,
    allotment: Allotment,
    how: str,
    *,
    resumed: bool,
) -> None:
    budget = budget_for(settings, data.num_images["train"])
    say(f"data      {data.name} ({data.origin}): {data.sizes()}; {data.split}")
    for line in data.notes:
        say(f"          {line}")
    say(f"machine   {allotment.reason}")
    say(f"compute   {settings.compute.text}{f' ({how})' if how else ''}")
    say(f"trials    {trials_text(settings, budget)}")
    say(f"pruner    {pruner_text(settings, budget)}")
    where = redacted(resolve_uri(settings.tracking_uri))
    if settings.offline:
        where = f"offline; `keras-sweeps sync {settings.name}` sends it to {where}"
    say(f"tracking  {where}, sweep {settings.name}" + (", resumed" if resumed else ""))
    say(f"starting the workers: importing {settings.compute.title} takes some seconds, once")


def open_session(
    settings: SweepSettings,
    space: Space,
    data: PreparedData,
    allotment: Allotment,
    interrupts: Interrupts,
    file: SweepFile,
    earlier: SweepFile | None,
) -> Session:
    """Opens storage, study, workers, spool and tracker.

    The server of workers imports TensorFlow while MLflow is imported here: each takes seconds.

    Raises:
        InputError: A store cannot be used, or the name is taken.
        KeyboardInterrupt: An interrupt came before the first trial.
    """
    paths = paths_of(settings)
    # First, because the server's import takes longest: everything else happens meanwhile.
    # What repeats bit for bit is decided before a device starts: no process is warm by then.
    spare = None if settings.deterministic else warm_up
    executor = start_workers(paths.server_log, settings.backend, warm_up=spare)
    try:
        from tracking.spool.spool import Spool

        spool = Spool(paths.spool)
        if earlier is not None:
            uri = resolve_uri(settings.tracking_uri)
            check_same_store(earlier, uri, sent=bool(spool.answers()))
        else:
            # Before the study: a study that no sweep on disk knows would block the name.
            write_sweep_file(paths.state, file)
        tracker = None
        if not settings.offline:
            tracker = open_tracker(settings, data.name, spool)
        # The study last: what can be refused is refused before it exists.
        num = allotment.num_parallel
        engine = open_engine(settings, space, data, file, num, begun=spool.has("trial-0"))
        if earlier is not None:
            write_sweep_file(paths.state, file)  # Only now: the addresses are good.
        if interrupts.received:
            raise KeyboardInterrupt
    except BaseException:
        executor.close()
        raise
    return Session(settings, space, data, allotment, file, engine, executor, spool, tracker)
