"""Kills and stops nodes of a cluster, drivers, and what is between them, at random moments."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import fake_jobs
from chaos import Chaos
from cluster_sweeps import offspring, on_cluster
from ray_cluster import RayCluster

HOW = ("SIGKILL", "SIGTERM", "SIGSTOP")
LONGEST_STOP = 14.0
"""Seconds; a lease is five here, and a node is lost after eight."""


class ClusterChaos(Chaos):
    """A sweep over the two nodes of a cluster.

    Attributes:
        log: what was done, in turn.
    """

    victims = dict.fromkeys(
        (f"{who} {how}" for who in ("node", "driver", "bridge") for how in HOW), 1 / 9
    )

    def __init__(
        self,
        folder: Path,
        seed: int,
        cluster: RayCluster,
        lives: Path,
        *,
        num_trials: int,
        num_workers: int,
    ) -> None:
        super().__init__(folder, seed, num_trials=num_trials)
        self._cluster = cluster
        self.log: list[str] = []
        self.variables = {fake_jobs.LIVES: str(lives)}
        self._options += ["--workers", str(num_workers), "--threads", "1", "--keep-models", "0"]
        self._options += on_cluster(cluster.address, folder)

    def _kill(self, victim: str) -> None:
        who, how = victim.split()
        self.log.append(victim)
        kill = {"node": self._kill_node, "driver": self._kill_driver, "bridge": self._kill_bridge}
        kill[who](getattr(signal, how))
        self.num_kills[victim] += 1

    def _kill_node(self, number: signal.Signals) -> None:
        nodes = self._cluster.workers
        node = nodes[int(self._random.integers(len(nodes)))]
        if number == signal.SIGSTOP:
            node.freeze()
            self._wait()
            node.thaw()
            return
        node.send(number)
        self._wait(3.0)
        node.end()
        self._cluster.add()

    def _kill_driver(self, number: signal.Signals) -> None:
        assert self._driver is not None
        if number == signal.SIGSTOP:
            alone = self._random.random() < 0.5
            self._stop([self._driver.pid, *([] if alone else offspring(self._driver.pid))])
            return
        self._driver.send_signal(number)
        self._driver.wait(60)

    def _kill_bridge(self, number: signal.Signals) -> None:
        assert self._driver is not None
        for process in offspring(self._driver.pid):
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes():
                    if number == signal.SIGSTOP:
                        self._stop([process])
                    else:
                        os.kill(process, number)

    def _stop(self, processes: list[int]) -> None:
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for process in processes:
                with contextlib.suppress(OSError):
                    os.kill(process, number)
            if number == signal.SIGSTOP:
                self._wait()

    def _wait(self, most: float = LONGEST_STOP) -> None:
        time.sleep(float(self._random.uniform(0.0, most)))
