"""What a cluster costs: a job and a report on this machine and on nodes; and what one driver takes.

    PYTHONPATH=benchmarks ray start --head --num-cpus=1
    PYTHONPATH=benchmarks ray start --address=HOST:PORT --num-cpus=1
    python benchmarks/cluster.py overhead --ray-address HOST:PORT
    python benchmarks/cluster.py reports --nodes 1000

`overhead` runs the same empty jobs by the local executor and on the nodes, one after the other, in
turns: seconds from start to first report, and milliseconds of a report with its answer.

`reports` has the real loop, study (SQLite), spool and executor of a cluster, the real process
between driver and nodes with its threads and long polls, and in it simulated nodes, which report so
many seconds after they are answered: how many reports a second the driver takes, how long a trial
waits for its answer, and where the driver's time goes. Neither Ray nor the network takes part.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import multiprocessing
import pstats
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cluster_jobs import SimulatedNodes, reporting_job, simulated_bridge_job

from pipelines.data.arrays import ImageArrays
from pipelines.data.builtin import Dataset
from pipelines.data.prepared import store
from pipelines.objectives import OBJECTIVES
from pipelines.training.trial import Schedule
from search_spaces.registry import get_space
from sweeps.cluster.connection import BRIDGE, ClusterConnection
from sweeps.cluster.executor import ClusterExecutor
from sweeps.cluster.protocol import ClusterOptions
from sweeps.cluster.slots import ClusterSlots
from sweeps.driver.board.board import Board
from sweeps.driver.board.views import QuietView
from sweeps.driver.loop import SweepLoop
from sweeps.driver.plan import LoopPlan
from sweeps.driver.records.recorder import BestModels, Recorder
from sweeps.engines.optuna_study.engine import OptunaEngine
from sweeps.engines.optuna_study.storage import open_storage
from sweeps.executors.base import Executor, Raised, Returned, Slot
from sweeps.executors.processes import ProcessExecutor
from sweeps.interrupts import Interrupts
from sweeps.state.paths import SweepPaths
from tracking.spool.spool import Spool

PARTS = ("sqlalchemy", "sqlite3", "optuna", "tracking/spool", "sweeps/cluster", "sweeps/", "fsync")


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("overhead", "reports"))
    parser.add_argument("--ray-address", metavar="HOST:PORT")
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--reports", type=int, default=50, help="of each job, or trial")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument(
        "--epoch-seconds", type=float, default=0.0, help="from an answer to the next report"
    )
    parser.add_argument("--profile", action="store_true", help="where the driver's time goes")
    arguments = parser.parse_args()
    if arguments.what == "overhead":
        overhead(arguments.ray_address, arguments.jobs, arguments.reports)
    else:
        reports(
            arguments.nodes, arguments.reports, arguments.epoch_seconds, profiled=arguments.profile
        )


def overhead(address: str, num_jobs: int, num_reports: int) -> None:
    """Prints seconds of a job and milliseconds of a report, here and on each number of nodes."""
    with tempfile.TemporaryDirectory() as folder:
        local = ProcessExecutor("cluster_jobs", Path(folder) / "server.log")
        connection = ClusterConnection(
            ClusterOptions(address, str(Path(folder) / "cache"), "cluster_jobs")
        )
        try:
            connection.await_nodes(60, print)
            nodes = sorted(connection.nodes)
            executor = ClusterExecutor(local, connection)
            places = {"local": [""], "one node": nodes[:1], f"{len(nodes)} nodes": nodes}
            starts: dict[str, list[float]] = {name: [] for name in places}
            rounds: dict[str, list[float]] = {name: [] for name in places}
            for number in range(num_jobs + 1):
                for name, where in places.items():
                    slot = Slot(0, 1, node=where[number % len(where)])
                    found = list(_one(executor, slot, num_reports, f"{folder}/log"))
                    if number:  # The first one starts the server of workers.
                        starts[name].append(found[0])
                        rounds[name] += found[1:]
            for name in places:
                start, p50 = statistics.median(starts[name]), statistics.median(rounds[name])
                p99 = float(np.quantile(rounds[name], 0.99))
                print(
                    f"{name:10} start {start:.3f} s, "
                    f"report p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.1f} ms"
                )
        finally:
            connection.close()
            local.close()


def _one(executor: Executor, slot: Slot, num_reports: int, log: str) -> Iterator[float]:
    """Seconds to the first report, and then from each answer to the next report."""
    since = time.perf_counter()
    executor.start("job", reporting_job, num_reports, slot, log)
    while True:
        for event in executor.events(10):
            now = time.perf_counter()
            if isinstance(event, Raised):
                raise RuntimeError(event.reason)
            if isinstance(event, Returned):
                return
            yield now - since
            since = time.perf_counter()
            executor.answer("job", True)


class SimulatedCluster(ClusterConnection):
    """Nodes that are simulated in the process between; everything on this side of it is real."""

    def _start_bridge(self) -> None:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        slot = Slot(0, 1)
        self._processes.start(
            BRIDGE, simulated_bridge_job, (theirs, self._options), slot, str(self._log)
        )
        theirs.close()
        self._pipe = ours


class WithoutPictures(ClusterExecutor):
    """Trials on nodes, and nothing on this machine."""

    def start(self, job_id: str, job: Any, argument: Any, slot: Slot, log_path: str) -> None:
        """Starts a trial; pictures are not drawn."""
        if slot.node:
            super().start(job_id, job, argument, slot, log_path)
        else:
            self._pending.append(Raised(job_id, "NotDrawn", "nothing to draw", ""))


def reports(num_nodes: int, num_reports: int, epoch_seconds: float, *, profiled: bool) -> None:
    """Prints how many reports a second one driver takes, and where its time goes."""
    space, objective = get_space("mlp"), OBJECTIVES["val_accuracy"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, labels = np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) % 2
        arrays = ImageArrays(images, labels, images, labels)
        data = store(folder / "data", Dataset("made", ("a", "b"), None), arrays, "0" * 64, "made")
        found = folder / "found.json"
        connection = SimulatedCluster(
            SimulatedNodes(
                "none", num_nodes=num_nodes, num_reports=num_reports, epoch_seconds=epoch_seconds,
                found=str(found),
            )
        )  # fmt: skip
        while len(connection.nodes) < num_nodes:
            connection.receive(1.0)
        pool = ClusterSlots(lambda: connection.nodes, 1)
        paths = SweepPaths(folder, "s")
        plan = LoopPlan(
            space=space, data=data, num_trials=num_nodes, schedule=Schedule(num_reports), seed=0,
            slots=(), paths=paths, pool=pool,
        )  # fmt: skip
        spool = Spool(paths.spool)
        recorder = Recorder(spool, space, data, paths, BestModels(objective, 0))
        storage = open_storage(f"sqlite:///{folder / 'optuna.db'}")
        engine = OptunaEngine(
            space,
            objective,
            storage,
            "s",
            "random",
            0,
            pruner="none",
            baselines=(),
            resume=False,
            uid="u",
        )
        executor = WithoutPictures(ProcessExecutor("", folder / "log"), connection)
        board = Board("s", objective, num_nodes, num_nodes, None)
        loop = SweepLoop(plan, board, engine, executor, recorder, QuietView(), Interrupts())
        profile = cProfile.Profile()
        started, processor = time.perf_counter(), time.process_time()
        if profiled:
            profile.runcall(loop.run)
        else:
            loop.run()
        seconds = time.perf_counter() - started
        processor = time.process_time() - processor
        spool.close()
        between = json.loads(found.read_text())
    num = num_nodes * num_reports
    print(f"{num_nodes:,} nodes, {num:,} reports in {seconds:.1f} s: {num / seconds:.0f} reports/s")
    print(
        f"answered after p50 {between['p50']:.2f} s, p99 {between['p99']:.2f} s, most "
        f"{between['most']:.2f} s; processor time: driver {processor:.1f} s, bridge and nodes "
        f"{between['processor_seconds']:.1f} s; lost nodes: {num_nodes - len(connection.nodes)}"
    )
    if not profiled:
        return
    times: Counter[str] = Counter()
    for (file, _, function), row in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        part = next((p for p in PARTS if p in file or p in function), "other")
        times[part] += row[2]
    for part, spent in times.most_common():
        print(f"  {part:16} {spent:6.1f} s")


if __name__ == "__main__":
    main()
