"""What a tracking server costs a sweep: its wall time against that with the local store.

Both sides are the real `keras-sweeps run` with eight workers, each in an empty folder, imports and
the sending of the last record included. Only the training is made up: a worker sleeps for a while
and reports, so that the trials take the same time on both sides and what differs is the tracking.

    python benchmarks/tracking_server.py --repeats 5
    python benchmarks/tracking_server.py --repeats 5 --sequential --postgresql
    python benchmarks/tracking_server.py --tracking-uri http://127.0.0.1:5000

By default the two sides run at the same time, so that a noisy machine is as noisy for the one as
for the other; with --sequential one after the other, in alternating order. Without --tracking-uri
it starts `python tracking/server.py` with a store of its own, or, with --postgresql, with a
PostgreSQL of its own behind it and with authentication; the start of the server is not counted. It
prints the seconds of every pair, the ratio server / embedded of each, their median,
that of all seconds, and n.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACE_VARIABLE = "BENCHMARK_EPOCH_SECONDS"


def main() -> None:
    """Runs the pairs and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--epoch-seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sequential", action="store_true")
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--tracking-uri", help="measure this server (default: one is started)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keras-sweeps-benchmark-") as name:
        folder = Path(name)
        with server(folder, arguments) as uri:
            seconds: dict[str, list[float]] = {"embedded": [], "server": []}
            for number in range(arguments.repeats):
                sides = ["embedded", "server"] if number % 2 == 0 else ["server", "embedded"]
                places = [folder / f"{side}-{number}" for side in sides]
                with ThreadPoolExecutor(1 if arguments.sequential else 2) as pool:
                    uris = [uri if side == "server" else None for side in sides]
                    took = list(pool.map(partial(sweep, arguments), places, uris))
                for side, passed in zip(sides, took, strict=True):
                    seconds[side].append(passed)
                one, other = (seconds[side][-1] for side in ("embedded", "server"))
                print(
                    f"embedded {one:6.2f} s  server {other:6.2f} s  ratio {other / one:.3f}",
                    flush=True,
                )
    pairs = zip(seconds["server"], seconds["embedded"], strict=True)
    ratios = [one / other for one, other in pairs]
    whole = sum(seconds["server"]) / sum(seconds["embedded"])
    print(f"median ratio {statistics.median(ratios):.3f}, of all seconds {whole:.3f}, "
          f"n = {len(ratios)}")  # fmt: skip


def sweep(arguments: argparse.Namespace, folder: Path, uri: str | None) -> float:
    """Seconds that a whole sweep takes in an empty folder."""
    folder.mkdir()
    command = [sys.executable, "-c", "import tracking_server; tracking_server.drive()", "run"]
    command += ["--space", "mlp", "--dataset", "digits", "--sampler", "random", "--pruner", "none"]
    command += ["--trials", str(arguments.trials), "--epochs", str(arguments.epochs)]
    command += [
        "--workers",
        str(arguments.workers),
        "--threads",
        "1",
        "--timeout",
        "none",
        "--quiet",
    ]
    command += ["--no-baselines", "--tracking-uri", uri or "sqlite:///mlflow.db"]
    path = os.pathsep.join(str(ROOT / part) for part in ("benchmarks", "tests", ""))
    environment = {**os.environ, "PYTHONPATH": path, PACE_VARIABLE: str(arguments.epoch_seconds)}
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode or "WARNING" in done.stderr:
        sys.exit(f"the sweep failed:\n{done.stdout}\n{done.stderr}")
    return took


@contextmanager
def server(folder: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """The address of a server that answers; what it takes to sign in is in the environment."""
    if arguments.tracking_uri is not None:
        yield arguments.tracking_uri
        return
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
    import stack

    place = folder / "server"
    place.mkdir()
    with ExitStack() as opened:
        options: list[str] = []
        if arguments.postgresql:
            for name in ("postgres", "admin", "sweeper"):
                (place / f"{name}.password").write_text(secrets.token_urlsafe(16))
            port, _ = opened.enter_context(
                stack.postgresql(place / "postgres.password", settings=())
            )
            (place / "pgpass").write_text(f"*:*:*:*:{(place / 'postgres.password').read_text()}\n")
            (place / "pgpass").chmod(0o600)
            address = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
            options += ["--backend-store-uri", f"{address}?passfile={place / 'pgpass'}"]
            options += ["--auth", "--admin-password-file", str(place / "admin.password")]
            options += ["--user", f"sweeper={place / 'sweeper.password'}"]
            os.environ["MLFLOW_TRACKING_USERNAME"] = "sweeper"
            os.environ["MLFLOW_TRACKING_PASSWORD"] = (place / "sweeper.password").read_text()
        _, uri = opened.enter_context(stack.mlflow_server(place, *options))
        yield uri


def drive() -> None:
    """The real command with made-up trials; runs in the process of its own that `sweep` starts."""
    from fake_jobs import chaos_figures_job

    from sweeps.cli.main import main as command
    from sweeps.driver import figures, search
    from sweeps.executors import processes

    original, plan = processes.ProcessExecutor, search.LoopPlan
    processes.ProcessExecutor = lambda preload, log, *args, **options: original("fake_jobs", log)  # type: ignore
    search.LoopPlan = lambda **options: plan(**options, job=paced_job)  # type: ignore
    figures.figures_job = chaos_figures_job
    sys.exit(command())


def paced_job(task: Any, report: Any, slot: Any) -> Any:
    """Reports a made-up curve at the pace that was asked for."""
    from fake_jobs import recorded_job

    def paced(message: Any) -> Any:
        time.sleep(float(os.environ[PACE_VARIABLE]))
        return report(message)

    result = recorded_job(task, paced, slot)
    (Path(task.folder) / "predictions.npz").write_text("not drawn yet")
    return result


if __name__ == "__main__":
    main()
