"""`explore`: what a data set holds, and a picture of it."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pipelines.download import print_progress
from pipelines.folders import check_writable
from pipelines.image_sets import get_dataset
from pipelines.prepared import PARTS, PreparedData, prepare
from search_spaces.errors import InputError

DESCRIPTION = "Look at a data set: shapes, ranges, class counts, and a picture of samples."
EXAMPLES = """
examples:
  {prog} --dataset digits
  {prog} --dataset mnist --picture samples.png --seed 3
"""
NUM_SAMPLES = 25


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `explore`."""
    parser.add_argument(
        "--dataset", required=True, metavar="NAME", help="mnist, fashion_mnist, cifar10 or digits"
    )
    parser.add_argument(
        "--picture",
        metavar="FILE",
        help="where the picture of samples goes; must be new (default: "
        "<work dir>/pictures/<data set>-samples.png, drawn anew each time)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="which samples are drawn (default: %(default)s)",
    )
    parser.add_argument("--work-dir", default=".sweeps", metavar="DIR",
                        help="prepared data (default: %(default)s)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Prints the tables and writes the picture; returns the exit status."""
    if arguments.seed < 0:
        raise InputError(f"--seed must be at least 0. Received: {arguments.seed}.")
    get_dataset(arguments.dataset)
    root = Path(arguments.work_dir)
    for folder in (root / "data", root / "pictures"):
        check_writable(folder, "--work-dir")
    picture = _picture_path(arguments.picture, root, arguments.dataset)
    data = prepare(arguments.dataset, root / "data", print_progress)
    _print_tables(data)
    _draw(data, picture, arguments.seed)
    print(f"picture of {NUM_SAMPLES} training samples: {picture}")
    return 0


def _picture_path(given: str | None, root: Path, name: str) -> Path:
    if given is None:
        return root / "pictures" / f"{name}-samples.png"
    path = Path(given)
    if path.exists():
        raise InputError(f"--picture must name a new file. Received: {path}, which exists.")
    if not path.parent.is_dir():
        raise InputError(f"--picture must be in an existing folder. Received: {path}.")
    if path.suffix.lower() != ".png":
        raise InputError(f"--picture must end in .png. Received: {path}.")
    return path


def _print_tables(data: PreparedData) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 120, markup=False)
    console.print(f"{data.name} ({data.origin})", style="bold", highlight=False)
    console.print(f"sha256 {data.fingerprint}", highlight=False)
    console.print(f"split: {data.split}", highlight=False)
    shapes = Table("part", "images", "shape", "type", "range", "mean", "sd", box=box.SIMPLE_HEAD)
    counts = Table("class", *PARTS, box=box.SIMPLE_HEAD)
    columns = []
    for part in PARTS:
        x, y = data.arrays(part)
        shapes.add_row(
            part, f"{len(x):,}", "x".join(map(str, x.shape[1:])), str(x.dtype),
            f"{x.min()} to {x.max()}", f"{x.mean():.1f}", f"{x.std():.1f}",
        )  # fmt: skip
        columns.append(np.bincount(y, minlength=data.num_classes))
    for label, row in enumerate(zip(*columns, strict=True)):
        counts.add_row(data.class_names[label], *(f"{int(n):,}" for n in row))
    console.print(shapes, counts)


def _draw(data: PreparedData, path: Path, seed: int) -> None:
    from pipelines.figures import draw_images

    x, y = data.arrays("train")
    chosen = np.sort(np.random.default_rng(seed).choice(len(x), NUM_SAMPLES, replace=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    captions = [data.class_names[label] for label in y[chosen]]
    draw_images(x[chosen], captions, f"{data.name}: {NUM_SAMPLES} training samples", path)
