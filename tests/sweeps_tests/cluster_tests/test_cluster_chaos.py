"""Whatever of a cluster is killed or stopped, and whenever: no trial is lost, doubled, or left running.

`SWEEPS_CHAOS_SEED` repeats a run, and is printed; `SWEEPS_CHAOS_KILLS` says how many kills there are.
"""

from __future__ import annotations

import os
import time
from collections import Counter

import chaos
import fake_jobs
import numpy as np
import pytest
from chaos import Chaos
from cluster_chaos import ClusterChaos
from cluster_sweeps import outcome, tags
from ray_cluster import ray_cluster

from sweeps.driver.plan import trial_seed

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(3000)]
pytest.importorskip("ray")
NUM_TRIALS, NUM_EPOCHS = 20, 9


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The sweep of one worker on this machine, without any kill."""
    found = Chaos(tmp_path_factory.mktemp("reference"), 0, num_trials=NUM_TRIALS)
    found.run(0)
    return found.trials()


def curve(number: int) -> dict[int, float]:
    top = 0.5 + 0.5 * (trial_seed(0, number) % 1000) / 1000
    return {epoch: top * (1 - 0.5**epoch) for epoch in range(1, NUM_EPOCHS + 1)}


def assert_nothing_was_lost_or_doubled(found: ClusterChaos) -> None:
    checked = found.command("doctor", chaos.NAME)
    assert checked.returncode == 0, checked.stdout
    trials = outcome(found.folder)  # Which looks for what was reported twice.
    assert len(trials) == NUM_TRIALS
    for number, trial in trials.items():
        assert trial["state"] in ("COMPLETE", "PRUNED")
        steps = sorted(trial["reports"])
        assert steps == list(range(1, len(steps) + 1))
        assert trial["reports"] == {step: curve(int(number))[step] for step in steps}
        assert sorted(trial["metrics"]) == steps
        assert trial["state"] == "PRUNED" or len(steps) == NUM_EPOCHS
    assert not any("sweeps.num_retries" in of_trial for of_trial in tags(found.folder).values())


def test_thirty_kills_of_nodes_drivers_and_what_is_between_them_lose_and_double_nothing(
    reference, tmp_path, monkeypatch
):
    seed = int(os.environ.get("SWEEPS_CHAOS_SEED", time.time_ns() % 1_000_000))
    wanted = int(os.environ.get("SWEEPS_CHAOS_KILLS", "30"))
    everyone = list(ClusterChaos.victims) * (1 + wanted // len(ClusterChaos.victims))
    deck = [str(name) for name in np.random.default_rng(seed).permutation(everyone)]
    lives = tmp_path / "lives"
    lives.mkdir()
    monkeypatch.setenv(fake_jobs.LIVES, str(lives))  # Of the nodes; drivers have their own.
    totals: Counter[str] = Counter()
    rounds = 0
    with ray_cluster(num_nodes=2) as cluster:
        while totals.total() < wanted:
            for file in lives.iterdir():
                file.unlink()
            folder = tmp_path / str(rounds)
            folder.mkdir()
            num_workers = 1 + (seed + rounds) % 2
            victim = ClusterChaos(
                folder,
                seed + rounds,
                cluster,
                lives,
                num_trials=NUM_TRIALS,
                num_workers=num_workers,
            )
            victim.run(wanted - totals.total(), deck[totals.total() :])
            totals.update(victim.num_kills)
            rounds += 1
            print(f"SWEEPS_CHAOS_SEED={seed}, round {rounds}: {', '.join(victim.log)}", flush=True)
            assert_nothing_was_lost_or_doubled(victim)
            assert not list(lives.glob("twice-*")), "a trial lived beside itself"
            if num_workers == 1:
                assert victim.trials() == reference
            for node in cluster.workers:
                node.await_end_of_trials()
    print(f"SWEEPS_CHAOS_SEED={seed}: {totals.total()} kills in {rounds} sweeps: {dict(totals)}")
