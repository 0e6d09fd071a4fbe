"""A sweep from its settings to an opened one: checks, asks, and opens everything."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.data.prepared import PreparedData
from search_spaces.errors import InputError
from search_spaces.registry import get_space, short_name
from search_spaces.space import Space
from search_spaces.user_spaces.reference import is_reference
from sweeps.driver.search import OpenedSweep
from sweeps.driver.session import Recording
from sweeps.executors.base import Executor
from sweeps.formatting import in_work_dir, params_text
from sweeps.interrupts import Interrupts
from sweeps.reporting.descriptions import (
    MEASURED_TEXTS,
    left_out_text,
    left_text,
    pixels_text,
    pruner_text,
    trials_text,
)
from sweeps.resources.auto_compute import decide_compute
from sweeps.resources.machine import Allotment, allot, detect_machine, with_gpus
from sweeps.settings import Budget, SweepSettings, budget_for
from sweeps.setup.cluster import cluster_allotment, connected_cluster, on_cluster
from sweeps.setup.data import SHOWN, DataProgress, sweep_data
from sweeps.setup.objective import with_objective
from sweeps.setup.resume import merged
from sweeps.setup.space import source_tags, space_of
from sweeps.setup.stores import (
    Destination,
    check_locations,
    chosen_experiment,
    open_engine,
)
from sweeps.state.lock import check_not_driven, driving
from sweeps.state.log import sweep_log, told
from sweeps.state.paths import claim_name, compiled_folder, paths_of
from sweeps.state.recorded_options import compute_tags
from sweeps.state.sweep_file import (
    FORMAT,
    RUNNING,
    SweepFile,
    check_same_data,
    check_same_store,
    write_sweep_file,
)
from sweeps.workers.jobs import warm_up
from sweeps.workers.start import start_workers
from tracking.addresses import redacted
from tracking.stores import resolve_uri

if TYPE_CHECKING:
    from sweeps.cluster.connection import ClusterConnection
    from tracking.runs.tracker import MlflowTracker

log = logging.getLogger(__name__)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Start:
    """What was asked for, beside the settings themselves.

    Attributes:
        given: names of the settings that were given; the others are defaults.
        earlier: the sweep that is to go on; None for a new one.
        accept_changes: whether settings that matter may change then.
        say: tells a person, one line a call.
        began: called once the sweep is known on disk, so that it can be resumed whatever happens.
        config: the settings and data as a file that starts the same sweep again.
    """

    say: Say
    config: Callable[[SweepSettings, PreparedData], dict[str, str]]
    given: Collection[str] = ()
    earlier: SweepFile | None = None
    accept_changes: bool = False
    data_progress: DataProgress = SHOWN
    began: Callable[[SweepFile], None] = lambda file: None


@dataclass(frozen=True)
class StartedSweep:
    """A sweep whose lock is held: opened, with where its records go."""

    opened: OpenedSweep
    destination: Destination | None
    interrupts: Interrupts

    @property
    def tracker(self) -> MlflowTracker | None:
        """The tracking store; None where nothing was sent to it."""
        return self.destination.tracker if self.destination is not None else None


@contextmanager
def started_sweep(settings: SweepSettings, start: Start) -> Iterator[StartedSweep]:
    """Checks everything, takes the sweep's lock, and opens it; the lock is held in the block.

    Raises:
        InputError: The settings or the places they name cannot be used; nothing was started.
        KeyboardInterrupt: An interrupt came before the first trial.
    """
    start = replace(start, say=told(start.say))
    say, earlier = start.say, start.earlier
    if earlier is not None:
        where = replace(earlier.settings, work_dir=settings.work_dir)
        check_not_driven(paths_of(where))  # That matters more than what differs.
        settings = merged(earlier, settings, start.given, accept=start.accept_changes)
        settings.validate(resumed=True)
    name = short_name(settings.space)
    say(f"keras-sweeps: space {name}")
    check_locations(settings, resume=earlier is not None)
    if earlier is None:  # One that began without it has its own.
        settings = replace(settings, experiment=chosen_experiment(settings, say))
    # First of all, for nothing is written where there is no cluster.
    with connected_cluster(settings, say) as cluster, _started(settings, start, cluster) as started:
        yield started


def _allotment(settings: SweepSettings, cluster: ClusterConnection | None) -> Allotment:
    """The slots of the cluster, or of this machine."""
    if cluster is not None:
        return cluster_allotment(cluster, settings)
    machine = with_gpus(detect_machine(settings.training.backend), settings.gpus)
    return allot(machine, settings.num_workers, settings.num_threads, settings.trials_per_gpu)


@contextmanager
def _started(
    settings: SweepSettings, start: Start, cluster: ClusterConnection | None
) -> Iterator[StartedSweep]:
    """As `started_sweep`, once settings and places are checked."""
    name, say, earlier = short_name(settings.space), start.say, start.earlier
    allotment = _allotment(settings, cluster)
    data = sweep_data(settings, earlier, start.data_progress)
    space = _open_space(settings, data, start)
    how = ""
    if earlier is None:
        settings = with_objective(settings, space, say, asked="objective" in start.given)
        decided = decide_compute(settings, space, data, allotment.slots[0], say)
        settings, how = decided.settings, decided.reason
        settings = replace(settings, name=claim_name(settings, f"{name}-{data.name}"))
    paths = paths_of(settings)
    with driving(paths):
        before = earlier.settings.trials_per_gpu if earlier is not None else None
        if "trials_per_gpu" in start.given and settings.trials_per_gpu != before:
            paths.packing.unlink(missing_ok=True)  # What an earlier session found out.
        file = _sweep_file(settings, data, space, earlier)
        sweep_log.info("settings: %s", params_text(file.settings.as_params()))
        for note in space.notes:  # Said before there was a log.
            sweep_log.warning("%s", note)
        _say_plan(say, file.settings, space, data, allotment, how, resumed=earlier is not None)
        with Interrupts() as interrupts:
            try:
                started = _open(file, space, data, allotment, interrupts, start, cluster)
            except InputError:
                if earlier is None:
                    # There is no study, so the name is free again. After an interrupt there may be
                    # one: then the sweep has begun, and can be resumed.
                    shutil.rmtree(paths.sweep, ignore_errors=True)
                raise
            try:
                yield started
            finally:
                started.opened.executor.close()
                space.rest()


def _open_space(settings: SweepSettings, data: PreparedData, start: Start) -> Space:
    """The sweep's space; says what people should know of it."""
    if is_reference(settings.space):
        title = settings.training.compute.title
        start.say(f"looking at the space: importing {title} and building models takes some seconds")
    space = space_of(settings, data)
    for note in space.notes:
        log.warning("%s", note)
    if space.narrowing:
        left_out = left_out_text(space, get_space(settings.space)) if settings.baselines else ""
        start.say(f"narrowed  {' '.join(space.narrowing)}{left_out}")
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
    begun_in = earlier.begun_in if earlier is not None else FORMAT
    return SweepFile(
        uid, RUNNING, settings, data.name, data.fingerprint, space.fingerprint, begun_in=begun_in
    )


