"""Records learning curves of points of a space, for `replay_search.py` to replay.

    python benchmarks/record_curves.py --dataset mnist --output benchmarks/curves/mnist.jsonl.gz

The points are those that a default sweep proposes before it knows any result: published models,
defaults, points around them, and uniform ones. Each is trained over the whole default budget in one
process, and measured as a trial is, after every ninth and third of an epoch too where the training
images allow that, in both ways:

- `fitted`: statistics of batch normalisation recomputed, averages of weights in place;
- `trained`: with the moving statistics and the weights as training left them.

Both are of all validation images, and early ones of the early part, too. A line of the file is one
point, as JSON. A file that is there is gone on with: stop the script whenever you like. Seconds are
CPU seconds divided by the threads, which other programs that run beside change little.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import gzip
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.data.prepared import PreparedData
from search_spaces.hyperparameters import Params
from search_spaces.space import Space
from sweeps.driver.plan import trial_seed
from sweeps.settings import LARGE_DATA_BUDGET, LARGE_DATA_IMAGES, SMALL_DATA_BUDGET

THREADS = 2
PER_EPOCH, EARLY = 9, (1, 3)
"""Steps of an epoch, and those within the first one after which a point is measured."""
MIN_IMAGES = 5_000
"""Where a ninth of an epoch has fewer training images, only whole epochs are measured."""


def main() -> None:
    """Records what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="cnn")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--epochs", type=int, help="default: those of a default sweep")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work-dir", default=".sweeps")
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    from pipelines.runtime.process import configure, quiet_start

    with quiet_start():
        configure(THREADS, None, 0)
    from search_spaces.registry import get_space
    from sweeps.setup.data import prepare_data

    data = prepare_data(arguments.dataset, Path(arguments.work_dir) / "data")
    space, output = get_space(arguments.space), Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    known = read_lines(output) if output.exists() else []
    large = data.num_images["train"] >= LARGE_DATA_IMAGES
    epochs = arguments.epochs or (LARGE_DATA_BUDGET if large else SMALL_DATA_BUDGET).num_epochs
    points = first_points(space, data, arguments.points, arguments.seed)
    for number, params in enumerate(points):
        if number < len(known):
            assert known[number]["params"] == params, "the file has other points"
            continue
        line = recorded(space, data, params, epochs, trial_seed(arguments.seed, number))
        with gzip.open(output, "at", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        last = line["reports"][-1] if line["reports"] else {}
        print(f"{number}: {last.get('fitted', math.nan):.4f} {line['failed']}", flush=True)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The recorded points."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def first_points(space: Space, data: PreparedData, num: int, seed: int) -> list[Params]:
    """The points that a default sweep proposes while it knows no result."""
    import optuna

    from pipelines.objectives import get_objective
    from sweeps.engines.optuna_study.engine import OptunaEngine

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def cost(params: Params) -> float | None:
        found = space.cost(params, data.input_shape, data.num_classes)
        return None if found is None else float(found.multiply_adds)

    engine = OptunaEngine(
        space, get_objective("val_accuracy"), optuna.storages.InMemoryStorage(), "points",
        "prior", seed, baselines=space.distinct_baselines(), cost=cost,
    )  # fmt: skip
    points: list[Params] = []
    while len(points) < num and (proposal := engine.ask()):
        if proposal.duplicate_of is None:
            points.append(dict(proposal.params))
    return points


def recorded(
    space: Space, data: PreparedData, params: Params, num_epochs: int, seed: int
) -> dict[str, Any]:
    """One point's line: what it is, what it costs, and what it reports."""
    import keras

    line: dict[str, Any] = {
        "params": params, "num_epochs": num_epochs, "input_shape": data.input_shape,
        "num_images": data.num_images["train"], "failed": "", "reports": [],
    }  # fmt: skip
    cost = space.cost(params, data.input_shape, data.num_classes)
    if cost is not None:
        line |= {"num_parameters": cost.num_parameters, "multiply_adds": cost.multiply_adds}
    try:
        for report in _reports(space, data, params, num_epochs, seed):
            line["reports"].append(report)
    except ArithmeticError as error:  # A non-finite loss.
        line["failed"] = str(error)
    keras.backend.clear_session()
    gc.collect()
    return line


def _reports(
    space: Space, data: PreparedData, params: Params, num_epochs: int, seed: int
) -> Iterator[dict[str, float]]:
    from pipelines.evaluation.metrics import accuracy, predict
    from pipelines.runtime.process import seed_everything
    from pipelines.training.epoch import Stretch, Training, train_stretch
    from pipelines.training.feeding import evenly_spread, part_of
    from pipelines.training.loops import epoch_loop
    from pipelines.training.measured_weights import MeasuredWeights
    from pipelines.training.options import DEFAULT_TRAINING
    from pipelines.training.reports import Reports
    from pipelines.training.trial import EARLY_VALIDATION_IMAGES

    x, y = part_of(data, "train", DEFAULT_TRAINING)
    x_validation, y_validation = part_of(data, "validation", DEFAULT_TRAINING)
    part = evenly_spread(y_validation, EARLY_VALIDATION_IMAGES)
    fine = len(x) >= MIN_IMAGES * PER_EPOCH
    reports = Reports(PER_EPOCH, EARLY) if fine else Reports()
    seed_everything(seed)
    assembled = space.assembled(params, data.input_shape, data.num_classes, len(x), num_epochs)
    model = assembled.model
    measured = MeasuredWeights(model, x, model.optimizer)
    training = Training(x, y, data.num_classes, seed, validation=(x_validation, y_validation))
    loop = epoch_loop(assembled, training)
    step = 0
    while step < num_epochs * reports.per_epoch:
        stretch, step = Stretch.after(step, reports), reports.next_step(step)
        began = time.process_time()
        train_stretch(assembled, loop, training, stretch)
        trained_for = time.process_time() - began
        found = {"epoch": reports.epochs(step), "train_seconds": round(trained_for / THREADS, 3)}
        for kind in ("fitted", "trained"):
            began = time.process_time()
            with measured.in_place() if kind == "fitted" else contextlib.nullcontext():
                probabilities = predict(model, x_validation)
            if kind == "fitted":
                seconds = (time.process_time() - began) / THREADS
                found["validation_seconds"] = round(seconds, 3)
            found[kind] = round(accuracy(probabilities, y_validation), 5)
            if reports.is_early(step):
                early = accuracy(probabilities[part], y_validation[part])
                found[f"{kind}_early"] = round(early, 5)
        yield found


if __name__ == "__main__":
    main()
