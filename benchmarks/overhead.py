"""What tracking and isolation cost: a sweep's wall time against the same trials in a bare loop.

Each repetition runs both sides from an empty folder, imports included:

- sweep: `keras-sweeps run` with one worker, MLflow and Optuna on SQLite, artifacts, models, plots;
- bare: the same points in the same order with the same seeds, `model.fit` with validation data in
  one process and nothing else. It validates in batches of the same size as a trial does: `fit` by
  itself takes the training batch, which is slower and would flatter the sweep.

    python benchmarks/overhead.py --dataset mnist --trials 2 --epochs 4 --repeats 4

By default the two sides run at the same time, each bound to one core with everything that it starts
(driver, workers, tracking, pictures), and change cores with every repetition: a noisy machine is as
noisy for the one as for the other. With --sequential they run one after the other on all cores, in
alternating order.

It prints the ratio sweep / bare of every repetition, their median, the ratio of all seconds, and n.
Nothing else may run beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Runs the repetitions and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="cnn")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--sequential", action="store_true")
    parser.add_argument("--keep", metavar="DIR", help="existing folder for studies and spools")
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare_loop(json.loads(Path(arguments.bare).read_text()))
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        arguments.sequential = True
    if arguments.threads is None:
        arguments.threads = len(cores) if arguments.sequential else 1
    plan = make_plan(arguments)
    ratios = []
    totals = {"run_sweep": 0.0, "run_bare": 0.0}
    for repeat in range(arguments.repeats):
        sides = [run_sweep, run_bare] if repeat % 2 == 0 else [run_bare, run_sweep]
        if arguments.sequential:
            seconds = {side.__name__: side(plan, cores) for side in sides}
        else:
            with ThreadPoolExecutor() as pool:
                both = [pool.submit(side, plan, [cores[k]]) for k, side in enumerate(sides)]
                seconds = {
                    side.__name__: future.result() for side, future in zip(sides, both, strict=True)
                }
        ratios.append(seconds["run_sweep"] / seconds["run_bare"])
        for side, value in seconds.items():
            totals[side] += value
        print(
            f"repetition {repeat + 1}: sweep {seconds['run_sweep']:.1f} s, "
            f"bare loop {seconds['run_bare']:.1f} s, ratio {ratios[-1]:.3f}",
            flush=True,
        )
    print(
        f"ratio sweep / bare: median {statistics.median(ratios):.3f}, "
        f"from {min(ratios):.3f} to {max(ratios):.3f}, n = {len(ratios)}; "
        f"all seconds {totals['run_sweep']:.0f} / {totals['run_bare']:.0f} = "
        f"{totals['run_sweep'] / totals['run_bare']:.3f}; "
        f"{arguments.trials} trials x {arguments.epochs} epochs, {arguments.space} on "
        f"{arguments.dataset}, {arguments.threads} threads, "
        f"{'one after the other' if arguments.sequential else 'side by side, a core each'}"
    )


def make_plan(arguments: argparse.Namespace) -> dict[str, object]:
    """The points and seeds that a sweep with seed 0 and random search will train."""
    import optuna

    from pipelines.data.prepared import prepare
    from pipelines.objectives import get_objective
    from search_spaces.registry import get_space
    from sweeps.driver.plan import trial_seed
    from sweeps.engines.optuna_study.engine import OptunaEngine

    space = get_space(arguments.space)
    engine = OptunaEngine(
        space,
        get_objective("val_accuracy"),
        optuna.storages.InMemoryStorage(),
        name="plan",
        sampler="random",
        seed=0,
        baselines=space.distinct_baselines(),
    )
    trials = []
    for _ in range(arguments.trials):
        proposal = engine.ask()
        assert proposal is not None
        trials.append({"params": proposal.params, "seed": trial_seed(0, proposal.number)})
    # Prepared once, outside of both measurements: each side maps the same arrays.
    root = Path(tempfile.mkdtemp(prefix="overhead-")) / "data"
    data = prepare(arguments.dataset, root)
    return {
        "space": arguments.space,
        "dataset": arguments.dataset,
        "epochs": arguments.epochs,
        "threads": arguments.threads,
        "trials": trials,
        "work_dir": str(root.parent),
        "keep": arguments.keep and str(Path(arguments.keep).absolute()),
        "folder": data.folder,
        "input_shape": data.input_shape,
        "num_classes": data.num_classes,
    }


def run_sweep(plan: dict[str, object], cores: list[int]) -> float:
    """Seconds of the whole command."""
    trials = plan["trials"]
    assert isinstance(trials, list)
    seconds = timed([
        str(ROOT / "sweeps" / "run.py"), "--space", str(plan["space"]), "--dataset",
        str(plan["dataset"]), "--trials", str(len(trials)), "--epochs", str(plan["epochs"]),
        "--sampler", "random", "--workers", "1", "--threads", str(plan["threads"]), "--timeout",
        "none", "--pruner", "none", "--work-dir", str(plan["work_dir"]),
        *(["--storage", f"sqlite:///{plan['keep']}/optuna.db"] if plan["keep"] else []),
    ], cores)  # fmt: skip
    if plan["keep"]:
        sweeps = Path(str(plan["work_dir"])) / "sweeps"
        kept = Path(str(plan["keep"])) / ".sweeps" / "sweeps"
        shutil.copytree(sweeps, kept, dirs_exist_ok=True)
    return seconds


def run_bare(plan: dict[str, object], cores: list[int]) -> float:
    """Seconds of the whole loop."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(plan, file)
        file.flush()
        return timed([__file__, "--bare", file.name], cores)


def timed(command: list[str], cores: list[int]) -> float:
    """Wall seconds of a Python command in an empty folder, on these cores."""
    bound = ["taskset", "--cpu-list", ",".join(map(str, cores))] if shutil.which("taskset") else []
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run(
            [*bound, sys.executable, *command],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return seconds


def bare_loop(plan: dict[str, object]) -> None:
    """What one would write by hand: build, fit with validation data, next."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import keras
    import numpy as np
    import tensorflow as tf

    from pipelines.evaluation.metrics import PREDICT_BATCH
    from search_spaces.labels import labels_for, takes_one_hot
    from search_spaces.registry import get_space

    threads = int(str(plan["threads"]))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    folder, trials = Path(str(plan["folder"])), plan["trials"]
    assert isinstance(trials, list)
    parts = {
        name: np.load(folder / f"{name}.npy")
        for name in ("x_train", "y_train", "x_validation", "y_validation")
    }
    num_classes = int(str(plan["num_classes"]))
    for trial in trials:
        keras.backend.clear_session()
        keras.utils.set_random_seed(trial["seed"])
        model = get_space(str(plan["space"])).build(
            trial["params"],
            tuple(plan["input_shape"]),  # type: ignore[arg-type]
            num_classes,
            num_steps=1000,
        )
        one_hot = takes_one_hot(model, num_classes)
        y_train, y_validation = (
            labels_for(parts[name], num_classes, one_hot=one_hot)
            for name in ("y_train", "y_validation")
        )
        model.fit(
            parts["x_train"],
            y_train,
            batch_size=trial["params"]["batch_size"],
            epochs=int(str(plan["epochs"])),
            validation_data=(parts["x_validation"], y_validation),
            validation_batch_size=PREDICT_BATCH,
            verbose=0,
        )


if __name__ == "__main__":
    main()
