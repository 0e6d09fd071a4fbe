"""Whatever is killed and whenever: the sweep ends as if nothing had happened.

A few kills in `pytest -m long`; `pytest -m slow` adds at least fifty, with a server, and two
hundred trials under a watch on memory. `SWEEPS_CHAOS_SEED` repeats a run; it is printed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import chaos
import pytest
from chaos import Chaos, Server

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc"),
    pytest.mark.long,
]


def chosen_seed() -> int:
    return int(os.environ.get("SWEEPS_CHAOS_SEED", time.time_ns() % 1_000_000))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The same sweeps without any kill, by their number of trials."""
    known: dict[int, Chaos] = {}

    def of(num_trials: int) -> Chaos:
        if num_trials not in known:
            known[num_trials] = Chaos(
                tmp_path_factory.mktemp("reference"), 0, num_trials=num_trials
            )
            known[num_trials].run(0)
        return known[num_trials]

    return of


def assert_as_if_nothing_had_happened(found: Chaos, reference: Chaos) -> None:
    checked = found.command("doctor", chaos.NAME)
    assert checked.returncode == 0, checked.stdout
    assert found.trials() == reference.trials()


def test_a_few_kills_change_nothing(reference, tmp_path):
    seed = chosen_seed()
    print(f"SWEEPS_CHAOS_SEED={seed}")
    server = Server(tmp_path)
    server.start()
    server.wait()
    try:
        victim = Chaos(tmp_path, seed, num_trials=9, server=server)
        victim.run(4, ["driver", "server", "worker", "driver"])
        assert sum(victim.num_kills.values()) >= 2
        assert_as_if_nothing_had_happened(victim, reference(9))
    finally:
        server.kill()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_fifty_kills_of_driver_worker_and_server_change_nothing(reference, tmp_path):
    seed, wanted = chosen_seed(), int(os.environ.get("SWEEPS_CHAOS_KILLS", "50"))
    totals = dict.fromkeys(chaos.VICTIMS, 0)
    rounds = 0
    while sum(totals.values()) < wanted:
        folder = tmp_path / str(rounds)
        folder.mkdir()
        server = Server(folder)
        server.start()
        server.wait()
        try:
            victim = Chaos(folder, seed + rounds, num_trials=40, server=server)
            victim.run(wanted - sum(totals.values()))
            assert_as_if_nothing_had_happened(victim, reference(40))
        finally:
            server.kill()
        for name, number in victim.num_kills.items():
            totals[name] += number
        rounds += 1
        print(f"SWEEPS_CHAOS_SEED={seed}, round {rounds}: {totals}", flush=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_trials_leave_memory_and_disk_as_they_were(tmp_path):
    """Of the driver and of the server: what grows with every trial would show."""
    server = Server(tmp_path)
    server.start()
    server.wait()
    try:
        sweep = Chaos(tmp_path, 0, num_trials=200, server=server)
        samples = sweep.watch(every_seconds=0.5)
        folder = tmp_path / ".sweeps" / "sweeps" / chaos.NAME
        for sample in samples[:: max(1, len(samples) // 10)]:
            print(sample)
        assert sweep.command("doctor", chaos.NAME).returncode == 0
    finally:
        server.kill()
    early = [s for s in samples if 40 <= s.num_trials <= 60]
    # While trials are started: the study's plots at the end hold a page of megabytes.
    late = [s for s in samples if 160 <= s.num_trials <= 195]
    for name in ("driver_bytes", "server_bytes"):
        before = max(getattr(sample, name) for sample in early)
        after = max(getattr(sample, name) for sample in late)
        print(f"{name}: {before / 2**20:.0f} MiB at trial 50, {after / 2**20:.0f} MiB at trial 190")
        assert after < 1.1 * before
    assert max(sample.num_checkpoints for sample in samples) <= 200 // 3 + 2
    assert list(folder.glob("trial-*")) == []
    assert not any((folder / "spool" / "files").iterdir())