def _say_plan(
    say: Say,
    settings: SweepSettings,
    space: Space,
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
    say(f"compute   {settings.training.compute.text}{f' ({how})' if how else ''}")
    if pixels := pixels_text(settings, space):
        say(f"pixels    {pixels}")
    say(f"trials    {trials_text(settings, budget)}")
    if resumed and (left := _left_text(settings, budget)):
        say(f"time      {left}")
    say(f"pruner    {pruner_text(settings, budget)}")
    say(f"measured  {MEASURED_TEXTS[settings.training.measured_weights]}")
    where = redacted(resolve_uri(settings.tracking_uri))
    if settings.offline:
        sync = f"keras-sweeps sync {settings.name}{in_work_dir(settings.work_dir)}"
        where = f"offline; `{sync}` sends it to {where}"
    say(f"tracking  {where}, sweep {settings.name}" + (", resumed" if resumed else ""))
    title = settings.training.compute.title
    say(f"starting the workers: importing {title} takes some seconds, once")


def _left_text(settings: SweepSettings, budget: Budget) -> str:
    """What a sweep that goes on has of its time limit."""
    from tracking.spool.spool import Spool

    spool = Spool(paths_of(settings).spool, read_only=True)
    ended = spool.active_seconds(up_to_end=True)
    return left_text(budget, spool.active_seconds() - ended, has_ended=ended > 0)


def _open(
    file: SweepFile,
    space: Space,
    data: PreparedData,
    allotment: Allotment,
    interrupts: Interrupts,
    start: Start,
    cluster: ClusterConnection | None,
) -> StartedSweep:
    """Opens storage, study, workers, spool and tracker.

    The server of workers imports TensorFlow while MLflow is imported here: each takes seconds.

    Raises:
        InputError: A store cannot be used, or the name is taken.
        KeyboardInterrupt: An interrupt came before the first trial.
    """
    settings, earlier = file.settings, start.earlier
    paths, uri = paths_of(settings), resolve_uri(settings.tracking_uri)
    assert settings.name is not None
    # First, because the server's import takes longest: everything else happens meanwhile.
    # What repeats bit for bit is decided before a device starts: no process is warm by then.
    spare = None if settings.training.deterministic else warm_up
    workers = start_workers(
        paths.server_log, settings.training.backend, spare, compiled_folder(settings),
        settings.pass_env,
    )  # fmt: skip
    executor: Executor = workers
    if cluster is not None:
        executor = on_cluster(cluster, workers, data)
    try:
        from tracking.provenance import git_tags, version_tags
        from tracking.spool.spool import Spool

        spool = Spool(paths.spool)
        if earlier is not None:
            check_same_store(earlier, uri, sent=bool(spool.answers()))
        else:
            # Before the study: a study that no sweep on disk knows would block the name.
            write_sweep_file(paths.state, file)
        start.began(file)
        destination = None
        if not settings.offline:
            destination = Destination(settings, data.name, spool)
            destination.check()
        # The study last: what can be refused is refused before it exists.
        num, begun = allotment.num_parallel, spool.has("trial-0")
        engine = open_engine(settings, space, data, file, num, begun=begun)
        if earlier is not None:
            write_sweep_file(paths.state, file)  # Only now: the addresses are good.
        if interrupts.received:
            raise KeyboardInterrupt
        opened = OpenedSweep(
            settings=settings,
            space=space,
            data=data,
            allotment=allotment,
            file=file,
            engine=engine,
            executor=executor,
            recording=Recording(
                spool, settings.name, uri, destination, (settings.storage,),
                destination.run_page if destination else lambda number: "",
            ),
            tags={**git_tags(), **version_tags(), **source_tags(space, data),
                  **file.space_tags, **compute_tags(settings.training.compute)},
            texts=start.config(settings, data),
            say=start.say,
        )  # fmt: skip
    except BaseException:
        executor.close()
        raise
    return StartedSweep(opened, destination, interrupts)
