"""Images per second in training: the loop on the device against a plain `model.fit`.

Both sides train the same model from the same seed in one process, epoch by epoch in turn, so that a
noisy machine is as noisy for the one as for the other:

- loop: an epoch as a trial trains it (`pipelines/training/loops.py`), its order drawn beforehand;
- fit: `model.fit(x, y, batch_size=..., shuffle=True)` on the arrays in memory.

    python benchmarks/throughput.py --backend jax --model small --images 12800 --repeats 5

Models: `published` is cnn3_valid_50k (93,322 parameters), `small` a convolution of 8 filters and a
dense layer of 32 units, `dense` mlp_512x2. It prints the ratio loop / fit of images per second, of
every repetition, its median, and n; beside it the ratio of CPU seconds fit / loop, which minds
other programs less and waiting for a GPU not at all. The first epoch of each side, which compiles,
is left out. Pixels are noise: speed does not mind.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.runtime.compute import BACKENDS, Compute, choose_backend, jit_rule

SMALL = {
    "num_blocks": 1, "filters_0": 8, "num_dense_layers": 1, "dense_units_0": 32,
}  # fmt: skip


def main() -> None:
    """Runs the repetitions and prints them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backend", choices=BACKENDS, default="tensorflow")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--model", choices=("published", "small", "dense"), default="small")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu", help="index of a GPU (default: the cores)")
    arguments = parser.parse_args()
    choose_backend(arguments.backend)
    from pipelines.runtime.process import configure

    jit = jit_rule(arguments.backend, on_gpu=arguments.gpu is not None)
    compute = Compute(arguments.backend, arguments.precision, jit)
    device = configure(arguments.threads, arguments.gpu, 0, compute=compute)
    sides = {"loop": make_side(arguments, jit, by_loop=True),
             "fit": make_side(arguments, jit, by_loop=False)}  # fmt: skip
    for side in sides.values():
        side(0)
    print(f"{compute.text} on {device}: {arguments.model}, batch {arguments.batch_size}, "
          f"{arguments.images:,} images")  # fmt: skip
    ratios, cpu_ratios = [], []
    for repeat in range(arguments.repeats):
        names = ("loop", "fit") if repeat % 2 == 0 else ("fit", "loop")
        found = {name: timed(sides[name], repeat + 1) for name in names}
        speeds = {name: arguments.images / wall for name, (wall, _) in found.items()}
        ratios.append(speeds["loop"] / speeds["fit"])
        cpu_ratios.append(found["fit"][1] / found["loop"][1])
        print(
            f"  loop {speeds['loop']:,.0f}, fit {speeds['fit']:,.0f} images/s: "
            f"ratio {ratios[-1]:.2f}, of CPU seconds {cpu_ratios[-1]:.2f}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f} to {max(ratios):.2f}), of CPU seconds "
          f"{statistics.median(cpu_ratios):.2f} ({min(cpu_ratios):.2f} to {max(cpu_ratios):.2f}), "
          f"n = {arguments.repeats}")  # fmt: skip


def make_side(
    arguments: argparse.Namespace, jit: str, *, by_loop: bool
) -> Callable[[int], dict[str, Any]]:
    """A freshly built model, and what trains it for the epoch of a number."""
    from pipelines.runtime.process import seed_everything
    from pipelines.training.epoch import Training, set_jit
    from pipelines.training.loops import epoch_loop
    from search_spaces.registry import get_space

    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (arguments.images, 28, 28, 1), np.uint8)
    y = generator.integers(0, 10, arguments.images)
    space = get_space("mlp_layers" if arguments.model == "dense" else "cnn_blocks")
    by_name = {baseline.name: dict(baseline.params) for baseline in space.baselines}
    params = {"published": by_name.get("cnn3_valid_50k"), "dense": by_name.get("mlp_512x2"),
              "small": space.complete(SMALL) if arguments.model == "small" else None}[
        arguments.model
    ]  # fmt: skip
    assert params is not None
    params["batch_size"] = arguments.batch_size
    seed_everything(0)
    assembled = space.assembled(params, (28, 28, 1), 10, len(x), arguments.repeats)
    set_jit(assembled.model, jit)
    if not by_loop:
        return lambda epoch: assembled.model.fit(
            x, y, batch_size=arguments.batch_size, shuffle=True, verbose=0
        )
    loop = epoch_loop(assembled, Training(x, y, 10, 0))
    assert loop is not None
    return lambda epoch: loop(np.random.default_rng([0, epoch]).permutation(len(x)))


def timed(side: Callable[[int], Any], epoch: int) -> tuple[float, float]:
    """Wall and CPU seconds of an epoch; the metrics that it returns wait for the device."""
    wall, cpu = time.perf_counter(), time.process_time()
    side(epoch)
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
